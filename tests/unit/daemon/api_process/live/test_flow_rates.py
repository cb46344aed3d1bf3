"""Rates from two listings: the reading side by side finds what a plain look-up finds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.daemon.api_process.live import flow_rates
from gateway.daemon.api_process.live.flow_rates import Comparison, Counts
from gateway.schema.live_query import Rates
from gateway.schema.records import FlowRecord
from tests.unit.daemon.serving import flow


def listing(
    *records: FlowRecord, before: Counts | None = None, opened: int = 0, scale: float = 1.0
) -> Comparison:
    comparison = Comparison(before, opened=opened, scale=scale, seconds=2.0)
    comparison.add([tuple(record) for record in records])
    return comparison


def test_a_flows_rate_is_over_the_time_between_its_own_two_readings() -> None:
    before = listing(flow(1, age=10.0)).counts
    after = listing(
        flow(1, age=14.0, packets_out=7, bytes_out=1180, packets_in=4, bytes_in=520), before=before
    )
    assert after.rates == {1: Rates(250.0, 100.0, 1.0, 0.5)}
    assert (after.bytes_out, after.bytes_in, after.packets_out, after.packets_in) == (
        1000, 400, 4, 2,
    )  # fmt: skip


def test_rates_are_of_real_seconds_whatever_the_time_scale() -> None:
    before = listing(flow(1, age=0.0)).counts
    after = listing(flow(1, age=60.0, packets_out=4, bytes_out=280), before=before, scale=60.0)
    assert after.rates[1].bytes_out == 100.0


def test_a_flow_that_carries_nothing_has_no_entry_and_a_new_one_counts_from_zero() -> None:
    before = listing(flow(1)).counts
    after = listing(flow(1, age=99.0), flow(2, bytes_out=200, bytes_in=100), before=before)
    assert after.rates == {2: Rates(100.0, 50.0, 1.5, 1.0)}


def test_without_an_earlier_listing_there_are_no_rates() -> None:
    assert listing(flow(1)).rates == {}


def test_destinations_are_those_that_carry_most_then_those_with_most_flows() -> None:
    before = listing(flow(1, age=0.0), flow(2, remote_ip="192.0.2.1"), flow(3)).counts
    after = listing(
        flow(1, age=2.0),
        flow(2, remote_ip="192.0.2.1", age=14.34567, packets_in=3, bytes_in=320),
        flow(3),
        before=before,
    )
    assert after.destinations() == [(("192.0.2.1", 443), 1, 100), (("198.51.100.7", 443), 2, 0)]


def test_remotes_without_number_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_rates, "MAXIMUM_DESTINATIONS", 20)
    comparison = listing(*(flow(n, remote_port=1) for n in range(5)))
    for n in range(100):
        comparison.add([tuple(flow(100 + n, remote_port=1000 + n))])
    assert len(comparison._flows) <= 20
    assert comparison.destinations()[0] == (("198.51.100.7", 1), 5, 0)


@settings(deadline=None)  # another process may have the processor
@given(st.data())
def test_what_is_found_is_what_was_there(data: st.DataObject) -> None:
    """Slots are taken, freed and taken again; a listing sees flows of its own time or not."""
    slots: list[int | None] = data.draw(
        st.lists(st.one_of(st.none(), st.just(-1)), min_size=1, max_size=30)
    )
    opened = 0
    for place, slot in enumerate(slots):
        if slot is not None:
            opened += 1
            slots[place] = opened
    numbers = data.draw(st.permutations([s for s in slots if s is not None]))
    slots = [None if s is None else numbers.pop() for s in slots]
    known = opened  # flows beyond began while the listing ran
    for place in data.draw(st.sets(st.integers(0, len(slots) - 1))):
        opened += 1
        slots[place] = opened
    first = [s for s in slots if s is not None]
    before = listing(*(flow(n, bytes_out=n) for n in first), opened=known).counts
    for place in data.draw(st.sets(st.integers(0, len(slots) - 1))):
        opened += 1
        slots[place] = data.draw(st.sampled_from([None, opened]))
    asked = [s for s in slots if s is not None]
    if data.draw(st.booleans()):  # an order that no table has
        asked = data.draw(st.permutations(asked))
    for number in asked:
        expected = first.index(number) if number in first else -1
        assert before.find(number) == expected
