"""How a packet reached the gateway. The datapath knows it from the netfilter hook and interface."""

from enum import IntEnum


class Arrival(IntEnum):
    """A packet's way in; docs/architecture.md has the hook of each."""

    OUTBOUND = 0
    """From an inside interface, on its way to the outside one."""
    INBOUND = 1
    """From outside, to a public IP."""
    HAIRPIN = 2
    """From an inside interface, to a public IP of this gateway."""
    LOCAL_ERROR = 3
    """ICMP that this host itself sends outward."""
    LATERAL = 4
    """From an inside interface, on its way to an inside one."""
    PROBE = 5
    """A health probe's first packet, which this host sends to a VM."""
