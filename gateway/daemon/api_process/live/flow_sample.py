"""A moment of the gateway, kept as compactly as it came, from which every watcher's view is made.
Runs in the API process.

The flow listing stays the engine's bytes; what moves is a small dict of rates by flow id. A view is
one walk through the listing: watchers that ask the same share it, and other requests are served
in between. What no query changes is JSON already.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from gateway.daemon.api_process.live.flow_rates import Comparison
from gateway.daemon.channel.api_messages import decode_payload
from gateway.daemon.channel.json_views import (
    flow_document,
    health_documents,
    port_document,
    security_rule_name,
)
from gateway.schema.live_query import STILL, LiveQuery, Rates
from gateway.schema.records import FlowRecord, PortRecord, SecurityRuleRecord

PARTS_PER_STEP = 64
"""Parts (of 16 flows) between two chances for others: about 3 milliseconds."""
MAXIMUM_PORTS = 1000
RULES = 20
MAXIMUM_BACKENDS = 500


class Snapshot:
    """``number`` counts snapshots, ``moment`` is when it began (monotonic)."""

    def __init__(
        self, number: int, moment: float, parts: Sequence[bytes], shared: dict[str, Any]
    ) -> None:
        self.number = number
        self.moment = moment
        self.total = 0
        self._parts = parts
        self._rates: Mapping[int, Rates] | None = None
        self._shared = shared
        self._head = b""
        self._views: dict[LiveQuery, asyncio.Task[bytes]] = {}

    async def compare(self, comparison: Comparison, *, rated: bool) -> None:
        """Walk the listing once, for the rates. ``rated``: there was one before."""
        async for records in in_steps(self._parts):
            comparison.add(records)
        self.total = len(comparison.counts)
        if rated:
            self._rates = comparison.rates
        self._shared["destinations"] = [
            {
                "remote": {"ip": ip, "port": port},
                "flows": flows,
                "bytesPerSecond": carried if rated else None,
            }
            for (ip, port), flows, carried in comparison.destinations()
        ]

    def complete(self, **members: Any) -> None:
        """Add what no query changes; afterwards the snapshot is ready."""
        self._head = encode({**self._shared, **members})[:-1]
        self._shared = {}

    async def sample(self, query: LiveQuery, events: Mapping[str, Any]) -> bytes:
        """The JSON of what a watcher gets; ``events``: its own members, at least one."""
        view = self._views.get(query)
        if view is None:
            view = self._views[query] = asyncio.ensure_future(self._view(query))
        # a watcher that leaves must not cancel what others wait for
        flows = await asyncio.shield(view)
        return b'%b, "flows": %b, %b' % (self._head, flows, encode(dict(events))[1:])

    async def _view(self, query: LiveQuery) -> bytes:
        rates = self._rates or {}
        key = query.key(rates)
        best = None if key is None else _Best(key, query.limit, query.filters.descending)
        chosen: list[FlowRecord] = []
        matching = 0
        everything = query.everything
        async for fields in in_steps(self._parts):
            records = [FlowRecord._make(one) for one in fields]
            if not everything:
                records = [record for record in records if query.matches(record)]
            matching += len(records)
            if best is not None:
                best.add(records)
            elif len(chosen) < query.limit:
                chosen += records[: query.limit - len(chosen)]
        if best is not None:
            chosen = best.records()
        rows = [_row(record, self._rates) for record in chosen]
        return encode({"total": self.total, "matching": matching, "rows": rows})


class _Best:
    """The first so many of all records in an order; each one's key is worked out once."""

    def __init__(self, key: Callable[[FlowRecord], Any], count: int, descending: bool) -> None:
        self._key = key
        self._count = count
        self._descending = descending
        self._number = 0  # among equals the listing's order counts
        self._kept: list[tuple[Any, int, FlowRecord]] = []

    def add(self, records: Sequence[FlowRecord]) -> None:
        """Take records in the listing's order."""
        key, step = self._key, -1 if self._descending else 1
        keyed = [(key(record), step * n, record) for n, record in enumerate(records, self._number)]
        self._number += len(records)
        if len(self._kept) == self._count:
            last = self._kept[-1]
            better = last.__lt__ if self._descending else last.__gt__
            keyed = list(filter(better, keyed))
        choose = heapq.nlargest if self._descending else heapq.nsmallest
        self._kept = choose(self._count, self._kept + keyed)

    def records(self) -> list[FlowRecord]:
        """The first ones, in order."""
        return [record for _, _, record in self._kept]


async def in_steps(parts: Sequence[bytes]) -> AsyncIterator[list[tuple[Any, ...]]]:
    """The records of a listing, some at a time."""
    for start in range(0, len(parts), PARTS_PER_STEP):
        records: list[tuple[Any, ...]] = []
        for part in parts[start : start + PARTS_PER_STEP]:
            records += decode_payload(part)
        yield records
        await asyncio.sleep(0)


def port_documents(records: Sequence[PortRecord]) -> list[dict[str, Any]]:
    """As ``/v1/ports`` has them, without destinations; of very many the most used, in order."""
    if len(records) > MAXIMUM_PORTS:
        busiest = heapq.nlargest(
            MAXIMUM_PORTS,
            range(len(records)),
            key=lambda n: (records[n].used, records[n].high_water, records[n].failed),
        )
        records = [records[n] for n in sorted(busiest)]
    documents = []
    for record in records:
        document = port_document(record._replace(destinations=()))
        del document["destinations"]
        documents.append(document)
    return documents


def rule_documents(
    records: Iterable[SecurityRuleRecord],
    before: Mapping[tuple[str, str, str], int] | None,
    seconds: float,
) -> tuple[list[dict[str, Any]], dict[tuple[str, str, str], int]]:
    """The rules that decide most, and all hits by group, direction and name for the next time.

    ``before``: the same from ``seconds`` ago; None: unknown.
    """
    hits: dict[tuple[str, str, str], int] = {}
    found = []
    for record in records:
        name = security_rule_name(record)
        key = (record.group, record.direction, name)
        hits[key] = record.hits
        if not record.hits:
            continue
        rate = None
        if before is not None and seconds > 0:
            # a reload may have reset a rule's count
            rate = round(max(record.hits - before.get(key, 0), 0) / seconds, 3)
        found.append(
            {
                "networkSecurityGroup": record.group,
                "name": name,
                "direction": record.direction,
                "access": record.access,
                "hits": record.hits,
                "hitsPerSecond": rate,
            }
        )
    busiest = heapq.nlargest(RULES, found, key=lambda one: (one["hitsPerSecond"] or 0, one["hits"]))
    return busiest, hits


def backend_documents(parts: Iterable[Iterable[Any]]) -> list[dict[str, Any]]:
    """As ``/v1/health`` has them; of very many those that are down first, in order."""
    found = [document for part in parts for document in health_documents(part)]
    if len(found) <= MAXIMUM_BACKENDS:
        return found
    places = {status: n for n, status in enumerate(("Down", "Unknown", "Up"))}
    worst = sorted(
        range(len(found)), key=lambda n: places.get(found[n]["status"], len(places))
    )  # stable
    return [found[n] for n in sorted(worst[:MAXIMUM_BACKENDS])]


def encode(document: dict[str, Any]) -> bytes:
    """JSON on one line."""
    return json.dumps(document, ensure_ascii=False).encode()


def _row(record: FlowRecord, rates: Mapping[int, Rates] | None) -> dict[str, Any]:
    document = flow_document(record)
    rate = None if rates is None else rates.get(record.id, STILL)
    for name, position in (
        ("bytesOutPerSecond", 0),
        ("bytesInPerSecond", 1),
        ("packetsOutPerSecond", 2),
        ("packetsInPerSecond", 3),
    ):
        document[name] = None if rate is None else round(rate[position], 1)
    return document
