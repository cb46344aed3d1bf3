"""The last hour in figures: what a dashboard that is opened after the event can still show.
Runs in the API process.

A grid of steps of real time; a step has the mean of rates and the latest of all else, and nothing
(null) where there was no poll. Bounded: so many steps, so many port pools, the busiest first; a
pool that has not been seen for long makes room. Rings of plain arrays: 12 bytes a pool and step.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gateway.daemon.channel.json_views import iso
from gateway.schema.records import PortRecord

STEP = 5.0
"""Seconds."""
STEPS = 720
MAXIMUM_POOLS = 1000
GATEWAY_SERIES = (
    "packetsPerSecond",
    "bytesOutPerSecond",
    "bytesInPerSecond",
    "newFlowsPerSecond",
    "dropsPerSecond",
    "flows",
)
PORT_SERIES = ("allocated", "used", "coolDown", "failed")
_LATEST = frozenset({"flows"})
_MOST = (1 << 31) - 1

PoolKey = tuple[str, str, str, str]


class _Pool:
    """A port pool's series, as rings; -1: nothing."""

    __slots__ = ("rings", "seen")

    def __init__(self) -> None:
        self.rings = tuple(array("i", [-1]) * STEPS for _ in PORT_SERIES)
        self.seen = 0


class History:
    """Series over the latest ``STEPS`` steps."""

    def __init__(self) -> None:
        self._step = -1
        self._gateway: dict[str, list[float | None]] = {
            name: [None] * STEPS for name in GATEWAY_SERIES
        }
        self._taken = dict.fromkeys(GATEWAY_SERIES, 0)
        self._pools: dict[PoolKey, _Pool] = {}

    @property
    def step(self) -> int:
        """The number of the step that the latest sample is in; -1: there is none."""
        return self._step

    def add(self, now: float, gateway: dict[str, Any], ports: Iterable[PortRecord]) -> None:
        """Take a sample at ``now`` (monotonic seconds)."""
        self._advance(int(now // STEP))
        at = self._step % STEPS
        for name, series in self._gateway.items():
            value = gateway.get(name)
            if value is None:
                continue
            taken, mean = self._taken[name], series[at]
            if mean is None or name in _LATEST:
                series[at] = value
            else:
                series[at] = mean + (value - mean) / (taken + 1)
            self._taken[name] = taken + 1
        for record in ports:
            self._add_pool(record, at)
        if len(self._pools) > MAXIMUM_POOLS:
            self._forget_some()

    def _advance(self, step: int) -> None:
        if step <= self._step:
            return
        passed = min(step - self._step, STEPS) if self._step >= 0 else STEPS
        for cleared in range(step - passed + 1, step + 1):
            at = cleared % STEPS
            for series in self._gateway.values():
                series[at] = None
            for pool in self._pools.values():
                for ring in pool.rings:
                    ring[at] = -1
        self._step = step
        self._taken = dict.fromkeys(GATEWAY_SERIES, 0)
        gone = [key for key, pool in self._pools.items() if pool.seen <= step - STEPS]
        for key in gone:
            del self._pools[key]

    def _add_pool(self, record: PortRecord, at: int) -> None:
        key = (record.vm, record.public_ip, record.protocol, record.method)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _Pool()
        pool.seen = self._step
        values = (record.allocated, record.used, record.cooling, record.failed)
        for ring, value in zip(pool.rings, values, strict=True):
            ring[at] = min(value, _MOST)

    def _forget_some(self) -> None:
        def worth(item: tuple[PoolKey, _Pool]) -> tuple[int, int]:
            _, pool = item
            return pool.seen, max(pool.rings[1])

        kept = sorted(self._pools.items(), key=worth, reverse=True)[:MAXIMUM_POOLS]
        self._pools = dict(kept)

    def pieces(
        self,
        now: float,
        wall: float,
        seconds: float,
        vm: str | None,
        limit: int,
    ) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
        """The window up to now: its head, and each pool's series, the most used first."""
        steps = min(max(int(seconds // STEP), 1), STEPS)
        last = int(now // STEP)
        window = range(last - steps + 1, last + 1)
        begin = wall - (now - window[0] * STEP)
        # what is beyond the latest sample is in the ring still, but from an hour ago
        places = [n % STEPS if self._step - STEPS < n <= self._step else -1 for n in window]
        head = {
            "stepSeconds": STEP,
            "times": [iso(begin + i * STEP) for i in range(steps)],
            "gateway": {
                name: [None if at < 0 else _rounded(series[at]) for at in places]
                for name, series in self._gateway.items()
            },
        }
        return head, self._pool_documents(places, vm, limit)

    def _pool_documents(
        self, places: Sequence[int], vm: str | None, limit: int
    ) -> Iterator[dict[str, Any]]:
        peaks = [
            (max((pool.rings[1][at] for at in places if at >= 0), default=-1), key)
            for key, pool in self._pools.items()
            if vm is None or key[0] == vm
        ]
        peaks.sort(key=lambda entry: (-entry[0], entry[1]))
        for peak, key in peaks[:limit]:
            pool = self._pools.get(key)
            if pool is None or peak < 0:
                continue
            document: dict[str, Any] = dict(
                zip(("vm", "publicIp", "protocol", "method"), key, strict=True)
            )
            for name, ring in zip(PORT_SERIES, pool.rings, strict=True):
                values = (ring[at] if at >= 0 else -1 for at in places)
                document[name] = [None if value < 0 else value for value in values]
            yield document


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
