"""The SNAT port inventory: what a public IP has, what a VM is allotted, what flows hold.

Three levels, each with one job:

* ``Inventory``: the ports of one public IP, dealt out in blocks (docs/fidelity.md A3, A6). TCP and
  UDP have the same layout and separate use.
* ``PortPool``: the ports that one VM holds on one public IP for one protocol. A port may be held
  toward many destinations at once, but only once toward each (A1).
* ``Holes``: toward one destination, which ports are free, when they are not simply "all from the
  n-th on". The lowest free one is always next (A2).

Everything is O(1) in the number of ports: filling the last of 64,000 costs what the first does.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from heapq import heappush, heapreplace
from ipaddress import IPv4Address
from typing import NamedTuple, Protocol

WORD = 256  # ports in a word of ``Holes``: two levels of about this size cover 64,000
BUSIEST = 10  # destinations in a port record
SLICE = 1024  # destinations looked at between two chances to handle packets


class Holes:
    """The free ports toward one destination, as a bitmap of two levels.

    ``words`` has a bit for each free index; ``summary`` a bit for each word that is not empty. The
    lowest free index is found by two isolations of a lowest set bit, on integers whose size does
    not grow as ports are used.
    """

    __slots__ = ("summary", "taken", "words")

    def __init__(self, first_free: int, count: int) -> None:
        """``count`` indices, of which those below ``first_free`` are taken."""
        self.taken = first_free
        self.words = [0] * ((count + WORD - 1) // WORD)
        self.summary = 0
        for number in range(len(self.words)):
            low, high = number * WORD, min(count, (number + 1) * WORD)
            used = min(max(first_free - low, 0), high - low)
            word = (1 << (high - low)) - (1 << used)
            self.words[number] = word
            if word:
                self.summary |= 1 << number

    def lowest(self) -> int:
        """The lowest free index; -1 if there is none."""
        if not self.summary:
            return -1
        number = (self.summary & -self.summary).bit_length() - 1
        word = self.words[number]
        return number * WORD + (word & -word).bit_length() - 1

    def after(self, index: int) -> int:
        """The lowest free index from ``index`` on, else the lowest of all; there is one."""
        number = index // WORD
        word = self.words[number] >> index % WORD
        if word:
            return index + (word & -word).bit_length() - 1
        later = self.summary >> number + 1
        if not later:
            return self.lowest()
        number += (later & -later).bit_length()
        word = self.words[number]
        return number * WORD + (word & -word).bit_length() - 1

    def is_free(self, index: int) -> bool:
        return bool(self.words[index // WORD] >> index % WORD & 1)

    def take(self, index: int) -> None:
        """Take a free index."""
        number = index // WORD
        self.words[number] ^= 1 << index % WORD
        if not self.words[number]:
            self.summary ^= 1 << number
        self.taken += 1

    def put(self, index: int) -> None:
        """Give a taken index back."""
        number = index // WORD
        self.words[number] |= 1 << index % WORD
        self.summary |= 1 << number
        self.taken -= 1


class PortRecord(NamedTuple):
    """A port pool as a listing has it. ``used``: ports that at least one flow holds."""

    vm: str
    public_ip: str
    protocol: str
    method: str
    allocated: int
    used: int
    free: int
    high_water: int
    failed: int
    destinations: tuple[tuple[str, int | None, int], ...]
    cooling: int
    ranges: tuple[tuple[int, int], ...] = ()  # the VM's ports, first and last of each
    reserved: tuple[tuple[int, int], ...] = ()  # the public IP's that rules keep out of SNAT


class Ports(Protocol):
    """What a flow holds its port by; ``PortPool`` and a NAT gateway's ``NatShare`` are such."""

    address: bytes
    used: int
    high_water: int
    cooling: int
    failed: int

    @property
    def ranges(self) -> tuple[range, ...]: ...

    @property
    def count(self) -> int: ...

    @property
    def free(self) -> int: ...

    @property
    def destinations(self) -> int: ...

    @property
    def held(self) -> int: ...

    def free_toward(self, destination: bytes) -> int: ...

    def next_free(self, destination: bytes) -> int: ...

    def release(self, destination: bytes, port: int) -> None: ...

    def relocate(self, ranges: Iterable[range]) -> None: ...

    def take_exactly(self, destination: bytes, port: int) -> bool: ...

    def take_again(self, destination: bytes, port: int) -> bool: ...

    def busiest(self) -> Iterator[tuple[tuple[bytes, int], ...] | None]: ...


class PortPool:
    """The SNAT ports of one VM on one public IP for one protocol.

    A destination is a key of 4 bytes (address) or 6 (address and port), as the profile defines it.
    ``_taken`` has, for each destination with flows, either the number n of ports held when these
    are just the n lowest, or -i when the port of index i is the only one (a UDP endpoint that keeps
    its port), or their ``Holes``. The first two are the common cases, and need no object.
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
        self._taken: dict[bytes, int | Holes] = {}
        self._holders = array("I")  # flows that hold the port, by index
        self.used = 0
        self.high_water = 0
        self.cooling = 0
        self.failed = 0  # flows refused for want of a port
        self.relocate(ranges)

    def relocate(self, ranges: Iterable[range]) -> None:
        """Give the pool other ports. It must hold none: the caller takes the live ones again."""
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

    def free_toward(self, destination: bytes) -> int:
        """How many more flows this pool could carry toward ``destination``."""
        return self.count - _ports_held(self._taken.get(destination, 0))

    @property
    def free(self) -> int:
        """Ports that no flow holds."""
        return self.count - self.used

    @property
    def destinations(self) -> int:
        """How many destinations have a flow: what ``busiest`` has to look at."""
        return len(self._taken)

    @property
    def held(self) -> int:
        """Ports held, each counted once for every destination that it is held toward."""
        return sum(self._holders)

    def busiest(self) -> Iterator[tuple[tuple[bytes, int], ...] | None]:
        """The destinations that hold the most ports, busiest first; None after each slice."""
        return busiest_of(self._taken, lambda d: _ports_held(self._taken.get(d, 0)))

    def _with_holes(self, destination: bytes, taken: int) -> Holes:
        """What is held toward ``destination``, in the form that can have gaps."""
        holes = Holes(max(taken, 0), self.count)
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


def _ports_held(taken: int | Holes) -> int:
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


class Inventory:
    """The ports of one public IP, dealt out lowest first.

    ``first`` and ``last`` bound the ports; each ``unit`` of them (aligned) that holds the frontend
    port of a rule is left out (docs/fidelity.md A3).
    """

    def __init__(self, first: int, last: int, unit: int, frontend_ports: Iterable[int]) -> None:
        self._free: list[range] = []  # ascending, disjoint, not touching
        taken: list[range] = []
        start = first
        for reserved in sorted({port // unit for port in frontend_ports}):
            low, high = reserved * unit, (reserved + 1) * unit
            if high <= first or low > last:
                continue
            taken.append(range(max(low, first), min(high, last + 1)))
            if low > start:
                self._free.append(range(start, low))
            start = max(start, high)
        self.reserved = bounds(joined(taken))
        if start <= last:
            self._free.append(range(start, last + 1))
        self.capacity = self.free

    @property
    def free(self) -> int:
        """How many ports are in nobody's allotment."""
        return sum(map(len, self._free))

    def allot(self, count: int) -> list[range] | None:
        """The ``count`` lowest ports that are left, or None if there are fewer."""
        if count > self.free:
            return None
        dealt = []
        while count:
            ports = self._free.pop(0)
            if len(ports) > count:
                self._free.insert(0, ports[count:])
                ports = ports[:count]
            dealt.append(ports)
            count -= len(ports)
        return dealt

    def claim(self, ranges: Iterable[range]) -> list[range]:
        """Take these very ports as far as they are free; returns what was taken."""
        claimed, left = [], []
        wanted = sorted(ranges, key=lambda ports: ports.start)
        for free in self._free:
            start = free.start
            for ports in wanted:
                low, high = max(start, ports.start), min(free.stop, ports.stop)
                if low < high:
                    if start < low:
                        left.append(range(start, low))
                    claimed.append(range(low, high))
                    start = high
            if start < free.stop:
                left.append(range(start, free.stop))
        self._free = left
        return claimed

    def release(self, ranges: Iterable[range]) -> None:
        """Take ports back into the inventory."""
        self._free = joined([*self._free, *ranges])


def bounds(ranges: Iterable[range]) -> tuple[tuple[int, int], ...]:
    """First and last port of each range."""
    return tuple((ports.start, ports.stop - 1) for ports in ranges)


def joined(ranges: Iterable[range]) -> list[range]:
    """The same ports as ascending ranges that do not touch."""
    result: list[range] = []
    for ports in sorted(filter(len, ranges), key=lambda ports: ports.start):
        if result and result[-1].stop == ports.start:
            result[-1] = range(result[-1].start, ports.stop)
        else:
            result.append(ports)
    return result


def lowest(ranges: Iterable[range], count: int) -> tuple[list[range], list[range]]:
    """Split ``ranges`` into their ``count`` lowest ports and the rest."""
    kept, rest = [], []
    for ports in sorted(ranges, key=lambda ports: ports.start):
        keep = min(count, len(ports))
        if keep:
            kept.append(ports[:keep])
        if keep < len(ports):
            rest.append(ports[keep:])
        count -= keep
    return kept, rest
