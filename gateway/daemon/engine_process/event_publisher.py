"""Events on their way to the API process: the engine's and the gateway's own, as the contract's.
Runs in the engine process.

The channel keeps them until the API process takes them. How many it could not keep is an event,
too, once there is a reader again.
"""

from __future__ import annotations

import os
import time
from typing import Any

from gateway.core.events import Event
from gateway.daemon.channel.event_views import event_document, gateway_event
from gateway.daemon.console import Level, say
from gateway.daemon.engine_process.clock import Clock
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.request_channel import RequestChannel


class EventPublisher:
    """Publishes over one channel."""

    def __init__(self, channel: RequestChannel, clock: Clock) -> None:
        self._channel = channel
        self._clock = clock
        self._lost = 0

    def register(self, loop: EventLoop) -> None:
        """Tell of events that were lost, about once a second, and of the stop."""
        loop.every(1.0, self.tick)
        loop.at_stop(lambda: self.post("Stopped", "Informational", {"pid": os.getpid()}))

    def post(self, operation: str, level: str, properties: dict[str, Any]) -> None:
        """An event of the gateway's own."""
        say(f"event {operation}: {properties}", Level.DEBUG)
        self._channel.post(gateway_event(time.time(), operation, level, properties))

    def post_engine_event(self, event: Event) -> None:
        """An event of the engine's."""
        self._channel.post(event_document(event, self._clock.unix(event.time)))

    def tick(self, _real: float) -> None:
        """Whether events were lost."""
        lost = self._channel.events_lost
        if lost > self._lost and self._channel.is_connected:
            self.post("EventsLost", "Warning", {"count": lost - self._lost})
            self._lost = lost

    def status(self) -> dict[str, Any]:
        """For the status."""
        return {"lost": self._channel.events_lost}
