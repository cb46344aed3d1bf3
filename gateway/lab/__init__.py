"""The namespace lab: three VMs, a gateway and an internet on one machine, and the demo on it."""
