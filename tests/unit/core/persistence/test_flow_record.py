"""A flow's record: all of it comes back, and what is not whole or cannot be is no flow."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.core.flows.flow import Flow
from gateway.core.flows.table import FlowTable
from gateway.core.flows.tcp import State
from gateway.core.persistence.flow_record import EMPTY, SIZE, SavedFlow, pack, unpack
from gateway.model.profile import Method
from gateway.schema.protocols import ICMP
from tests.scenario import Scenario
from tests.unit.core.flows.making import PUBLIC, flow
from tests.unit.core.flows.test_resets import RESETTING, exchange
from tests.unit.core.snat.test_nat_gateway_pool import HEAD


def test_every_field_comes_back() -> None:
    table, kept = FlowTable(10), flow()
    table.add(kept)
    kept.state, kept.timeout, kept.created, kept.last_seen = State.ESTABLISHED, 120.0, 1.5, 2.25
    kept.packets_out, kept.bytes_out, kept.packets_in, kept.bytes_in = 3, 4, 5, 6
    kept.inbound = kept.offloaded = True
    table.numbers.resume(kept.slot, 77, (0xFFFFFFFF, 0))
    record = pack(kept, table, lambda flow: (7, 8, 9, 10))
    assert len(record) == SIZE
    assert unpack(record) == SavedFlow(
        id=1, protocol=6, state=State.ESTABLISHED, method=Method.DEFAULT_OUTBOUND_ACCESS,
        original=kept.original, reply=kept.reply, timeout=120.0, created=1.5, last_seen=2.25,
        counters=(3, 4, 5, 6), seen=(7, 8, 9, 10), inbound=True, has_original=True,
        has_reply=True, reclaimed=False, offloaded=True, to_be_reset=False, holds_port=False,
        opening=77, acknowledged=(0xFFFFFFFF, 0),
    )  # fmt: skip


def test_what_a_flow_let_go_of_is_not_written_as_its_own() -> None:
    table, first, second = FlowTable(10), flow(1, 1024), flow(1, 1025)
    table.add(first)
    table.detach_original(first)
    table.add(second)
    saved = unpack(pack(first, table, lambda flow: (0, 0, 0, 0)))
    assert saved is not None
    assert (saved.has_original, saved.has_reply) == (False, True)


def test_a_key_with_its_protocol_comes_back_with_it() -> None:
    table, echo = FlowTable(10), flow(7, 7, protocol=ICMP, public=PUBLIC, remote_port=0)
    table.add(echo)
    saved = unpack(pack(echo, table, lambda flow: (0, 0, 0, 0)))
    assert saved is not None
    assert (saved.original, saved.reply) == (echo.original, echo.reply)
    assert len(saved.original) == 13


def test_the_record_of_an_empty_slot_is_no_flow() -> None:
    assert len(EMPTY) == SIZE
    assert unpack(EMPTY) is None


@pytest.mark.parametrize("time", [float("nan"), float("inf"), 1e17, -1e17])
def test_a_time_that_no_clock_shows_is_none(time: float) -> None:
    table, kept = FlowTable(10), flow()
    table.add(kept)
    kept.last_seen = time
    assert unpack(pack(kept, table, lambda flow: (0, 0, 0, 0))) is None


def test_a_record_of_anything_else_is_none() -> None:
    scenario = Scenario(RESETTING)
    exchange(scenario)
    (flow,) = scenario.engine.flows
    record = pack(flow, scenario.engine.flows, lambda flow: (1, 2, 3, 4))
    whole = unpack(record)
    assert whole is not None
    assert whole.id == flow.id
    for at in range(len(record)):
        assert unpack(record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]) is None
    assert unpack(record[:-1]) is None
    assert unpack(b"") is None


@pytest.mark.parametrize("what", ["id", "packets_in"])
def test_a_number_that_leaves_no_room_to_count_on_is_none(what: str) -> None:
    scenario = Scenario(RESETTING)
    exchange(scenario)
    (flow,) = scenario.engine.flows
    setattr(flow, what, 1 << 63)
    assert unpack(pack(flow, scenario.engine.flows, lambda flow: (0, 0, 0, 0))) is None


def _ended(flow: Flow, _table: FlowTable) -> None:
    flow.state = State.RESET


def _to_be_reset(flow: Flow, table: FlowTable) -> None:
    table.to_be_reset.add(flow)


def _offloaded(flow: Flow, _table: FlowTable) -> None:
    flow.offloaded = True


@pytest.mark.parametrize("change", [_ended, _to_be_reset, _offloaded, None])
def test_a_reclaimed_flow_that_has_what_it_gave_up_is_none(
    change: Callable[[Flow, FlowTable], None] | None,
) -> None:
    """Were it to hold a port, nobody would ever give that back."""
    scenario = Scenario(HEAD)
    scenario.play("vm1 sends udp 10.0.1.4:6 > 198.51.100.1:53")
    (flow,) = scenario.engine.flows
    table, none = scenario.engine.flows, (0, 0, 0, 0)
    if change is None:
        flow.awaiting_removal = True
        assert unpack(pack(flow, table, lambda flow: none)) is None
        return
    flow.pool = None
    table.reclaim(flow)
    assert unpack(pack(flow, table, lambda flow: none)) is not None
    change(flow, table)
    assert unpack(pack(flow, table, lambda flow: none)) is None
