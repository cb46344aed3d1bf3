"""The engine's timers in the loop: flows whose time is over end, and its events are published.
Runs in the engine process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.core.events import Event
from gateway.daemon.engine_process.event_loop import EventLoop

EXPIRED_PER_TURN = 512
EXPIRY_INTERVAL = 0.005
"""Seconds (real) between checks of the timers while packets come without a pause."""


class Expiring(Protocol):
    """The engine as its timers see it."""

    def expire(self, now: float, limit: int = ...) -> int:
        """End flows whose time is over, ``limit`` at most; how many there were."""

    def take_events(self) -> list[Event]:
        """The events since the last call."""


class EngineTimers:
    """Timers of one engine; ``publish`` takes its events."""

    def __init__(self, engine: Expiring, publish: Callable[[Event], None]) -> None:
        self._engine = engine
        self._publish = publish

    def register(self, loop: EventLoop) -> None:
        """Look at them from now on."""
        loop.every(EXPIRY_INTERVAL, lambda real: self.tick(loop.now))

    def tick(self, now: float) -> bool:
        """End what is over at the engine's time ``now``; whether more may be."""
        expired = self._engine.expire(now, EXPIRED_PER_TURN)
        for event in self._engine.take_events():
            self._publish(event)
        return expired == EXPIRED_PER_TURN
