"""The first flows in an order, found part by part, are those that sorting all of them finds."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.daemon.api_process.live import flow_sample
from gateway.daemon.api_process.live.flow_rates import Comparison
from gateway.daemon.api_process.live.flow_sample import Snapshot
from gateway.daemon.channel.api_messages import Kind, encode
from gateway.schema.live_query import LiveQuery
from tests.unit.daemon.serving import flow


async def ids(counts: list[int], query: dict[str, str]) -> list[int]:
    records = [tuple(flow(n, bytes_out=count)) for n, count in enumerate(counts)]
    parts = [encode(1, Kind.PART, records[n : n + 3]) for n in range(0, len(records), 3)]
    snapshot = Snapshot(1, 0.0, parts, {})
    await snapshot.compare(Comparison(None, opened=0, scale=1, seconds=1), rated=False)
    snapshot.complete()
    sample: dict[str, Any] = json.loads(
        await snapshot.sample(LiveQuery.parse(query), {"events": []})
    )
    assert sample["flows"]["matching"] == len(counts)
    return [row["id"] for row in sample["flows"]["rows"]]


@given(st.lists(st.integers(0, 5), max_size=40), st.integers(1, 8), st.booleans())
def test_the_first_of_all(counts: list[int], limit: int, descending: bool) -> None:
    live_snapshot_steps, flow_sample.PARTS_PER_STEP = flow_sample.PARTS_PER_STEP, 1
    try:
        query = {"sort": "-bytesOut" if descending else "bytesOut", "limit": str(limit)}
        found = asyncio.run(ids(counts, query))
    finally:
        flow_sample.PARTS_PER_STEP = live_snapshot_steps
    ordered = sorted(range(len(counts)), key=counts.__getitem__, reverse=descending)
    assert found == ordered[:limit]
