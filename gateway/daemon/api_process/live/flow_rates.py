"""What every flow carries in a second: a listing of the flow table compared with the one before.
Runs in the API process.

Kept between two listings are bare counters in arrays (48 bytes a flow), no objects. A flow keeps
its place in the table for life, and listings walk the places in order: what was alive when the
previous listing began comes in that listing's order, so that both are read side by side like a
merge. Flows that began while the previous listing ran may be in it or not: few, found by id. An
order that is not as expected costs a dict, never a wrong figure.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Any

from gateway.schema.live_query import Rates
from gateway.schema.records import FlowRecord

DESTINATIONS = 10
MAXIMUM_DESTINATIONS = 1 << 17
"""Remotes counted apart; beyond them, those with the fewest flows are forgotten on the way."""

_AGE = FlowRecord._fields.index("age")
_COUNTERS = slice(FlowRecord._fields.index("packets_out"), FlowRecord._fields.index("bytes_in") + 1)
_REMOTE = slice(FlowRecord._fields.index("remote_ip"), FlowRecord._fields.index("remote_port") + 1)
Remote = tuple[str, int]


class Counts:
    """The counters of all flows at one moment, in the order of a listing."""

    def __init__(self, opened: int) -> None:
        """``opened``: flows ever opened, before the listing began."""
        self.opened = opened
        self.ids = array("Q")
        self.counters = array("Q")  # four for each flow: packets out, bytes out, in, in
        self.ages = array("d")
        self._young: dict[int, int] | None = None
        self._everything: dict[int, int] | None = None
        self._position = 0

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, flow: int) -> int:
        """Where a flow is, or -1. Fast where flows are asked for in a listing's order."""
        ids, position = self.ids, self._position
        if position < len(ids) and ids[position] == flow:
            self._position = position + 1
            return position
        if flow > self.opened:
            if self._young is None:
                self._young = {n: i for i, n in enumerate(ids) if n > self.opened}
            return self._young.get(flow, -1)
        if self._everything is None:
            for place in range(position, len(ids)):
                if ids[place] == flow:
                    self._position = place + 1
                    return place
            self._everything = {n: i for i, n in enumerate(ids)}
        return self._everything.get(flow, -1)


class Comparison:
    """One listing, taken part by part, against the previous one's counts (None: there is none)."""

    def __init__(self, before: Counts | None, *, opened: int, scale: float, seconds: float) -> None:
        """``scale``: Azure seconds in a real one; ``seconds``: real ones since ``before``."""
        self.counts = Counts(opened)
        self.rates: dict[int, Rates] = {}
        """By flow id; flows that are not here carried nothing."""
        self.bytes_out = 0
        self.bytes_in = 0
        self.packets_out = 0
        self.packets_in = 0
        self._before = before
        self._scale = scale
        self._seconds = seconds
        self._flows: Counter[Remote] = Counter()
        self._carried: Counter[Remote] = Counter()

    def add(self, part: Iterable[tuple[Any, ...]]) -> None:
        """Take a part of the listing: FlowRecord's fields."""
        before, counts = self._before, self.counts
        ids, counters, ages, flows = counts.ids, counts.counters, counts.ages, self._flows
        for fields in part:
            flow, numbers, age = fields[0], fields[_COUNTERS], fields[_AGE]
            ids.append(flow)
            counters.extend(numbers)
            ages.append(age)
            flows[fields[_REMOTE]] += 1
            if before is None:
                continue
            place = before.find(flow)
            if place < 0:
                self._moved(fields, numbers, (0, 0, 0, 0), self._seconds)
                continue
            start = 4 * place
            old = before.counters
            if numbers[0] != old[start] or numbers[2] != old[start + 2]:
                seconds = (age - before.ages[place]) / self._scale
                self._moved(fields, numbers, old[start : start + 4], seconds)
        if len(flows) > MAXIMUM_DESTINATIONS:
            self._flows = Counter(dict(flows.most_common(MAXIMUM_DESTINATIONS // 2)))

    def _moved(
        self, fields: tuple[Any, ...], now: tuple[int, ...], old: Any, seconds: float
    ) -> None:
        packets_out, bytes_out = now[0] - old[0], now[1] - old[1]
        packets_in, bytes_in = now[2] - old[2], now[3] - old[3]
        self.packets_out += packets_out
        self.bytes_out += bytes_out
        self.packets_in += packets_in
        self.bytes_in += bytes_in
        if seconds <= 0:
            return
        self.rates[fields[0]] = Rates(
            bytes_out / seconds, bytes_in / seconds, packets_out / seconds, packets_in / seconds
        )
        self._carried[fields[_REMOTE]] += round((bytes_out + bytes_in) / seconds)

    def destinations(self) -> list[tuple[Remote, int, int]]:
        """The remotes that carry most: remote, flows, bytes in a second; then by flows."""
        flows, carried = self._flows, self._carried
        candidates = {
            remote
            for counter in (carried, flows)
            for remote, _ in counter.most_common(DESTINATIONS)
        }
        found = [(remote, flows[remote], carried[remote]) for remote in candidates]
        found.sort(key=lambda entry: (-entry[2], -entry[1], entry[0]))
        return found[:DESTINATIONS]
