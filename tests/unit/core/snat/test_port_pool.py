"""A pool of ports against a model that is obviously right."""

from random import Random

import pytest

from gateway.core.snat.port_pool import PortPool

PUBLIC = bytes((203, 0, 113, 10))


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
