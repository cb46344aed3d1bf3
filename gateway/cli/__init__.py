"""The command line: ``snatgw``. Knows the API's JSON and how to start a daemon, nothing of packets.

Commands live in modules of their own that are imported when one is used, so that ``--help`` and
shell completion answer at once.
"""
