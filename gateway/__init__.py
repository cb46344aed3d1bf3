"""snatgw: a userspace SNAT gateway that behaves like Azure's outbound path."""

__version__ = "0.1.0"
