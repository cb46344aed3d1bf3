"""How a packet reached the gateway. The datapath knows it from the netfilter hook, the interface,
and whether the kernel reassembled the packet from fragments."""

from __future__ import annotations

from enum import IntEnum


class IngressPath(IntEnum):
    """A packet's ingress path; docs/architecture.md has the hook of each."""

    OUTBOUND = 0
    """From an inside interface, on its way to the outside one."""
    INBOUND = 1
    """From outside, or from another network of this host, to a public IP."""
    HAIRPIN = 2
    """From an inside interface, to a public IP of this gateway; or to this host, which may have
    asked a public IP."""
    LOCAL_ERROR = 3
    """ICMP that this host itself sends outward."""
    LATERAL = 4
    """From an inside interface, on its way to an inside one; or to another network of this host,
    which may have asked a public IP."""
    PROBE = 5
    """This host sends: a health probe's first packet to a VM, or anything to a public IP."""
    OUTBOUND_IN_FRAGMENTS = 6
    """As ``OUTBOUND``; distinguished only where that matters
    (``Profile.fragments_through_snat``)."""
    INBOUND_IN_FRAGMENTS = 7
    HAIRPIN_IN_FRAGMENTS = 8

    @property
    def whole(self) -> IngressPath:
        """The same path, for a packet that came unfragmented."""
        return _WHOLE.get(self, self)


_WHOLE = {
    IngressPath.OUTBOUND_IN_FRAGMENTS: IngressPath.OUTBOUND,
    IngressPath.INBOUND_IN_FRAGMENTS: IngressPath.INBOUND,
    IngressPath.HAIRPIN_IN_FRAGMENTS: IngressPath.HAIRPIN,
}
