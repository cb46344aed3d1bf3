"""The bitmap of free ports against a set, which is obviously right."""

from __future__ import annotations

from random import Random

import pytest

from gateway.core.snat.free_port_bitmap import WORD, FreePortBitmap

COUNT = 3 * WORD + 40


@pytest.mark.parametrize("first_free", [0, 1, 255, 256, 257, 700, 999, 1000])
def test_holes_start_as_a_prefix(first_free: int) -> None:
    holes = FreePortBitmap(first_free, 1000)
    assert holes.taken == first_free
    assert holes.lowest() == (first_free if first_free < 1000 else -1)
    assert [holes.is_free(n) for n in range(1000)] == [n >= first_free for n in range(1000)]


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_taking_and_putting_is_what_a_set_says(seed: int) -> None:
    random = Random(seed)
    holes, free = FreePortBitmap(300, COUNT), set(range(300, COUNT))
    nearly_full = 0.8 if seed % 2 else 0.4
    for _ in range(2000):
        index = random.randrange(COUNT)
        assert holes.is_free(index) is (index in free)
        if free and random.random() < nearly_full:
            taken = holes.lowest() if seed % 3 else holes.after(index)
            later = [n for n in free if n >= index]
            assert taken == (min(free) if seed % 3 else min(later or free))
            holes.take(taken)
            free.remove(taken)
        elif index not in free:
            holes.put(index)
            free.add(index)
        assert holes.taken == COUNT - len(free)
        assert holes.lowest() == min(free, default=-1)


def test_the_last_port_is_found_and_after_it_there_is_none() -> None:
    holes = FreePortBitmap(0, WORD + 1)
    for index in range(WORD):
        holes.take(index)
    assert holes.lowest() == holes.after(0) == holes.after(WORD) == WORD
    holes.take(WORD)
    assert holes.lowest() == -1
    holes.put(3)
    assert holes.after(4) == 3
