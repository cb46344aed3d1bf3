"""Totals: every packet once, whenever its flow ends, and a bounded number of rows."""

from __future__ import annotations

from gateway.core.flows.counters import OTHER, OTHER_PAIR, UNTRANSLATED, Connections, Traffic
from gateway.core.flows.flow import Flow
from gateway.core.flows.table import FlowTable
from gateway.core.flows.tcp import Side
from gateway.model.profile import Method
from gateway.schema.protocols import TCP, UDP
from tests.unit.core.flows.making import DEFAULT, PUBLIC, flow

KEY = (PUBLIC, DEFAULT, TCP)


def counted(number: int, packets: int) -> Flow:
    made = flow(number, 1024 + number)
    made.packets_out, made.bytes_out = packets, packets * 100
    made.packets_in, made.bytes_in = packets * 2, packets * 1000
    return made


def table_of(*flows: Flow) -> FlowTable:
    table = FlowTable(100)
    for each in flows:
        table.add(each)
    return table


def sums(table: FlowTable, count: int = 64) -> dict[tuple[bytes, Method, int], list[int]]:
    *_, last = table.traffic.walk(table, count)
    assert last is not None
    return last.rows


def test_live_and_ended_flows_are_in_the_same_total() -> None:
    ended, live = counted(1, 5), counted(2, 7)
    table = table_of(ended, live)
    assert sums(table) == {KEY: [12, 1200, 24, 12000]}
    table.remove(ended)
    assert sums(table) == {KEY: [12, 1200, 24, 12000]}
    table.remove(live)
    assert sums(table) == {KEY: [12, 1200, 24, 12000]}


def test_a_flow_that_ends_during_a_walk_is_counted_once_by_it_and_by_the_next() -> None:
    """One ends in a slot that the walk has passed, one in a slot that it has yet to come to."""
    behind, ahead = counted(1, 5), counted(2, 7)
    table = table_of(behind, ahead)
    walk = table.traffic.walk(table, 1)
    assert next(walk) is None
    table.remove(behind)
    table.remove(ahead)
    *_, last = walk
    assert last is not None
    assert last.rows[KEY][0] == 12
    assert sums(table)[KEY][0] == 12


def test_a_walk_that_was_left_half_way_loses_nothing() -> None:
    ended, live = counted(1, 5), counted(2, 7)
    table = table_of(ended, live)
    assert next(table.traffic.walk(table, 1)) is None
    table.remove(ended)
    assert sums(table)[KEY][0] == 12


def test_an_offloaded_flow_is_brought_up_to_date_first() -> None:
    offloaded = counted(1, 5)
    offloaded.offloaded = True
    table = table_of(offloaded)

    def fold(each: Flow) -> None:
        each.packets_out += 1

    table.traffic.fold = fold
    assert sums(table)[KEY][0] == 6


def test_live_flows_are_counted_by_method_protocol_and_state() -> None:
    table = table_of(counted(1, 1), counted(2, 1), flow(3, 1027, protocol=UDP))
    *_, last = table.traffic.walk(table)
    assert last is not None
    assert last.flows == {(DEFAULT, TCP, "Opening"): 2, (DEFAULT, UDP, "Opening"): 1}


def test_what_passes_between_vms_has_no_public_ip() -> None:
    table = table_of(flow(method=Method.VIRTUAL_NETWORK))
    assert list(sums(table)) == [(UNTRANSLATED, Method.VIRTUAL_NETWORK, TCP)]


def test_public_ips_beyond_the_bound_share_a_row_and_the_first_keep_theirs() -> None:
    traffic = Traffic(series=2)
    for last in (1, 2, 3, 4, 1):
        traffic.syn(flow(public=bytes((203, 0, 113, last))), Side.ORIGINAL)
    traffic.syn(flow(public=bytes((203, 0, 113, 1))), Side.REPLY)
    assert {key[0]: row for key, row in traffic.syns.items()} == {
        bytes((203, 0, 113, 1)): [2, 1],
        bytes((203, 0, 113, 2)): [1, 0],
        OTHER: [2, 0],
    }


def test_connections_are_counted_by_vm_public_ip_and_protocol() -> None:
    connections = Connections(series=2)
    assert connections.expect("vm1", PUBLIC, TCP) == ("vm1", PUBLIC)
    connections.opened("vm1", PUBLIC, TCP)
    connections.opened("vm1", PUBLIC, TCP)
    connections.failed("vm1", PUBLIC, TCP)
    connections.failed("vm1", PUBLIC, UDP)
    connections.opened("vm2", PUBLIC, TCP)
    connections.opened("vm3", PUBLIC, TCP)  # beyond the bound
    connections.failed("vm4", PUBLIC, TCP)
    assert connections.expect("vm5", PUBLIC, TCP) == OTHER_PAIR
    assert connections.rows == {
        (("vm1", PUBLIC), TCP): [2, 1],
        (("vm1", PUBLIC), UDP): [0, 1],
        (("vm2", PUBLIC), TCP): [1, 0],
        (OTHER_PAIR, TCP): [1, 1],
    }
