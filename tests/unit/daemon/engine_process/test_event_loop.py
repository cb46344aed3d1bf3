"""When the loop sleeps: never while packets come quickly, at once when they do not."""

from __future__ import annotations

import socket
from typing import Any
from unittest.mock import Mock

import pytest

from gateway.daemon.engine_process import event_loop
from gateway.daemon.engine_process.event_loop import IDLE_MILLISECONDS, QUICK, SOON, EventLoop

LOOK = SOON / 100
"""Seconds that each look at the clock takes here."""


class Wire:
    """A queue, its poll and the clock. ``gaps``: seconds from each packet to the next; ``work``:
    what a turn with packets takes."""

    def __init__(self, gaps: list[float], work: float) -> None:
        self.now = 100.0
        self._work = work
        self._due = [self.now + LOOK]
        for gap in gaps:
            self._due.append(self._due[-1] + gap)
        self.looks = 0
        """Since the last packet, without sleep."""
        self.before_sleep: list[int] = []
        self.turns: EventLoop | None = None

    def monotonic(self) -> float:
        self.now += LOOK
        return self.now

    def descriptors(self) -> tuple[int, ...]:
        return (77,)

    def drain(self, descriptor: int, limit: int, now: float) -> int:
        waited = sum(due <= self.now for due in self._due)
        del self._due[:waited]
        if waited:
            self.looks = 0
            self.now += self._work
        return min(waited, limit)

    def poll(self, milliseconds: int) -> list[tuple[int, int]]:
        self.looks += 1
        if milliseconds:
            assert milliseconds == IDLE_MILLISECONDS
            self.before_sleep.append(self.looks - 1)
            if not self._due:
                assert self.turns is not None
                self.turns.stop()
                return []
            self.now = max(self.now, self._due[0])
        return [(77, 1)] if self._due and self._due[0] <= self.now else []


def slept(gaps: list[float], work: float = 0.0) -> list[int]:
    """For each sleep, how often the queue was looked at in vain since the last packet."""
    wire = Wire(gaps, work)
    engine: Any = Mock(expire=Mock(return_value=0), take_events=Mock(return_value=[]))
    control: Any = Mock(has_work=False, fileno=Mock(return_value=-1), wants_to_write=False)
    turns = EventLoop(
        engine,
        control,
        Mock(fileno=Mock(return_value=78)),
        monotonic=wire.monotonic,
        azure_time=lambda real: real,
        on_event=Mock(),
        on_signal=Mock(),
        on_api_gone=Mock(),
        housekeeping=Mock(),
    )
    turns._poll = Mock(poll=wire.poll)
    wire.turns = turns
    turns.run(wire)
    return wire.before_sleep


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "processors", lambda: 2.0)


def test_packets_that_come_seldom_are_slept_for_at_once() -> None:
    assert slept([10 * SOON] * 50) == [0] * 51


def test_while_packets_come_quickly_nothing_sleeps_and_then_it_soon_does() -> None:
    assert slept([SOON / 2] * 50) == [*[0] * QUICK, pytest.approx(100, abs=10)]


def test_what_a_turn_takes_is_no_gap() -> None:
    gaps = [1.2 * SOON] * 50
    assert slept(gaps, work=SOON) == [*[0] * QUICK, pytest.approx(100, abs=10)]


def test_one_long_gap_and_packets_are_slept_for_again() -> None:
    gaps = [SOON / 2] * 20 + [10 * SOON] + [SOON / 2] * 5
    assert slept(gaps) == [*[0] * QUICK, pytest.approx(100, abs=10), *[0] * 6]


def test_on_less_than_two_processors_who_would_send_is_let_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_loop, "processors", lambda: 1.5)
    assert slept([SOON / 2] * 50) == [0] * 51


def test_what_else_can_be_read_is_not_kept_waiting() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        turns = EventLoop(
            Mock(),
            Mock(),
            Mock(),
            monotonic=Mock(return_value=0.0),
            azure_time=Mock(),
            on_event=Mock(),
            on_signal=Mock(),
            on_api_gone=Mock(),
            housekeeping=Mock(),
        )
        turns.watch(ours.fileno(), Mock())
        theirs.send(b"x")
        assert turns._wait(until=1.0) == [(ours.fileno(), 1)]


def test_both_queues_have_their_turn_and_share_it() -> None:
    drained: list[tuple[int, int]] = []
    ready = iter([[(71, 1), (72, 1)], [(72, 1)], []])
    turns = EventLoop(
        Mock(expire=Mock(return_value=0), take_events=Mock(return_value=[])),
        Mock(has_work=False, fileno=Mock(return_value=-1), wants_to_write=False),
        Mock(fileno=Mock(return_value=78)),
        monotonic=Mock(return_value=0.0),
        azure_time=lambda real: real,
        on_event=Mock(),
        on_signal=Mock(),
        on_api_gone=Mock(),
        housekeeping=Mock(),
    )

    def poll(_milliseconds: int) -> list[tuple[int, int]]:
        happened = next(ready)
        if not happened:
            turns.stop()
        return happened

    def drain(descriptor: int, limit: int, _now: float) -> int:
        drained.append((descriptor, limit))
        return 1

    turns._poll = Mock(poll=poll)
    turns.run(Mock(descriptors=Mock(return_value=(71, 72)), drain=drain))
    assert drained == [(71, 32), (72, 32), (71, 32), (72, 32), (72, 64)]
