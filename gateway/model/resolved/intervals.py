"""Sets of whole numbers (addresses, ports) as disjoint, ascending, inclusive intervals.

What rules of security groups become: small enough to compare, union and subtract, whatever the
notation was that they were written in. Knows nothing of rules or configurations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network

Interval = tuple[int, int]
"""First and last, both included."""
Intervals = tuple[Interval, ...]

EVERY_ADDRESS: Intervals = ((0, 2**32 - 1),)
EVERY_PORT: Intervals = ((0, 65535),)


def union(intervals: Iterable[Interval]) -> Intervals:
    """Any intervals as disjoint ascending ones; those that touch become one."""
    merged: list[Interval] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return tuple(merged)


def subtract(whole: Sequence[Interval], part: Sequence[Interval]) -> Intervals:
    """What is in ``whole`` and not in ``part``; both disjoint and ascending."""
    rest: list[Interval] = []
    number = 0
    for first, last in whole:
        while number < len(part) and part[number][1] < first:
            number += 1
        at = number
        while at < len(part) and part[at][0] <= last:
            if first < part[at][0]:
                rest.append((first, part[at][0] - 1))
            first = part[at][1] + 1
            at += 1
        if first <= last:
            rest.append((first, last))
    return tuple(rest)


def of_networks(networks: Iterable[IPv4Network]) -> Intervals:
    """The addresses of prefixes."""
    return union((int(n.network_address), int(n.broadcast_address)) for n in networks)


def of_prefix(text: str) -> Interval:
    """The addresses of ``10.0.0.0/8`` or ``10.0.0.4``, which must be valid."""
    address, _, length = text.partition("/")
    a, b, c, d = address.split(".")
    first = int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)
    return first, first | (1 << 32 - int(length or 32)) - 1


def of_ports(text: str) -> Interval:
    """The ports of ``*``, ``80`` or ``8000-8100``, which must be valid."""
    if text == "*":
        return EVERY_PORT[0]
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def prefixes(intervals: Iterable[Interval]) -> tuple[str, ...]:
    """The fewest prefixes that cover exactly these addresses, as text."""
    found = []
    for first, last in intervals:
        while first <= last:
            # as large as its first address is aligned to, and as what is left
            aligned = (first & -first).bit_length() - 1 if first else 32
            host = min(aligned, (last - first + 1).bit_length() - 1)
            octets = (first >> 24, first >> 16 & 255, first >> 8 & 255, first & 255)
            found.append(f"{'.'.join(map(str, octets))}/{32 - host}")
            first += 1 << host
    return tuple(found)
