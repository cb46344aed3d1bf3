"""IP protocols: numbers as they stand on the wire, names as Azure and the API spell them.

The one table of both; what a feature supports of it is that feature's own selection.
Source: IANA, "Assigned Internet Protocol Numbers".
"""

from __future__ import annotations

ICMP, TCP, UDP, GRE, ESP, AH, SCTP = 1, 6, 17, 47, 50, 51, 132

PROTOCOL_NAMES = {
    ICMP: "Icmp",
    TCP: "Tcp",
    UDP: "Udp",
    GRE: "Gre",
    ESP: "Esp",
    AH: "Ah",
    SCTP: "Sctp",
}
PROTOCOL_NUMBERS = {name: number for number, name in PROTOCOL_NAMES.items()}


def protocol_name(number: int) -> str:
    """``Tcp``; a protocol without a usual name is ``Protocol99``."""
    return PROTOCOL_NAMES.get(number) or f"Protocol{number}"
