"""Takes flow log entries from the engine to the API process, which writes them to files.
Runs in the engine process.

A message goes when it is full or a second has passed. What the API process does not take waits in
the engine, within its bound; what that loses is an event.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gateway.core.engine import Engine
from gateway.daemon.channel.flow_log_message import message
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.request_channel import RequestChannel

FLOW_LOG_ENTRIES = 512
"""In a message to the API process; fewer wait for up to a second."""


class FlowLogSender:
    """Sends one engine's entries, if its flow logs are on; a reload may turn them on or off."""

    def __init__(
        self,
        engine: Engine,
        scale: float,
        loop: EventLoop,
        channel: RequestChannel,
        post: Callable[[str, str, dict[str, Any]], None],
    ) -> None:
        self._engine = engine
        self._scale = scale
        self._post = post
        self._loop = loop
        self._due = False
        self._lost = 0
        channel.flow_log = self._next_message

    def register(self, loop: EventLoop) -> None:
        """Send what waits about once a second, and everything before a stop."""
        loop.every(1.0, self.tick)
        loop.at_stop(self._hurry)

    def tick(self, _real: float) -> None:
        """What waits is due; tell of entries that were lost."""
        log = self._engine.flow_log
        self._due = log is not None
        if log is not None and log.lost != self._lost:
            if log.lost > self._lost:
                self._post("FlowLogEntriesLost", "Warning", {"count": log.lost - self._lost})
            self._lost = log.lost

    def _hurry(self) -> None:
        if self._engine.flow_log is not None:
            self._engine.flow_log.leave()
        self._due = True

    def _next_message(self) -> Any:
        log = self._engine.flow_log
        if log is None or (len(log) < FLOW_LOG_ENTRIES and not self._due):
            return None
        entries = log.take(FLOW_LOG_ENTRIES)
        self._due = len(log) > 0
        if not entries:
            return None
        mode = self._engine.configuration.gateway.flow_logs
        return message(mode, self._loop.now, time.time(), self._scale, entries)

    def status(self) -> dict[str, Any]:
        """For the status."""
        log = self._engine.flow_log
        if log is None:
            return {"mode": "off"}
        return {
            "mode": self._engine.configuration.gateway.flow_logs,
            "waiting": len(log),
            "lost": log.lost,
            "denialsNotLogged": log.denials_not_logged,
        }
