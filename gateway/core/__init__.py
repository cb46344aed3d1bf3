"""The sans-IO engine: packets as bytes, flows, SNAT ports; time is an argument (Azure seconds)."""
