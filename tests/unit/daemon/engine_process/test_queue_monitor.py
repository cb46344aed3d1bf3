"""Packets that the queue lost are told of, now and then, and errors in the program at once."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.daemon.engine_process.queue_monitor import OVERFLOW_INTERVAL, QueueMonitor
from gateway.datapath.queue import QueueStatistics


class Lossy:
    """A queue, as far as its counters go."""

    last_error = "Traceback: of a handler\n"

    def __init__(self) -> None:
        self.lost = self.errors = 0

    def statistics(self) -> QueueStatistics:
        return QueueStatistics(10, 0, self.errors, 0, self.lost, 0, 0)


@pytest.fixture
def events() -> list[tuple[str, dict[str, Any]]]:
    return []


def monitored(queue: Lossy, events: list[tuple[str, dict[str, Any]]]) -> QueueMonitor:
    return QueueMonitor(queue, lambda name, level, about: events.append((name, about)))  # type: ignore[arg-type]


def test_losses_are_told_of_in_intervals_and_each_event_has_all_since_the_last(
    events: list[tuple[str, dict[str, Any]]],
) -> None:
    queue = Lossy()
    monitor = monitored(queue, events)
    monitor.tick(0.0)
    assert events == []
    for lost, real in ((3, 1.0), (5, 2.0), (9, 1.0 + OVERFLOW_INTERVAL), (9, 100.0)):
        queue.lost = lost
        monitor.tick(real)
    assert [about["kernelDropped"] for _, about in events] == [3, 6]
    assert {name for name, _ in events} == {"QueueOverflow"}


def test_an_error_in_this_program_is_told_of_with_its_trace(
    events: list[tuple[str, dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    queue = Lossy()
    monitor = monitored(queue, events)
    queue.errors = 2
    monitor.tick(1.0)
    monitor.tick(2.0)
    assert events == [("HandlerError", {"count": 2, "trace": Lossy.last_error})]
    assert "2 packets were dropped because of an internal error" in capsys.readouterr().err
