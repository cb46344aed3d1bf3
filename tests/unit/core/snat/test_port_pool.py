"""The port inventory against a model that is obviously right."""

from random import Random

import pytest

from gateway.core.snat.free_port_bitmap import FreePortBitmap
from gateway.core.snat.port_pool import PortPool
from gateway.core.snat.port_ranges import PortRanges, joined, lowest

PUBLIC = bytes((203, 0, 113, 10))


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


@pytest.mark.parametrize("first_free", [0, 1, 255, 256, 257, 700, 999, 1000])
def test_holes_start_as_a_prefix(first_free: int) -> None:
    holes = FreePortBitmap(first_free, 1000)
    assert holes.lowest() == (first_free if first_free < 1000 else -1)
    assert [holes.is_free(n) for n in range(1000)] == [n >= first_free for n in range(1000)]


@pytest.mark.parametrize("seed", range(20))
def test_a_pool_gives_the_lowest_port_whatever_came_before(seed: int) -> None:
    random = Random(seed)
    ranges = [range(2000, 2010), range(1024, 1040), range(1500, 1524)]
    everything = sorted(port for ports in ranges for port in ports)
    pool = PortPool(PUBLIC, ranges)
    held: dict[bytes, set[int]] = {bytes((1, 1, 1, n)): set() for n in range(3)}
    peak = 0
    takes = 0.45 if seed % 2 else 0.15  # a pool nearly full, and one nearly empty
    for _ in range(3000):
        destination = random.choice(list(held))
        taken = held[destination]
        choice = random.random()
        if choice < takes:
            free = [port for port in everything if port not in taken]
            assert pool.take(destination) == (free[0] if free else 0)
            if free:
                taken.add(free[0])
        elif choice < takes + 0.1 + 0.2 * (seed % 3 == 0):
            port = random.choice([*everything, 1, 1999, 65000])
            assert pool.take_exactly(destination, port) is (
                port in everything and port not in taken
            )
            if port in everything:
                taken.add(port)
        elif taken:
            port = random.choice(sorted(taken))
            pool.release(destination, port)
            taken.remove(port)
        peak = max(peak, len(set.union(*held.values())))
        assert pool.used == len(set.union(*held.values()))
        assert pool.high_water == peak
        assert pool.free_toward(destination) == len(everything) - len(taken)
    reported = next(step for step in pool.busiest() if step is not None)
    assert dict(reported) == {d: len(taken) for d, taken in held.items() if taken}


def test_a_port_held_alone_needs_no_object() -> None:
    pool, destination = PortPool(PUBLIC, [range(1024, 2048)]), bytes((1, 1, 1, 1))
    assert pool.take_exactly(destination, 1500)
    assert isinstance(pool._taken[destination], int)
    assert not pool.take_exactly(destination, 1500)
    assert pool.free_toward(destination) == 1023
    assert [pool.take(destination) for _ in range(3)] == [1024, 1025, 1026]
    pool.release(destination, 1500)
    assert pool.take(destination) == 1027


def test_the_busiest_destinations_are_the_ten_that_hold_most() -> None:
    pool = PortPool(PUBLIC, [range(1024, 65024)])
    for number in range(1, 40):
        for _ in range(number):
            pool.take(bytes((1, 1, 1, number)))
    (busiest,) = [step for step in pool.busiest() if step is not None]
    assert [used for _, used in busiest] == list(range(39, 29, -1))
    assert busiest[0][0] == bytes((1, 1, 1, 39))
