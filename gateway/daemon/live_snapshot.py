"""A moment of the gateway, kept as compactly as it came, from which every watcher's view is made.

The flow listing stays the engine's bytes; what moves is a small dict of rates by flow id. A view is
one walk through the listing: watchers that ask the same share it, and other requests are served
in between. What no query changes is JSON already.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from gateway.core.flow import FlowRecord
from gateway.core.ports import PortRecord
from gateway.core.reporting import SecurityRuleRecord
from gateway.daemon.documents import flow_document, port_document, security_rule_name
from gateway.daemon.flow_rates import Comparison
from gateway.daemon.live_query import STILL, LiveQuery, Rates
from gateway.daemon.messages import decode_payload

PARTS_PER_STEP = 32
"""Parts (of 32 flows) between two chances for others: about 3 milliseconds."""
MAXIMUM_PORTS = 1000
RULES = 20


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
        """The JSON of what a watcher gets; ``events``: members that are its own."""
        view = self._views.get(query)
        if view is None:
            view = self._views[query] = asyncio.ensure_future(self._view(query))
        # a watcher that leaves must not cancel what others wait for
        flows = await asyncio.shield(view)
        return b'%b, "flows": %b, %b' % (self._head, flows, encode(dict(events))[1:])

    async def _view(self, query: LiveQuery) -> bytes:
        rates = self._rates or {}
        key = query.key(rates)
        choose = heapq.nlargest if query.filters.descending else heapq.nsmallest
        chosen: list[FlowRecord] = []
        matching = 0
        everything = query.everything
        async for fields in in_steps(self._parts):
            records = [FlowRecord._make(one) for one in fields]
            if not everything:
                records = [record for record in records if query.matches(record)]
            matching += len(records)
            if key is not None:
                chosen += records
                if len(chosen) > 4 * query.limit + 1024:
                    chosen = choose(query.limit, chosen, key=key)
            elif len(chosen) < query.limit:
                chosen += records[: query.limit - len(chosen)]
        if key is not None:
            chosen = choose(query.limit, chosen, key=key)
        rows = [_row(record, self._rates) for record in chosen]
        return encode({"total": self.total, "matching": matching, "rows": rows})


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
            # a reload may have begun a rule's count anew
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
