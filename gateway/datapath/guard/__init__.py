"""The egress guard: what may never leave by the outside interface, whatever the rules are."""
