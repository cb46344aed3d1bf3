"""A public IP's ports: which are dealt out, to the last, and what rules keep out."""

from __future__ import annotations

import pytest

from gateway.core.snat.port_ranges import PortRanges, bounds, joined, lowest


def test_an_inventory_has_64000_ports() -> None:
    inventory = PortRanges(1024, 65023, 8, ())
    assert inventory.capacity == inventory.free == 64000
    assert inventory.allocate(64001) is None
    assert inventory.allocate(64000) == [range(1024, 65024)]
    assert inventory.free == 0


@pytest.mark.parametrize(
    ("ports", "left"),
    [
        ((80,), 64000),  # below the range
        ((1024,), 63992),
        ((1031, 1024), 63992),  # one unit
        ((1031, 1032), 63984),  # two
        ((65023,), 63992),
        ((65024,), 64000),  # above the range
        ((0,), 64000),
    ],
)
def test_units_of_frontend_ports_are_out(ports: tuple[int, ...], left: int) -> None:
    inventory = PortRanges(1024, 65023, 8, ports)
    dealt = inventory.allocate(left)
    assert dealt is not None
    assert inventory.free == 0
    held = {port for ports_ in dealt for port in ports_}
    assert len(held) == left
    assert held.isdisjoint({unit * 8 + n for unit in {p // 8 for p in ports} for n in range(8)})


def test_claim_takes_what_is_free_and_release_gives_it_back() -> None:
    inventory = PortRanges(1024, 2047, 8, (1100,))
    assert inventory.claim([range(1090, 1120)]) == [range(1090, 1096), range(1104, 1120)]
    assert inventory.claim([range(1090, 1120)]) == []
    inventory.release([range(1104, 1120), range(1090, 1096)])
    assert inventory.free == inventory.capacity == 1016


def test_lowest_and_joined() -> None:
    assert lowest([range(20, 30), range(5)], 8) == (
        [range(5), range(20, 23)],
        [range(23, 30)],
    )
    assert joined([range(5, 9), range(5), range(9, 9), range(20, 21)]) == [
        range(9),
        range(20, 21),
    ]


def test_ports_that_rules_keep_are_known_by_their_bounds_and_in_whole_units() -> None:
    inventory = PortRanges(1024, 2047, 8, (1100, 1105, 80, 9000, 2047))
    assert inventory.reserved == ((1096, 1111), (2040, 2047))
    assert inventory.capacity == 1024 - 24
    assert bounds([range(5), range(8, 9)]) == ((0, 4), (8, 8))


def test_allocations_skip_what_is_taken_and_come_back_as_they_were() -> None:
    inventory = PortRanges(1024, 1055, 8, (1032,))
    assert inventory.allocate(12) == [range(1024, 1032), range(1040, 1044)]
    assert inventory.free == 12
    inventory.release([range(1040, 1044), range(1024, 1032)])
    assert inventory.allocate(24) == [range(1024, 1032), range(1040, 1056)]
