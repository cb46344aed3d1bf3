"""The namespace lab: five VMs, a gateway and an internet on one host, and the demo on it."""
