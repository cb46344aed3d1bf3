"""The SNAT ports of a VM on a public IP, and what flows hold of them.

A port may be held toward many destinations at once (port overloading, RFC 4787), but only once
toward each (docs/fidelity.md A1); the lowest that is free toward a destination is always next (A2).
Which ports a VM has is ``port_ranges.py``'s. Everything is O(1) in the number of ports: to fill the
last of 64,000 costs what the first does.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from heapq import heappush, heapreplace
from ipaddress import IPv4Address
from typing import Protocol

from gateway.core.snat.free_port_bitmap import FreePortBitmap

BUSIEST = 10  # destinations in a port record
SLICE = 1024  # destinations visited between two chances to handle packets


class Ports(Protocol):
    """What a flow holds its port by; ``PortPool`` and a NAT gateway's ``VmNatUsage`` are such."""

    address: bytes
    used: int
    high_water: int
    cooling: int
    failed: int

    @property
    def ranges(self) -> tuple[range, ...]:
        """The ports that the VM was allocated."""

    @property
    def count(self) -> int:
        """How many ports the VM was allocated."""

    @property
    def free(self) -> int:
        """How many of them no flow holds."""

    @property
    def destinations(self) -> int:
        """How many destinations the VM has flows to."""

    @property
    def held(self) -> int:
        """Ports held, each counted once for every destination that it is held toward."""

    def free_toward(self, destination: bytes) -> int:
        """How many more flows could go toward ``destination``."""

    def release(self, destination: bytes, port: int) -> None:
        """A flow toward ``destination`` no longer holds ``port``."""

    def relocate(self, ranges: Iterable[range]) -> bool:
        """Have these ports instead; False: a flow holds one that is not among them."""

    def has(self, port: int) -> bool:
        """Whether a flow may hold this port."""

    def take_exactly(self, destination: bytes, port: int) -> bool:
        """Hold ``port`` toward ``destination`` if that can be; say whether."""

    def take_again(self, destination: bytes, port: int) -> bool:
        """Take the port that a resumed flow held."""

    def busiest(self) -> Iterator[tuple[tuple[bytes, int], ...] | None]:
        """The destinations that take the VM's most ports; None after each slice."""


class PortPool:
    """The SNAT ports of one VM on one public IP for one protocol.

    A destination is a key of 4 bytes (address) or 6 (address and port), as the profile defines it.
    ``_taken`` has, for each destination with flows, either the number n of ports held when these
    are just the n lowest, or -i when the port of index i is the only one (a UDP endpoint that keeps
    its port), or their ``FreePortBitmap``. The first two are the common cases, and need no object.
    """

    __slots__ = (
        "_holders",
        "_starts",
        "_taken",
        "address",
        "cooling",
        "count",
        "failed",
        "high_water",
        "ranges",
        "used",
    )

    def __init__(self, address: bytes, ranges: Iterable[range]) -> None:
        self.address = address  # the public IP, 4 bytes
        self.ranges: tuple[range, ...] = ()
        self._starts: list[int] = []
        self.count = 0
        self._taken: dict[bytes, int | FreePortBitmap] = {}
        self._holders = array("I")  # flows that hold the port, by index
        self.used = 0
        self.high_water = 0
        self.cooling = 0
        self.failed = 0  # flows that found no port
        self._begin(ranges)

    def relocate(self, ranges: Iterable[range]) -> bool:
        """Give the pool other ports. What is held of them stays held; False: some that are gone
        were held, too, and are forgotten. Costs as much as is held."""
        ports = tuple(sorted(ranges, key=lambda ports: ports.start))
        grows = len(self.ranges) == len(ports) == 1 and self.ranges[0] == ports[0][: self.count]
        if grows and all(isinstance(taken, int) for taken in self._taken.values()):
            self._grow(ports)
            return True
        held = [
            (destination, [self.port(index) for index in _indices(taken)])
            for destination, taken in self._taken.items()
        ]
        self._begin(ports)
        lost = 0
        for destination, taken in held:
            for port in taken:
                lost += not self.take_exactly(destination, port)
        return not lost

    def _grow(self, ports: tuple[range, ...]) -> None:
        """Have more ports behind the existing ones."""
        if self._holders:
            self._holders.extend(bytes(len(ports[0]) - self.count))
        self.ranges, self.count = ports, len(ports[0])

    def has(self, port: int) -> bool:
        """Whether a flow may hold this port: it is the pool's."""
        return self.index(port) >= 0

    def _begin(self, ranges: Iterable[range]) -> None:
        self.ranges = tuple(sorted(ranges, key=lambda ports: ports.start))
        self._starts = []
        self.count = 0
        for ports in self.ranges:
            self._starts.append(self.count)
            self.count += len(ports)
        self._taken = {}
        self._holders = array("I")
        self.used = 0

    def port(self, index: int) -> int:
        """The port with an index; indices count the pool's ports in ascending order."""
        if len(self.ranges) == 1:
            return self.ranges[0].start + index
        number = bisect_right(self._starts, index) - 1
        return self.ranges[number].start + index - self._starts[number]

    def index(self, port: int) -> int:
        """The index of a port; -1 if the pool does not have it."""
        for ports, start in zip(self.ranges, self._starts, strict=True):
            if port in ports:
                return start + port - ports.start
        return -1

    def take(self, destination: bytes) -> int:
        """Hold the lowest port that is free toward ``destination``; 0 if there is none."""
        taken = self._taken.get(destination, 0)
        if isinstance(taken, int) and taken < 0:
            taken = self._with_holes(destination, taken)
        if isinstance(taken, int):
            index = taken
            if index == self.count:
                return 0
            self._taken[destination] = index + 1
        else:
            index = taken.lowest()
            if index < 0:
                return 0
            taken.take(index)
        self._hold(index)
        return self.port(index)

    def take_exactly(self, destination: bytes, port: int) -> bool:
        """Hold ``port`` toward ``destination`` if it is the pool's and free; say whether."""
        index = self.index(port)
        if index < 0:
            return False
        taken = self._taken.get(destination, 0)
        if isinstance(taken, int) and taken < 0:
            taken = self._with_holes(destination, taken)
        if isinstance(taken, int):
            if index < taken:
                return False
            if index == taken:
                self._taken[destination] = taken + 1
            elif not taken:
                self._taken[destination] = -index
            else:
                taken = self._with_holes(destination, taken)
                taken.take(index)
        elif taken.is_free(index):
            taken.take(index)
        else:
            return False
        self._hold(index)
        return True

    take_again = take_exactly
    """Hold what a flow held before a restart."""

    def release(self, destination: bytes, port: int) -> None:
        """Give a held port back."""
        index = self.index(port)
        taken = self._taken[destination]
        if isinstance(taken, int):
            if taken < 0 or taken == 1:
                del self._taken[destination]
            elif index == taken - 1:
                self._taken[destination] = index
            else:
                self._with_holes(destination, taken).put(index)
        else:
            taken.put(index)
            if not taken.taken:
                del self._taken[destination]
        self._holders[index] -= 1
        if not self._holders[index]:
            self.used -= 1

    def next_free(self, destination: bytes) -> int:
        """The port that ``take`` would hold now; 0 if there is none."""
        taken = self._taken.get(destination, 0)
        index = max(taken, 0) if isinstance(taken, int) else taken.lowest()
        return self.port(index) if 0 <= index < self.count else 0

    def is_free(self, destination: bytes, port: int) -> bool:
        """Whether ``take_exactly`` would hold this port."""
        index = self.index(port)
        taken = self._taken.get(destination, 0)
        if not isinstance(taken, int):
            return index >= 0 and taken.is_free(index)
        return index >= max(taken, 0) and index != -taken

    def free_toward(self, destination: bytes) -> int:
        """How many more flows this pool could carry toward ``destination``."""
        return self.count - _ports_held(self._taken.get(destination, 0))

    @property
    def free(self) -> int:
        """Ports that no flow holds."""
        return self.count - self.used

    @property
    def destinations(self) -> int:
        """How many destinations have a flow: what ``busiest`` has to visit."""
        return len(self._taken)

    @property
    def held(self) -> int:
        """Ports held, each counted once for every destination that it is held toward."""
        return sum(self._holders)

    def busiest(self) -> Iterator[tuple[tuple[bytes, int], ...] | None]:
        """The destinations that hold the most ports, busiest first; None after each slice."""
        return busiest_of(self._taken, lambda d: _ports_held(self._taken.get(d, 0)))

    def _with_holes(self, destination: bytes, taken: int) -> FreePortBitmap:
        """What is held toward ``destination``, in the form that can have gaps."""
        holes = FreePortBitmap(max(taken, 0), self.count)
        if taken < 0:
            holes.take(-taken)
        self._taken[destination] = holes
        return holes

    def _hold(self, index: int) -> None:
        holders = self._holders
        if not holders:
            holders.extend(bytes(self.count))
        holders[index] += 1
        if holders[index] == 1:
            self.used += 1
            if self.used > self.high_water:
                self.high_water = self.used


def _indices(taken: int | FreePortBitmap) -> Iterable[int]:
    """The indices that an entry of ``PortPool._taken`` stands for, ascending."""
    if isinstance(taken, int):
        return range(taken) if taken >= 0 else (-taken,)
    return taken.indices()


def _ports_held(taken: int | FreePortBitmap) -> int:
    """How many ports an entry of ``PortPool._taken`` stands for."""
    if isinstance(taken, int):
        return taken if taken >= 0 else 1
    return taken.taken


def busiest_of(
    destinations: Iterable[bytes], held: Callable[[bytes], int]
) -> Iterator[tuple[tuple[bytes, int], ...] | None]:
    """The destinations with the most ports ``held``, busiest first; None after each slice."""
    best: list[tuple[int, bytes]] = []
    for number, destination in enumerate(list(destinations), 1):
        entry = held(destination), destination
        if len(best) < BUSIEST:
            heappush(best, entry)
        elif entry > best[0]:
            heapreplace(best, entry)
        if not number % SLICE:
            yield None
    yield tuple((destination, used) for used, destination in sorted(best, reverse=True))


def destination_endpoint(destination: bytes) -> tuple[str, int | None]:
    """A destination key as a person reads it: address, and port where it has one."""
    address = str(IPv4Address(destination[:4]))
    return address, int.from_bytes(destination[4:6], "big") if len(destination) == 6 else None
