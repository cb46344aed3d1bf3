"""The table: which flows are found under which key, in which slot, and for how long."""

from __future__ import annotations

import random

import pytest

from gateway.core.flows.flow import Flow
from gateway.core.flows.table import FlowTable
from gateway.model.profile import Method
from gateway.schema.protocols import ICMP, TCP, UDP
from tests.unit.core.flows.making import PRIVATE, flow


@pytest.mark.parametrize("protocol", [TCP, UDP, ICMP, 47])
def test_a_flow_is_found_by_both_keys_of_its_protocol_alone(protocol: int) -> None:
    table, added = FlowTable(10), flow(protocol=protocol)
    table.add(added)
    assert table.originals(protocol)[added.original] is added
    assert table.replies(protocol)[added.reply] is added
    for other in {TCP, UDP, ICMP} - {protocol}:
        if {other, protocol} & {TCP, UDP}:
            assert added.original not in table.originals(other)
            assert added.reply not in table.replies(other)


def test_two_flows_never_share_a_public_tuple() -> None:
    table = FlowTable(10)
    table.add(flow(40000, 1024))
    with pytest.raises(AssertionError, match="two flows on one public tuple"):
        table.add(flow(40001, 1024))


def test_what_passes_between_vms_is_found_apart_from_what_is_translated() -> None:
    table = FlowTable(10)
    lateral = flow(method=Method.VIRTUAL_NETWORK, public=PRIVATE)
    table.add(lateral)
    assert not table.tcp_original
    assert not table.tcp_reply
    assert table.lateral.tcp_original == {lateral.original: lateral}
    assert len(table) == 1


def test_the_table_is_full_at_its_maximum_and_counts_what_it_ever_held() -> None:
    table = FlowTable(2)
    first, second = flow(1, 1024), flow(2, 1025)
    table.add(first)
    assert not table.is_full
    table.add(second)
    assert table.is_full
    assert (first.id, second.id) == (1, 2)
    table.remove(first)
    assert not table.is_full
    assert (len(table), table.opened) == (1, 2)


def test_a_removed_flow_is_found_nowhere_and_its_slot_is_used_again_with_no_numbers() -> None:
    table = FlowTable(10)
    first, second, third = flow(1, 1024), flow(2, 1025), flow(3, 1026)
    table.add(first)
    table.add(second)
    slot = first.slot
    table.numbers.opening[slot] = 77
    table.remove(first)
    assert first.slot == -1
    assert list(table) == [second]
    assert table.at(slot) is None
    assert first.original not in table.tcp_original
    assert first.reply not in table.tcp_reply
    table.add(third)
    assert third.slot == slot
    assert third.id == 3
    assert table.numbers.opening[slot] == 0


def test_a_flow_that_let_go_of_its_keys_takes_no_others_with_it() -> None:
    """Another flow has the original key meanwhile, and keeps it when the first one goes."""
    table = FlowTable(10)
    first, second = flow(1, 1024), flow(1, 1025)
    table.add(first)
    table.detach_original(first)
    table.add(second)
    table.remove(first)
    assert table.tcp_original == {second.original: second}
    assert table.tcp_reply == {second.reply: second}


def test_a_detached_flow_can_have_its_original_key_back() -> None:
    table, kept = FlowTable(10), flow()
    table.add(kept)
    table.detach_original(kept)
    assert kept.original not in table.tcp_original
    table.attach_original(kept)
    assert table.tcp_original[kept.original] is kept


def test_a_reclaimed_flow_is_listed_and_no_packet_finds_it() -> None:
    table, reclaimed = FlowTable(10), flow()
    table.add(reclaimed)
    table.reclaim(reclaimed)
    assert reclaimed.awaiting_removal
    assert not table.tcp_original
    assert not table.tcp_reply
    assert list(table) == [reclaimed]
    assert table.reclaimed == {(TCP, reclaimed.original): reclaimed}
    table.remove(reclaimed)
    assert not table.reclaimed


def test_a_slot_without_a_flow_is_passed_over() -> None:
    table, flows = filled(5)
    table.remove(flows[1])
    assert list(table.walk(2)) == [(0, [flows[0]]), (2, flows[2:4]), (4, flows[4:])]


def test_who_writes_flows_down_is_told_of_each_that_changed() -> None:
    table, changed = FlowTable(10), flow()
    table.add(changed)  # nobody asks yet
    table.touched = set()
    table.touch(changed)
    assert table.touched == {0}
    table.touched.clear()
    table.remove(changed)
    assert table.touched == {0}


def test_flows_of_an_earlier_process_have_their_slots_and_numbers_go_on() -> None:
    table = FlowTable(10)
    kept, held = flow(1, 1024), flow(2, 1025)
    table.put_back(kept, 2, original=True, reply=True)
    table.put_back(held, 3, original=False, reply=True)
    assert (kept.slot, held.slot, len(table)) == (2, 3, 2)
    assert table.tcp_original == {kept.original: kept}
    assert table.tcp_reply == {kept.reply: kept, held.reply: held}
    table.go_on_from(41)
    table.go_on_from(7)  # never back
    added = flow(3, 1026)
    table.add(added)
    assert (added.id, added.slot in (0, 1)) == (42, True)


def filled(count: int) -> tuple[FlowTable, list[Flow]]:
    table = FlowTable(10_000)
    flows = [flow(number, number) for number in range(count)]
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
                there.append(flow(following, following))
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
