"""Listings come in parts of bounded size, with pauses where there is nothing to send yet."""

from __future__ import annotations

from typing import Any

from gateway.daemon.channel.api_messages import Kind, Request
from gateway.daemon.engine_process.requests_listings import (
    FLOWS_PER_SLICE,
    PORTS_PER_SLICE,
    ListingRequests,
)
from tests.unit.daemon.serving import FakeEngine, flow, pool, requests_with


def steps(engine: FakeEngine, what: str) -> list[Any]:
    requests = requests_with(ListingRequests(engine, lambda: 0.0).handlers)
    return list(requests.answer(Request(1, what), lambda kind, payload: None))


def test_flows_come_a_slice_at_a_time_as_exact_tuples() -> None:
    engine = FakeEngine()
    engine.flows = [flow(number) for number in range(FLOWS_PER_SLICE + 2)]
    first, second, end = steps(engine, "flows")
    assert (len(first[1]), len(second[1]), end) == (FLOWS_PER_SLICE, 2, (Kind.END, None))
    assert {type(record) for record in first[1]} == {tuple}


def test_a_slice_without_flows_is_a_pause() -> None:
    engine = FakeEngine()
    engine.flow_records = lambda now, count: iter([[], [flow(1)]])  # type: ignore[method-assign]
    assert [step and step[0] for step in steps(engine, "flows")] == [None, Kind.PART, Kind.END]


def test_pools_fill_parts_and_pauses_are_kept() -> None:
    engine = FakeEngine()
    pools = [pool(f"vm{number}") for number in range(PORTS_PER_SLICE + 1)]
    engine.ports = [pools[0], None, *pools[1:]]
    found = steps(engine, "ports")
    assert [step and (step[0], step[1] and len(step[1])) for step in found] == [
        None,
        (Kind.PART, PORTS_PER_SLICE),
        (Kind.PART, 1),
        (Kind.END, None),
    ]
