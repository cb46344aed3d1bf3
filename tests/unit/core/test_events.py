"""The sampling of events: the first at once, the rest counted, and no more kinds than fit."""

from __future__ import annotations

from gateway.core.events import EventThrottle


def test_the_first_is_reported_at_once_and_the_rest_once_an_interval() -> None:
    sampler = EventThrottle[str, int](60, 10)
    assert sampler.note("x", 1, 0.0)
    assert [sampler.note("x", detail, 1.0) for detail in (2, 3, 4)] == [False] * 3
    assert sampler.note("y", 9, 2.0)
    assert sampler.due(59.9) == []
    assert sampler.due(60.0) == [("x", 3, 4)]
    assert sampler.due(62.0) == []  # y came once, and that was reported
    assert sampler.note("y", 10, 63.0)
    assert not sampler.note("x", 11, 64.0)
    assert sampler.due(120.0) == [("x", 1, 11)]


def test_a_sampler_is_bounded_and_says_what_it_left_out() -> None:
    sampler = EventThrottle[int, int](60, 3)
    assert [sampler.note(key, 0, 0.0) for key in range(5)] == [True] * 3 + [False] * 2
    assert sampler.unsampled == 2
    assert sampler.due(60) == []
    assert sampler.note(4, 0, 61.0)
