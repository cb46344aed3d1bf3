"""What is exchanged with the fast path: plain data in the layouts of ``fastpath.c``."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

LAYOUT = 8
"""Of what is in the maps, here and in ``fastpath.c``: another one, another number."""
FROM_INSIDE, FROM_OUTSIDE = 0, 1
ANY = 8
"""Beside TCP's flags in what is reported: a segment, whatever its flags."""

KEY = Struct("=12sBB2x")
_entry = Struct("=Q8xI4s2sBBB23xI")
ENTRY_SIZE = _entry.size
COUNTER = Struct("=QQQ8x")
"""packets, bytes, last used (CLOCK_MONOTONIC, ns); then ``ACKNOWLEDGED`` and ``UP_AT``."""
COUNTERS = Struct("=QQQ8xQQQ8x")
"""A flow's two: of its original direction, then of its reply's."""
ACKNOWLEDGED = Struct("=I")
"""In each of them at ``ACKNOWLEDGED_AT``: the number that TCP acknowledged last; 0: unknown."""
USED_AT, ACKNOWLEDGED_AT = 16, 24
BEGINNING = Struct("=QI")
"""From ``USED_AT`` on when a flow is installed: the time then, and what is acknowledged."""
UP_AT = 28
"""Where the two numbers of ``packet_order.py`` are in each."""


class Direction(NamedTuple):
    """One direction of a flow: which packets, and what becomes of them.

    ``tuple12``: source, destination, source port, destination port, in network order. ``address``
    and ``port`` replace the source's from inside and the destination's from outside; they are the
    packet's own where nothing is translated. ``idle``: milliseconds after which the kernel gives
    the flow up by itself. ``awaited``: its first packet is reported, whatever it is.
    """

    tuple12: bytes
    protocol: int
    side: int
    address: bytes
    port: bytes
    to_outside: bool
    idle: int
    awaited: bool = False

    def key(self) -> bytes:
        """The map's key."""
        return KEY.pack(self.tuple12, self.protocol, self.side)

    def entry(self, flow: int, counter: int, *, reverse: bool) -> bytes:
        """The map's value."""
        seen = 0 if self.awaited else ANY
        return _entry.pack(
            flow, counter, self.address, self.port, seen, self.to_outside, reverse, self.idle
        )

    def is_carried(self, value: bytes, flow: int, counter: int) -> bool:
        """Whether an entry is this direction of this flow."""
        number, index, address, port, _, outward, *_ = _entry.unpack(value)
        found = number, index, address, port, outward
        return found == (flow, counter, self.address, self.port, self.to_outside)


class Report(NamedTuple):
    """A FIN (1), SYN-ACK (2), RST (4) or what was awaited (8) that passed: of which flow, when
    (ns), which way."""

    flow: int
    when: int
    counter: int
    flags: int
    reverse: bool
