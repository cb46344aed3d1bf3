"""``snatgw top``: the gateway on a whole terminal, live.

A client: it knows the API's JSON and the terminal. ``command.py`` starts it, ``source.py`` reads
``/v1/live``, ``app.py`` is the screen and its keys, the rest are its panes.
"""
