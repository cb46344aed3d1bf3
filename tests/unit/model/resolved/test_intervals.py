"""Intervals against sets of numbers, which are obviously right."""

from __future__ import annotations

from ipaddress import IPv4Network, collapse_addresses
from itertools import pairwise
from random import Random

import pytest

from gateway.model.resolved.intervals import (
    EVERY_ADDRESS,
    EVERY_PORT,
    Interval,
    Intervals,
    of_networks,
    of_ports,
    of_prefix,
    prefixes,
    subtract,
    union,
)


def numbers(intervals: Intervals) -> set[int]:
    return {n for first, last in intervals for n in range(first, last + 1)}


def some(random: Random) -> list[Interval]:
    starts = [random.randrange(60) for _ in range(random.randrange(6))]
    return [(start, start + random.randrange(8)) for start in starts]


@pytest.mark.parametrize("seed", range(40))
def test_union_and_difference_are_those_of_sets(seed: int) -> None:
    random = Random(seed)
    one, other = some(random), some(random)
    whole, part = union(one), union(other)
    assert numbers(whole) == numbers(tuple(one))
    assert all(last + 1 < following for (_, last), (following, _) in pairwise(whole))
    rest = subtract(whole, part)
    assert numbers(rest) == numbers(whole) - numbers(part)
    assert list(rest) == sorted(rest)


def test_what_touches_is_one() -> None:
    assert union([(5, 9), (0, 4), (11, 12), (11, 20)]) == ((0, 9), (11, 20))


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("10.0.0.0/8", (0x0A000000, 0x0AFFFFFF)),
        ("10.0.1.4", (0x0A000104, 0x0A000104)),
        ("0.0.0.0/0", EVERY_ADDRESS[0]),
        ("255.255.255.255/32", (0xFFFFFFFF, 0xFFFFFFFF)),
    ],
)
def test_addresses(text: str, interval: Interval) -> None:
    assert of_prefix(text) == interval
    assert of_networks([IPv4Network(text)]) == (interval,)


@pytest.mark.parametrize(
    ("text", "interval"), [("*", EVERY_PORT[0]), ("80", (80, 80)), ("8000-8100", (8000, 8100))]
)
def test_ports(text: str, interval: Interval) -> None:
    assert of_ports(text) == interval


@pytest.mark.parametrize("seed", range(20))
def test_prefixes_are_the_fewest_that_cover_exactly_these(seed: int) -> None:
    random = Random(seed)
    first = random.randrange(1 << 32)
    interval = first, min(first + random.randrange(1 << random.randrange(1, 33)), (1 << 32) - 1)
    found = [IPv4Network(text) for text in prefixes([interval])]
    assert of_networks(found) == (interval,)
    assert sorted(collapse_addresses(found)) == found


def test_every_address_is_one_prefix() -> None:
    assert prefixes(EVERY_ADDRESS) == ("0.0.0.0/0",)
    assert prefixes([]) == ()
