"""The flow table is walked in slices while flows come and go."""

from __future__ import annotations

import random
from unittest.mock import Mock

import pytest

from gateway.core.flows.flow import Flow
from gateway.core.flows.table import FlowTable
from gateway.core.snat.allocations import Vm
from gateway.model.profile import Method
from gateway.schema.protocols import UDP

_MACHINE: Vm = Mock(address=bytes([10, 0, 1, 4]))
_PUBLIC = bytes([203, 0, 113, 10])


def flow(number: int) -> Flow:
    """A flow of its own pair of ports."""
    ports = number.to_bytes(2, "big") + b"\x01\xbb"
    remote = bytes([198, 51, 100, 7])
    return Flow(
        UDP,
        _MACHINE.address + remote + ports,
        remote + _PUBLIC + ports[2:] + ports[:2],
        _MACHINE,
        _PUBLIC,
        Method.INSTANCE_LEVEL_PUBLIC_IP,
        None,
        240.0,
        0.0,
    )


def filled(count: int) -> tuple[FlowTable, list[Flow]]:
    table = FlowTable(10_000)
    flows = [flow(number) for number in range(count)]
    for each in flows:
        table.add(each)
    return table, flows


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100])
def test_a_walk_meets_every_flow_once_in_slices(count: int) -> None:
    table, flows = filled(count)
    slices = list(table.walk(16))
    assert [first for first, _ in slices] == list(range(0, max(count, 1), 16))
    assert [each for _, part in slices for each in part] == flows


@pytest.mark.parametrize("seed", range(20))
def test_flows_that_come_and_go_during_a_walk(seed: int) -> None:
    """Whoever is there all the time is met once, whoever is not at most once, and the walk ends."""
    dice = random.Random(seed)
    table, there = filled(300)
    throughout, met, following = set(there), [], 300
    for _, part in table.walk(16):
        assert all(each.slot >= 0 for each in part)
        met += part
        for _ in range(dice.randrange(12)):
            if there and dice.random() < 0.6:
                gone = there.pop(dice.randrange(len(there)))
                throughout.discard(gone)
                table.remove(gone)
            else:
                there.append(flow(following))
                table.add(there[-1])
                following += 1
    assert len(set(met)) == len(met)
    assert throughout <= set(met)


def test_who_works_on_a_slice_may_end_its_flows() -> None:
    table, flows = filled(40)
    ended = []
    for _, part in table.walk(16):
        for each in part:
            table.remove(each)
            ended.append(each)
    assert ended == flows
    assert len(table) == 0
