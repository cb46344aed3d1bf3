"""When the loop sleeps: never while packets come quickly, at once when they do not."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
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
        self.loop: EventLoop | None = None

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
                assert self.loop is not None
                self.loop.stop()
                return []
            self.now = max(self.now, self._due[0])
        return [(77, 1)] if self._due and self._due[0] <= self.now else []


def slept(gaps: list[float], work: float = 0.0) -> list[int]:
    """For each sleep, how often the queue was looked at in vain since the last packet."""
    wire = Wire(gaps, work)
    turning = EventLoop(lambda real: real, monotonic=wire.monotonic)
    turning.packets_from(wire)
    turning._poll = Mock(poll=wire.poll)
    wire.loop = turning
    turning.run()
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
        turning = EventLoop(Mock(), monotonic=Mock(return_value=0.0))
        turning.add_reader(ours.fileno(), Mock())
        theirs.send(b"x")
        assert turning._wait(until=1.0) == [(ours.fileno(), 1)]


def test_both_queues_have_their_turn_and_share_it() -> None:
    drained: list[tuple[int, int]] = []
    ready = iter([[(71, 1), (72, 1)], [(72, 1)], []])
    turning = EventLoop(lambda real: real, monotonic=Mock(return_value=0.0))

    def poll(_milliseconds: int) -> list[tuple[int, int]]:
        happened = next(ready)
        if not happened:
            turning.stop()
        return happened

    def drain(descriptor: int, limit: int, _now: float) -> int:
        drained.append((descriptor, limit))
        return 1

    turning._poll = Mock(poll=poll)
    turning.packets_from(Mock(descriptors=Mock(return_value=(71, 72)), drain=drain))
    turning.run()
    assert drained == [(71, 32), (72, 32), (71, 32), (72, 32), (72, 64)]


# -- what takes part


class Script:
    """A loop without packets whose clock and poll are ours."""

    def __init__(self) -> None:
        self.time = 0.0
        self.calls: list[str] = []
        self.slept: list[int] = []
        self.happens: list[list[tuple[int, int]]] = []
        """What each poll finds; after these the loop stops."""
        self.loop = EventLoop(lambda real: real, monotonic=lambda: self.time)
        self.loop._poll = Mock(poll=self._poll)
        self.loop.packets_from(Mock(descriptors=Mock(return_value=()), drain=Mock()))

    def _poll(self, milliseconds: int) -> list[tuple[int, int]]:
        self.slept.append(milliseconds)
        self.calls.append("poll")
        self.time += 0.4
        if not self.happens:
            self.loop.stop()
            return []
        return self.happens.pop(0)

    def note(self, name: str, returns: Any = None) -> Callable[..., Any]:
        def call(*_: object) -> Any:
            self.calls.append(name)
            return returns

        return call


def test_a_turn_has_its_order_and_so_has_the_end() -> None:
    script = Script()
    loop = script.loop
    loop.at_end(script.note("written"))
    loop.at_stop(script.note("first word"))
    loop.before_sleep(script.note("flush", False))
    loop.every(1.0, script.note("timer"))
    loop.every_tick(script.note("tick"))
    loop.every_tick(script.note("second tick"))
    loop.at_stop(script.note("last word"))
    loop.run()
    turn = ["tick", "second tick", "timer", "flush", "poll"]
    assert script.calls == [*turn, "first word", "last word", "written"]


def test_timers_come_when_they_are_due_and_at_once_while_there_is_more_to_do() -> None:
    script = Script()
    script.happens = [[]] * 6
    more = iter([True, True, False, False])
    calls: list[tuple[str, float]] = []
    script.loop.every(1.0, lambda real: calls.append(("second", real)))

    def busy(real: float) -> bool:
        calls.append(("busy", real))
        return next(more)

    script.loop.every(2.0, busy)
    script.loop.run()
    assert [round(real, 1) for name, real in calls if name == "second"] == [0.0, 1.2, 2.4]
    assert [round(real, 1) for name, real in calls if name == "busy"] == [0.0, 0.4, 0.8]
    assert script.slept[:4] == [0, 0, IDLE_MILLISECONDS, IDLE_MILLISECONDS]


def test_long_work_goes_a_step_a_turn_by_turns_and_keeps_the_loop_awake() -> None:
    script = Script()
    script.happens = [[]] * 5
    done: list[str] = []

    def work(name: str, steps: int) -> Iterator[None]:
        for step in range(steps):
            done.append(f"{name}{step}")
            yield

    script.loop.spawn(work("a", 2))
    script.loop.spawn(work("b", 1))
    script.loop.run()
    assert done == ["a0", "b0", "a1"]
    assert script.slept == [0, 0, 0, 0, IDLE_MILLISECONDS, IDLE_MILLISECONDS]


def test_what_is_flushed_may_have_more() -> None:
    script = Script()
    script.happens = [[]]
    more = iter([True, False])
    script.loop.before_sleep(lambda: next(more))
    script.loop.run()
    assert script.slept == [0, IDLE_MILLISECONDS]


def test_readers_are_called_when_there_is_something_to_read_or_its_end() -> None:
    script = Script()
    loop = script.loop
    loop.add_reader(7, script.note("seven"))
    loop.add_reader(8, lambda: loop.remove_reader(9))
    loop.add_reader(9, script.note("nine"))
    room, end, input_ = select.POLLOUT, select.POLLHUP, select.POLLIN
    script.happens = [[(7, room)], [(7, end)], [(8, input_), (9, input_)]]
    loop.run()
    assert [call for call in script.calls if call != "poll"] == ["seven"]


def test_room_to_write_is_waited_for_only_while_it_is_wanted() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        loop = EventLoop(lambda real: real)
        loop.add_reader(ours.fileno(), Mock())
        assert loop._poll.poll(0) == []
        loop.await_room(ours.fileno(), waits=True)
        assert loop._poll.poll(0) == [(ours.fileno(), select.POLLOUT)]
        loop.await_room(ours.fileno(), waits=False)
        assert loop._poll.poll(0) == []


def test_a_stop_is_acted_upon_once() -> None:
    script = Script()
    script.loop.at_stop(script.note("word"))
    script.loop.at_stop(script.loop.stop)
    script.loop.run()
    script.loop.stop()
    assert script.calls.count("word") == 1
