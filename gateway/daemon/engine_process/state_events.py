"""Reports the state to the operator: what a start continued with, and whether it is being kept.
Runs in the engine process.

Lines on standard error before the gateway is ready and when something changes; events once there is
a reader to take them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.daemon.console import say, warn
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.state_writer import StateWriter

Post = Callable[[str, str, dict[str, Any]], None]
"""An event's name, level and properties."""


def say_what_became_of_it(state_writer: StateWriter) -> None:
    """At the start."""
    if state_writer.refused is not None:
        warn(f"state: starts empty, not with what was left: {state_writer.refused}")
    if state_writer.resumed is not None and state_writer.resumed.lost:
        lost = state_writer.resumed.lost
        warn(f"state: {lost} flow{'' if lost == 1 else 's'} could not be read, and ended")
    if state_writer.unavailable_reason is not None:
        warn(f"state: not kept, a restart ends the flows: {state_writer.unavailable_reason}")


class StateEvents:
    """What is posted while the gateway runs."""

    def __init__(self, state_writer: StateWriter, post: Post) -> None:
        self._state_writer = state_writer
        self._post = post
        self._unavailable_reason = state_writer.unavailable_reason

    def register(self, loop: EventLoop) -> None:
        """Tell of it, and look once a second."""
        self.begin()
        loop.every(1.0, lambda real: self.tick())

    def begin(self) -> None:
        """Events for what ``say_what_became_of_it`` says."""
        state_writer = self._state_writer
        if state_writer.refused is not None:
            self._post("StateRefused", "Warning", {"reason": state_writer.refused})
        if state_writer.resumed is not None:
            self._post("StateResumed", "Informational", state_writer.resumed.status())
        if state_writer.unavailable_reason is not None:
            self._post("StateNotKept", "Warning", {"reason": state_writer.unavailable_reason})

    def tick(self) -> None:
        """Now and then: whether it is no longer kept, or again."""
        unavailable_reason = self._state_writer.unavailable_reason
        if unavailable_reason == self._unavailable_reason:
            return
        self._unavailable_reason = unavailable_reason
        if unavailable_reason is None:
            say("state: it is kept again")
            self._post("StateKept", "Informational", {})
        else:
            warn(f"state: {unavailable_reason}; a restart ends the flows")
            self._post("StateNotKept", "Warning", {"reason": unavailable_reason})
