"""Totals that only grow: what flows carried, by public IP, and how many got a SNAT port.

Packets are counted once, in their flow. What ended flows carried is added here when they leave the
table; what live ones carry is added up by ``Traffic.walk``, in slices, while flows come and go. A
flow that ends behind the walk was already added up: its final counters wait until the walk is over,
so that no walk has a flow twice, and none has less than the one before. Nothing is kept for a flow.

Both kinds of totals are bounded: names that come after the first ``SERIES`` share one row, and a
name that has a row of its own keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.flows.tcp import Side
from gateway.model.profile import Method

if TYPE_CHECKING:
    from gateway.core.flows.flow import Flow
    from gateway.core.flows.table import FlowTable

SERIES = 1_000
"""Public IPs (of traffic), and pairs of VM and public IP (of ports), with rows of their own."""
UNTRANSLATED = b""
"""Stands for the public IP of flows within the virtual network, which have none."""
OTHER = b"*"
"""Stands for all public IPs beyond ``SERIES``."""
FLOWS_PER_SLICE = 64

TrafficKey = tuple[bytes, Method, int]
"""Public IP (4 bytes, ``UNTRANSLATED`` or ``OTHER``), method, protocol number."""
Pair = tuple[str, bytes]
"""VM and public IP (4 bytes); ``OTHER_PAIR`` for all those without a row."""
OTHER_PAIR: Pair = ("", OTHER)


class TrafficSums(NamedTuple):
    """What ``Traffic.walk`` found. A row is [packets out, bytes out, packets in, bytes in]."""

    rows: dict[TrafficKey, list[int]]
    flows: dict[tuple[Method, int, str], int]
    """Live flows by method, protocol number and state as listings have it."""


class Traffic:
    """Packets and bytes of all flows there ever were, and their SYNs."""

    def __init__(self, series: int = SERIES) -> None:
        self.syns: dict[TrafficKey, list[int]] = {}
        """[outbound, inbound] SYNs without ACK that went on, repeated ones among them."""
        self.fold: Callable[[Flow], None] = lambda flow: None
        """What brings an offloaded flow's counters up to date."""
        self._series = series
        self._publics: set[bytes] = set()
        self._ended: dict[TrafficKey, list[int]] = {}
        self._behind: dict[TrafficKey, list[int]] = {}  # ended in slots that the walk had passed
        self._passed = 0  # the walk has been in the slots below it; 0: none is under way

    def ended(self, flow: Flow) -> None:
        """A flow leaves the table; it still has its slot."""
        rows = self._behind if flow.slot < self._passed else self._ended
        _add(rows, self._key(flow), _counters(flow))

    def syn(self, flow: Flow, side: Side) -> None:
        """A SYN of a flow passes; ``side``: from the VM, or to it."""
        self.syns.setdefault(self._key(flow), [0, 0])[side] += 1

    def walk(self, table: FlowTable, count: int = FLOWS_PER_SLICE) -> Iterator[TrafficSums | None]:
        """None after each slice of ``count`` slots, the sums last. Begins again for each caller:
        a walk that was left half-way is over."""
        self._end_walk()
        rows: dict[TrafficKey, list[int]] = {}
        flows_of: dict[tuple[Method, int, str], int] = {}
        for first, flows in table.walk(count):
            for flow in flows:
                if flow.offloaded:
                    self.fold(flow)
                _add(rows, self._key(flow), _counters(flow))
                kind = (flow.method, flow.protocol, flow.state_name)
                flows_of[kind] = flows_of.get(kind, 0) + 1
            self._passed = first + count
            yield None
        for key, row in self._ended.items():
            _add(rows, key, row)
        self._end_walk()
        yield TrafficSums(rows, flows_of)

    def _end_walk(self) -> None:
        for key, row in self._behind.items():
            _add(self._ended, key, row)
        self._behind = {}
        self._passed = 0

    def _key(self, flow: Flow) -> TrafficKey:
        method, public = flow.method, flow.public
        if method is Method.VIRTUAL_NETWORK:
            public = UNTRANSLATED
        elif public not in self._publics:
            if len(self._publics) < self._series:
                self._publics.add(public)
            else:
                public = OTHER
        return public, method, flow.protocol


class Connections:
    """Flows that asked for a SNAT port, by VM, public IP and protocol: [got one, found none]."""

    def __init__(self, series: int = SERIES) -> None:
        self.rows: dict[tuple[Pair, int], list[int]] = {}
        self._series = series
        self._pairs: set[Pair] = set()

    def opened(self, vm: str, public: bytes, protocol: int) -> None:
        """A flow got a port on a public IP."""
        self._row(vm, public, protocol)[0] += 1

    def failed(self, vm: str, public: bytes, protocol: int) -> None:
        """A packet that would have opened a flow found no free port on a public IP."""
        self._row(vm, public, protocol)[1] += 1

    def expect(self, vm: str, public: bytes, protocol: int) -> Pair:
        """Begin the row at zero, and say whose it is: the pair's own, or that of the others."""
        pair = self._pair(vm, public)
        self.rows.setdefault((pair, protocol), [0, 0])
        return pair

    def _row(self, vm: str, public: bytes, protocol: int) -> list[int]:
        key = self._pair(vm, public), protocol
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = [0, 0]
        return row

    def _pair(self, vm: str, public: bytes) -> Pair:
        pair = vm, public
        if pair not in self._pairs:
            if len(self._pairs) >= self._series:
                return OTHER_PAIR
            self._pairs.add(pair)
        return pair


def _counters(flow: Flow) -> tuple[int, int, int, int]:
    return flow.packets_out, flow.bytes_out, flow.packets_in, flow.bytes_in


def _add(
    rows: dict[TrafficKey, list[int]], key: TrafficKey, more: tuple[int, int, int, int] | list[int]
) -> None:
    row = rows.get(key)
    if row is None:
        rows[key] = list(more)
        return
    row[0] += more[0]
    row[1] += more[1]
    row[2] += more[2]
    row[3] += more[3]
