"""No packet overtakes another: which flows may be offloaded, given what waits in the packet queue.

The programs number what goes up of a flow and carry it only while the last number is that of the
last packet that had its verdict (``fastpath.c``, "Order"). The number comes up as the packet's
timestamp, which nothing else uses on the way and which the kernel clears before it sends the packet
on; here it is read and written where the programs look for it.
"""

from __future__ import annotations

import mmap
from struct import Struct

from gateway.datapath.fastpath.map_layout import COUNTER, UP_AT

NUMBERS = 0xFFFF
"""A flow's packets that went up, counted in 16 bits, as in ``fastpath.c``."""
MOST_FLOWS = 1 << 27
"""Whose counters have a place in a timestamp."""
_SECONDS = 4_700_000_000
"""Where our timestamps begin: no clock is there."""
_timestamp = Struct(">QQ")  # NFQA_TIMESTAMP: seconds, microseconds
_WORDS = COUNTER.size // 2
_UP = UP_AT // 2
_HANDLED = _UP + 1
_MOST_PARTS = 256


class Order:
    """Of the flows with these counters, which the kernel and this share."""

    def __init__(self, counters: mmap.mmap) -> None:
        # Native words: each is written at once, and never seen half-written.
        self._words = memoryview(counters).cast("H")
        self._parts: dict[int, int] = {}

    def begin(self, slot: int, *, waits: bool) -> None:
        """Before a flow is installed. ``waits``: packets of it may be in the queue, so that it is
        carried once one that goes up after this has had its verdict; else it is at once."""
        words = self._words
        for at in (2 * slot * _WORDS, (2 * slot + 1) * _WORDS):
            words[at + _HANDLED] = up = words[at + _UP]
            if waits:  # for what never went up: no verdict can be for it
                words[at + _UP] = (up + 1) & NUMBERS

    def passed(self, timestamp: bytes) -> None:
        """A packet with this timestamp has had its verdict."""
        seconds, microseconds = _timestamp.unpack(timestamp)
        number = (seconds - _SECONDS) * 1_000_000 + microseconds
        at = (number >> 24) * _WORDS + _HANDLED
        if not 0 <= at < len(self._words):
            return  # the packet's own: a program on this host asked for receive timestamps
        segments = number >> 16 & 0xFF
        if segments > 1:  # the kernel has cut it up: each of them has the number
            parts = self._parts
            seen = parts.pop(number, 0) + 1
            if seen < segments:
                if len(parts) >= _MOST_PARTS:
                    parts.clear()  # some were lost; a later packet covers all
                parts[number] = seen
                return
        self._words[at] = number & NUMBERS

    def close(self) -> None:
        """Release the counters."""
        self._words.release()
