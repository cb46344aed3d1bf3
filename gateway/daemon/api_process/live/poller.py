"""Polls the engine at a steady pace, once for all watchers: many clients cost what one does.
Runs in the API process.

While a watcher waits for a sample: flows, ports, status, rules, probes; at most once a second
and rarer where a listing takes long, so that the engine lists a quarter of the time at most. While
none does: ports and status every five seconds, for the history alone. A watcher that does not
read waits for nothing, and so causes no work. Real time only; nothing here reaches packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.daemon.api_process.engine_client import (
    EngineClient,
    EngineFailedError,
    port_record,
)
from gateway.daemon.api_process.event_log import EventLog
from gateway.daemon.api_process.live.flow_rates import Comparison, Counts
from gateway.daemon.api_process.live.flow_sample import (
    Snapshot,
    backend_documents,
    port_documents,
    rule_documents,
)
from gateway.daemon.api_process.live.history import STEP, History
from gateway.daemon.channel.json_views import iso
from gateway.daemon.channel.rule_encoding import read_rules
from gateway.schema.live_query import LiveQuery
from gateway.schema.records import PortRecord

PACE = 1.0
"""Seconds from one full sample to the next, at least."""
LISTING_SHARE = 0.25
"""Of the time, in which the engine may be listing for watchers at most."""
OWN_SHARE = 0.5
"""Of the time, in which this process may be busy with a sample at most."""
QUIET_SHARE = 0.02
"""Of the time, in which the engine may be listing ports without watchers."""
FORGET_AFTER = 10.0
"""Seconds without a watcher until the last snapshot is forgotten: it may be large."""
ENTRIES_PER_SECOND = 500
"""Security rules, and backends, listed in a second: thousands are listed less often."""
MAXIMUM_WATCHERS = 64
MAXIMUM_EVENTS = 100
"""Events in a sample; the latest."""
RETRY = 1.0


def pause(listing: float, whole: float) -> float:
    """Seconds from a sample's begin to the next one's: the engine was listing for ``listing`` of
    them, the sample took ``whole``."""
    return max(PACE, listing / LISTING_SHARE, whole / OWN_SHARE)


@dataclass(eq=False)
class _Waiting:
    """A watcher that wants a sample that begins at ``due`` or later."""

    due: float
    snapshot: asyncio.Future[Snapshot] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class LivePoller:
    """Samples for watchers, and the history. ``run`` does the work until it is cancelled."""

    def __init__(self, engine: EngineClient, log: EventLog) -> None:
        self.history = History()
        self.watchers = 0
        self.log = log
        self._engine = engine
        self._bell = asyncio.Event()
        self._waiting: list[_Waiting] = []
        self._latest: Snapshot | None = None
        self._counts: Counts | None = None
        self._counted_at = 0.0
        self._number = 0
        self._again = 0.0  # no full sample before
        self._quiet_due = 0.0
        self._wanted_at = 0.0
        self._status: dict[str, Any] | None = None
        self._status_at = 0.0
        self._rules: list[dict[str, Any]] = []
        self._hits: dict[tuple[str, str, str], int] | None = None
        self._hits_at = 0.0
        self._rules_due = 0.0
        self._backends: list[dict[str, Any]] = []
        self._backends_due = 0.0

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            now = time.monotonic()
            full = max(min((w.due for w in self._waiting), default=float("inf")), self._again)
            due = min(full, self._quiet_due)
            if due > now:
                self._bell.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._bell.wait(), due - now)
                continue
            try:
                await (self._sample() if full <= now else self._look())
            except EngineFailedError:  # too busy, or ended: clients that wait continue to
                self._again = self._quiet_due = time.monotonic() + RETRY

    def watch(self, query: LiveQuery) -> AsyncIterator[bytes]:
        """Samples as JSON, the first at once if a fresh one is there. Raises EngineFailedError."""
        if self.watchers >= MAXIMUM_WATCHERS:
            line = f"{MAXIMUM_WATCHERS} watchers are there already: try again when one has left"
            raise EngineFailedError([line])
        return self._samples(query)

    async def _samples(self, query: LiveQuery) -> AsyncIterator[bytes]:
        self.watchers += 1
        try:
            seen = self.log.next_number
            snapshot = self._latest
            if snapshot is None or self._is_stale(snapshot):
                snapshot = await self._next(0.0)
            while True:
                number = self.log.next_number
                events, _ = self.log.after(max(seen, number - MAXIMUM_EVENTS), MAXIMUM_EVENTS)
                omitted = number - seen - len(events)
                seen = number
                own = {"events": events, "eventsOmitted": omitted}
                yield await snapshot.sample(query, own)
                due = snapshot.moment + query.interval
                del snapshot  # large, and not needed while this waits
                snapshot = await self._next(due)
        finally:
            self.watchers -= 1

    async def _next(self, due: float) -> Snapshot:
        waiting = _Waiting(due)
        self._waiting.append(waiting)
        self._bell.set()
        try:
            return await waiting.snapshot
        finally:
            self._waiting.remove(waiting)

    def _is_stale(self, snapshot: Snapshot) -> bool:
        return time.monotonic() > max(self._again, snapshot.moment + PACE)

    async def _look(self) -> None:
        """Ports and status, for the history; and what is no longer needed is released."""
        begin = time.monotonic()
        ports = await self._ports()
        took = time.monotonic() - begin
        await self._gateway(await self._engine.status(), ports, {})
        self._plan_quiet(took)
        if begin > max(self._wanted_at, self._again) + FORGET_AFTER:
            self._latest = self._counts = self._hits = None

    def _plan_quiet(self, took: float) -> None:
        """The next poll: in the middle of the next step that has no sample."""
        now = time.monotonic()
        middle = (now // STEP + 1.5) * STEP
        self._quiet_due = max(middle, now + took / QUIET_SHARE)

    async def _ports(self) -> list[PortRecord]:
        records: list[PortRecord] = []
        for part in (await self._engine.ports()).records():
            records += map(port_record, part)
            await asyncio.sleep(0)
        return records

    async def _sample(self) -> None:
        begin, wall = time.monotonic(), time.time()
        self._wanted_at = begin
        status = await self._engine.status()
        answer = await self._engine.flows()
        ports = await self._ports()
        await self._look_at_rules()
        await self._look_at_backends()
        listed = time.monotonic()
        before, since = self._counts, begin - self._counted_at
        scale = float(status.get("timeScale", 1))
        comparison = Comparison(
            before, opened=status.get("flowsOpened", 0), scale=scale, seconds=since
        )
        self._number += 1
        snapshot = Snapshot(self._number, begin, answer.parts, {"time": iso(wall)})
        await snapshot.compare(comparison, rated=before is not None)
        self._counts, self._counted_at = comparison.counts, begin
        carried: dict[str, Any] = {}
        if before is not None and since > 0:
            packets = comparison.packets_out + comparison.packets_in
            carried = {
                # more than were handled here, where the kernel forwards, or hands over many as one
                "packetsPerSecond": round(packets / since, 3),
                "packetsOutPerSecond": round(comparison.packets_out / since, 3),
                "packetsInPerSecond": round(comparison.packets_in / since, 3),
                "bytesOutPerSecond": round(comparison.bytes_out / since, 3),
                "bytesInPerSecond": round(comparison.bytes_in / since, 3),
            }
        gateway = await self._gateway(status, ports, carried)
        snapshot.complete(
            sampleSeconds=round(since, 3) if before is not None else None,
            gateway=gateway,
            ports=port_documents(ports),
            rules=self._rules,
            **({"health": {"backends": self._backends}} if self._backends else {}),
        )
        self._latest = snapshot
        for waiting in self._waiting:
            if waiting.due <= begin and not waiting.snapshot.done():
                waiting.snapshot.set_result(snapshot)
        self._again = begin + pause(listed - begin, time.monotonic() - begin)
        self._plan_quiet(0.0)

    async def _gateway(
        self, status: dict[str, Any], ports: list[PortRecord], carried: dict[str, Any]
    ) -> dict[str, Any]:
        """The gateway's figures, which go into the history, too."""
        now = time.monotonic()
        before, seconds = self._status, now - self._status_at
        self._status, self._status_at = status, now
        drops = status.get("drops", {})
        offloads = status.get("fastPath", {}).get("active", False)

        def rate(count: Callable[[dict[str, Any]], int]) -> float | None:
            if before is None or seconds <= 0:
                return None
            return round(max(count(status) - count(before), 0) / seconds, 3)

        document = {
            "flows": status.get("flows"),
            "maximumFlows": status.get("maximumFlows"),
            "newFlowsPerSecond": rate(lambda s: s.get("flowsOpened", 0)),
            # with a fast path, what the engine handled is next to nothing of what passed
            "packetsPerSecond": None if offloads else rate(lambda s: s.get("packets", 0)),
            "packetsOutPerSecond": None,
            "packetsInPerSecond": None,
            "bytesOutPerSecond": None,
            "bytesInPerSecond": None,
            "dropsPerSecond": rate(lambda s: sum(s.get("drops", {}).values())),
            **carried,
            "drops": drops,
            "queue": status.get("queue", {}),
        }
        self.history.add(now, document, ports)
        return document

    async def _look_at_rules(self) -> None:
        begin = time.monotonic()
        if begin < self._rules_due:
            return
        answer = await self._engine.security_rules({})
        records = list(read_rules(answer.records()))
        since = begin - self._hits_at
        self._rules, self._hits = rule_documents(records, self._hits, since)
        self._hits_at = begin
        self._rules_due = begin + len(records) / ENTRIES_PER_SECOND

    async def _look_at_backends(self) -> None:
        begin = time.monotonic()
        if begin < self._backends_due:
            return
        answer = await self._engine.health()
        self._backends = backend_documents(answer.records())
        self._backends_due = begin + len(self._backends) / ENTRIES_PER_SECOND
