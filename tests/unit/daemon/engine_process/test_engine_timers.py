"""The engine's timers: bounded work, more of it at once, and its events published in order."""

from __future__ import annotations

from unittest.mock import Mock

from gateway.daemon.engine_process.engine_timers import EXPIRED_PER_TURN, EngineTimers


def test_what_is_over_ends_and_events_are_published_in_order() -> None:
    published: list[str] = []
    engine = Mock(
        expire=Mock(return_value=3), take_events=Mock(side_effect=[["first", "second"], []])
    )
    timers = EngineTimers(engine, published.append)  # type: ignore[arg-type]
    assert not timers.tick(12.5)
    engine.expire.assert_called_once_with(12.5, EXPIRED_PER_TURN)
    assert published == ["first", "second"]


def test_as_much_as_a_turn_may_means_there_is_more() -> None:
    engine = Mock(expire=Mock(return_value=EXPIRED_PER_TURN), take_events=Mock(return_value=[]))
    assert EngineTimers(engine, Mock()).tick(0.0)
