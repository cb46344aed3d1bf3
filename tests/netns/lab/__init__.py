"""The lab on the command line, with everything that it starts."""
