"""The lab: what of it needs neither root nor namespaces."""
