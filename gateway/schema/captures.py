"""What a capture says of a packet: sides, directions, and the account of what became of it."""

from __future__ import annotations

INSIDE, OUTSIDE = 0, 1
"""The sides, and the interfaces of a capture."""


UNKNOWN, RECEIVED, SENT = 0, 1, 2
"""Which way a packet went at its interface; the values are pcapng's."""


PacketAnnotation = tuple[
    int | None,
    str | None,
    str | None,
    str,
    str | None,
    str | None,
    int | None,
    str | None,
    str | None,
]
"""Flow, VM, method, verdict, reason, rule; a VM that the packet is for: its flow, its name; where a
capture asks for it, the stages that the packet passed."""


CapturedPacket = tuple[int, int, int, int, int, bytes, PacketAnnotation]
"""Number of the packet, side, direction, time (ns since 1970), length, bytes, account."""
