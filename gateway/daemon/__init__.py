"""The daemon: wires model, core and datapath together, and serves clients over an HTTP API.

It never looks into a packet. docs/architecture.md, "Processes", says which process does what.
"""
