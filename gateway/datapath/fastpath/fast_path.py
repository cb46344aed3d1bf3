"""Loads the fast path and keeps its map.

A flow is installed in both directions or not at all, never over another one's key, and its counters
are read from shared memory without a system call. Two counters belong to a flow: ``2 * slot`` and
the next. They are never reset: a reader keeps what it has already seen. What TCP's two sides
have acknowledged stands there, too; it begins with what is known when the flow is installed, and so
does the time of the last packet.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import socket
import time
from collections.abc import Container, Sequence
from pathlib import Path
from struct import Struct

from pyroute2.netlink.exceptions import NetlinkError

from gateway.datapath.errors import DatapathError
from gateway.datapath.fastpath.lease import LEASE, clear_later
from gateway.datapath.fastpath.libbpf import BpfObject
from gateway.datapath.fastpath.map_layout import (
    ACKNOWLEDGED,
    ACKNOWLEDGED_AT,
    BEGINNING,
    COUNTER,
    COUNTERS,
    ENTRY_SIZE,
    KEY,
    USED_AT,
    Direction,
    Report,
)
from gateway.datapath.fastpath.map_reuse import Inheritance, layout_name
from gateway.datapath.fastpath.packet_order import MOST_FLOWS, Order
from gateway.datapath.fastpath.pins import Pins, remove_stale
from gateway.datapath.fastpath.ring_buffer import SIZE as REPORTS_SIZE
from gateway.datapath.fastpath.ring_buffer import ReportReader
from gateway.datapath.fastpath.tc_filters import attach, detach

OBJECT = Path(__file__).parent / "fastpath.o"
_settings = Struct("=I4xQQ")  # outside_interface, until, held_back
REPORTS_PER_LOOK = 1024


class FastPath:
    """The map and the programs, for flows whose slot is below ``capacity``."""

    def __init__(
        self, inside: Sequence[str], outside: str, capacity: int, *, program: Path = OBJECT
    ) -> None:
        """Load. Raises DatapathError with the reason."""
        self.capacity = capacity = min(capacity, MOST_FLOWS)
        self.leaving = False
        self.refused = 0  # flows that found no room, or another one's key
        self._outside = outside
        self._interfaces = [*((name, "from_inside") for name in inside), (outside, "from_outside")]
        if not program.exists():
            raise DatapathError([f"{program.name} is not compiled (clang and libbpf-dev make it)"])
        self._pins = Pins(outside)
        shapes = {
            "entries": (KEY.size, ENTRY_SIZE, 2 * capacity),
            "counters": (4, COUNTER.size, 2 * capacity),
            "reports": (0, 0, REPORTS_SIZE),
        }
        try:
            index = socket.if_nametoindex(outside)
            left = Inheritance([name for name, _ in self._interfaces], shapes, self._pins)
            self.inherits = bool(left.maps)
            self.not_inherited = left.reason
            self._is_pinned = left.pinned and self.inherits
            try:
                self._object = BpfObject(
                    str(program),
                    entries=(
                        {} if left.maps else {"entries": 2 * capacity, "counters": 2 * capacity}
                    ),
                    variables=_settings.pack(index, 0, 0),
                    reused=left.maps,
                )
            finally:
                left.close()
        except OSError as error:
            raise DatapathError([f"eBPF: {error.strerror or error}"]) from None
        self._maps = {layout_name(name): self._object.map(name) for name in shapes}
        self._entries = self._object.map("entries")
        size = 2 * capacity * COUNTER.size
        pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        self._counters = mmap.mmap(self._object.map("counters"), pages)
        self._order = Order(self._counters)
        self.passed = self._order.passed
        self._reports = ReportReader(self._object.map("reports"))

    def attach(self) -> None:
        """Let the programs see packets. Raises DatapathError, with none attached."""
        if not self._is_pinned:
            self._is_pinned = self._pins.renew(self._maps)
            remove_stale()
        try:
            for name, program in self._interfaces:
                attach(name, self._object.program(program))
        except (OSError, NetlinkError) as error:
            detach(name for name, _ in self._interfaces)
            self._pins.remove()
            raise DatapathError([f"eBPF cannot be attached: {error}"]) from None

    def renew(self) -> None:
        """Continue after an interface was removed and created again. Raises as ``attach``."""
        try:
            self._set(socket.if_nametoindex(self._outside), 0)
        except OSError as error:
            raise DatapathError([f"eBPF: {error.strerror or error}"]) from None
        self.attach()

    def install(
        self,
        flow: int,
        slot: int,
        original: Direction,
        reply: Direction,
        acknowledged: tuple[int, int] = (0, 0),
        *,
        waits: bool,
    ) -> bool:
        """Take a flow over. False: no room in the map, or a key that is taken; nothing changed.

        ``acknowledged``: by either direction of TCP; 0: unknown. ``waits``: packets of it may be in
        the packet queue; it is carried behind them.
        """
        self._order.begin(slot, waits=waits)
        library, entries = self._object, self._entries
        counters, now = self._counters, time.monotonic_ns()
        for counter, number in enumerate(acknowledged, 2 * slot):
            BEGINNING.pack_into(counters, counter * COUNTER.size + USED_AT, now, number)
        key = original.key()
        if library.insert(entries, key, original.entry(flow, 2 * slot, reverse=False)):
            self.refused += 1
            return False
        back = reply.entry(flow, 2 * slot + 1, reverse=True)
        if library.insert(entries, reply.key(), back):
            library.delete(entries, key)
            self.refused += 1
            return False
        return True

    def remove(self, original: Direction, reply: Direction) -> None:
        """Give a flow back: when this returns, its next packet goes up."""
        for direction in (original, reply):
            result = self._object.delete(self._entries, direction.key())
            if result not in (0, errno.ENOENT):
                raise OSError(result, "fast path: an entry cannot be removed")

    def carries(self, flow: int, slot: int, original: Direction, reply: Direction) -> bool:
        """Whether the kernel has both directions of a flow as they would be installed now."""
        library, entries = self._object, self._entries
        for counter, direction in enumerate((original, reply), 2 * slot):
            found = library.lookup(entries, direction.key(), ENTRY_SIZE)
            if found is None or not direction.is_carried(found, flow, counter):
                return False
        return True

    def keep_only(self, wanted: Container[bytes]) -> int:
        """Remove every entry whose key is not wanted; how many. Raises OSError."""
        library, entries = self._object, self._entries
        found = list(library.keys(entries, KEY.size, ENTRY_SIZE))
        return sum(key not in wanted and not library.delete(entries, key) for key in found)

    def totals(self, slot: int) -> tuple[int, int, int, int, int, int]:
        """Packets, bytes and last use (CLOCK_MONOTONIC, nanoseconds; at first when it was
        installed) of a flow's original direction, then of its reply's; all only ever grows."""
        return COUNTERS.unpack_from(self._counters, slot * COUNTERS.size)

    def acknowledged(self, slot: int) -> tuple[int, int]:
        """What either direction of a TCP flow acknowledged last; 0: unknown."""
        first, second = (
            ACKNOWLEDGED.unpack_from(self._counters, counter * COUNTER.size + ACKNOWLEDGED_AT)[0]
            for counter in (2 * slot, 2 * slot + 1)
        )
        return first, second

    def reports(self) -> list[Report]:
        """What passed of TCP's SYN-ACKs, FINs and RSTs since the last call."""
        return self._reports.read(REPORTS_PER_LOOK)

    @property
    def held_back(self) -> int:
        """Packets dropped so far of flows that could not catch up with what waited in the queue."""
        size = _settings.size
        found = self._object.lookup(self._object.map(".bss"), bytes(4), size)
        return 0 if found is None else int(_settings.unpack(found)[2])

    def _set(self, outside: int, until: int) -> None:
        self._object.set_variables(_settings.pack(outside, until, self.held_back))

    def leave(self) -> None:
        """Have ``close`` leave programs and maps to the next daemon, for ``LEASE`` seconds.

        They carry what they carry, also when the interfaces do not forward any more. After that
        time the kernel carries nothing, whatever runs, and a process of its own removes everything.
        """
        until = time.monotonic_ns() + round(LEASE * 1e9)
        with contextlib.suppress(OSError):
            index = socket.if_nametoindex(self._outside)
            self._set(index, until)
            self.leaving = True

    def close(self) -> None:
        """Detach, and forget everything; after ``leave`` only the latter."""
        with contextlib.suppress(AttributeError, BufferError):
            self._reports.close()
            self._order.close()
            self._counters.close()
        if not (self.leaving and clear_later(name for name, _ in self._interfaces)):
            detach(name for name, _ in self._interfaces)
            self._pins.remove()
        self._object.close()
