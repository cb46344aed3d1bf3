"""Bars, columns and words, without a screen."""

from __future__ import annotations

import pytest

from gateway.tui.event_rows import what
from gateway.tui.flow_rows import FIELDS, SORTS, columns, next_order, sorted_by
from gateway.tui.port_rows import bar, rows
from gateway.tui.port_rows import columns as port_columns


def ports(used: int, cooling: int = 0, high: int = 0, allocated: int = 100) -> dict[str, object]:
    return {
        "vm": "vm1", "publicIp": "203.0.113.10", "protocol": "Tcp", "allocated": allocated,
        "used": used, "coolDown": cooling, "highWater": max(high, used), "failed": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pool", "drawn"),
    [
        (ports(0), "··········"),
        (ports(1), "█·········"),
        (ports(50), "█████·····"),
        (ports(99), "█████████·"),
        (ports(100), "██████████"),
        (ports(50, cooling=20), "███▓▓·····"),
        (ports(3, cooling=3), "▓·········"),
        (ports(3, cooling=1), "█·········"),
        (ports(50, cooling=49), "█▓▓▓▓·····"),
        (ports(20, high=80), "██·····|··"),
        (ports(5, high=1000, allocated=1000), "█········|"),
        (ports(0, allocated=0), "··········"),
        (ports(8, allocated=4), "██████████"),  # what was taken back holds ports still
    ],
)
def test_a_bar_shows_what_is_there_and_is_full_only_when_it_is(
    pool: dict[str, object], drawn: str
) -> None:
    assert bar(pool, 10) == drawn


def test_the_fullest_pool_stands_first_and_names_decide_among_equals() -> None:
    pools = [ports(1) | {"vm": "b"}, ports(1) | {"vm": "a"}, ports(90) | {"vm": "c"}]
    assert [row.cells[0] for row in rows(pools, port_columns(79))] == ["c", "a", "b"]


@pytest.mark.parametrize("room", [30, 79, 120, 300])
def test_columns_fill_the_screen_and_no_more(room: int) -> None:
    assert len(columns("vm", room)) == len(FIELDS)
    seven = columns("vm", room)[:7]
    if room >= 79:
        assert sum(column.width + 1 for column in seven) <= room
        assert sum(column.width + 1 for column in port_columns(room)) <= room + 1


def test_every_order_is_reached_and_a_second_click_turns_it_round() -> None:
    seen, order = set(), "-bytesPerSecond"
    for _ in SORTS:
        order = next_order(order, 1)
        seen.add(order.removeprefix("-"))
    assert seen == set(SORTS)
    assert order == "-bytesPerSecond"
    assert next_order("-nothingOfOurs", 1) == "protocol"
    assert next_order("-nothingOfOurs", -1) == "-id"
    vm = FIELDS[2].column
    assert sorted_by(vm, order) == "vm"
    assert sorted_by(vm, "vm") == "-vm"
    assert sorted_by(FIELDS[5].column, order) == "-bytesOutPerSecond"


def test_the_next_order_is_by_the_column_beside_the_marked_ones() -> None:
    assert next_order("-bytesPerSecond", 1) == "-bytesOutPerSecond"
    assert next_order("-bytesOutPerSecond", 1) == "-bytesInPerSecond"
    assert next_order("-bytesInPerSecond", 1) == "-packetsPerSecond"
    assert next_order("-bytesOutPerSecond", -1) == "-bytesPerSecond"
    assert next_order("-bytesPerSecond", -1) == "remote"


def test_an_event_of_a_later_daemon_is_shown_as_it_is() -> None:
    event = {"category": "LoadBalancerAlertEvent", "operationName": "New", "properties": {"a": 1}}
    assert what(event) == "New: a 1"
