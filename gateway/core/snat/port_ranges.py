"""The ports of a public IP, allocated in blocks (docs/fidelity.md A3, A6).

TCP and UDP have the same layout and separate use.
"""

from __future__ import annotations

from collections.abc import Iterable


class PortRanges:
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
        """How many ports are in no allocation."""
        return sum(map(len, self._free))

    def allocate(self, count: int) -> list[range] | None:
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

    def foreseen(self, count: int, released: Iterable[range]) -> list[range] | None:
        """What ``allocate`` would deal after ``released`` came back."""
        ports, _ = lowest(joined([*self._free, *released]), count)
        return ports if sum(map(len, ports)) == count else None

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
