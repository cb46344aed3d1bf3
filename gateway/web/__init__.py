"""The dashboard: a page in a browser, over what the API offers to read.

``page/`` is what the browser gets, as it is: no build step, nothing from other hosts. ``site.py``
serves it beside the readable part of the API, ``guard.py`` decides who gets any of it. Like every
client it knows the API's JSON and nothing of the engine.
"""
