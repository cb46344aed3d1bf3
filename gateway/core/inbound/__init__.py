"""Load balancing rules, inbound NAT rules, and the hash that chooses a backend."""
