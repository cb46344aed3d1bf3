"""The packet queue in the loop: where packets come from, and events about those that it lost.
Runs in the engine process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.daemon.console import Level, say
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.host import Queue, losses, queue_document

OVERFLOW_INTERVAL = 10.0
"""Seconds (real) between events about packets that the queue loses; each has all since the last."""


class QueueMonitor:
    """Polls one queue's counters. ``post`` takes events: name, level, properties."""

    def __init__(self, queue: Queue, post: Callable[[str, str, dict[str, Any]], None]) -> None:
        self._queue = queue
        self._post = post
        self._losses: dict[str, int] = {}
        self._losses_due = 0.0
        self._handler_errors = 0

    def register(self, loop: EventLoop) -> None:
        """Have its packets handled, and look at its counters about once a second."""
        loop.packets_from(self._queue)
        loop.every(1.0, self.tick)

    def tick(self, real: float) -> None:
        """Tell of what was lost since the last time, and of errors in this program."""
        statistics = self._queue.statistics()
        now = losses(statistics)
        grown = {name: n - self._losses.get(name, 0) for name, n in now.items()}
        if any(n > 0 for n in grown.values()) and real >= self._losses_due:
            self._post("QueueOverflow", "Error", grown)
            self._losses = now
            self._losses_due = real + OVERFLOW_INTERVAL
        errors = statistics.handler_errors - self._handler_errors
        if errors:
            self._handler_errors = statistics.handler_errors
            trace = self._queue.last_error
            count = f"{errors} packets were dropped because of an internal error:"
            say(f"{count}\n{trace.rstrip()}", Level.ERROR)
            self._post("HandlerError", "Error", {"count": errors, "trace": trace})

    def status(self) -> dict[str, int]:
        """The queue in a status."""
        return queue_document(self._queue)
