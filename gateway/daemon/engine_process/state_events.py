"""Tells the operator of the state: what a start went on with, and whether it is being kept.

Lines on standard error before the gateway is ready and when something changes; events once there is
somebody to take them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.daemon.console import say, warn
from gateway.daemon.engine_process.state_writer import Keeping

Post = Callable[[str, str, dict[str, Any]], None]
"""An event's name, level and properties."""


def say_what_became_of_it(keeping: Keeping) -> None:
    """At the start."""
    if keeping.refused is not None:
        warn(f"state: starts empty, not with what was left: {keeping.refused}")
    if keeping.resumed is not None and keeping.resumed.lost:
        lost = keeping.resumed.lost
        warn(f"state: {lost} flow{'' if lost == 1 else 's'} could not be read, and ended")
    if keeping.why_not is not None:
        warn(f"state: not kept, a restart ends the flows: {keeping.why_not}")


class StateNews:
    """What is posted while the gateway runs."""

    def __init__(self, keeping: Keeping, post: Post) -> None:
        self._keeping = keeping
        self._post = post
        self._why_not = keeping.why_not

    def begin(self) -> None:
        """Events for what ``say_what_became_of_it`` says."""
        keeping = self._keeping
        if keeping.refused is not None:
            self._post("StateRefused", "Warning", {"reason": keeping.refused})
        if keeping.resumed is not None:
            self._post("StateResumed", "Informational", keeping.resumed.document())
        if keeping.why_not is not None:
            self._post("StateNotKept", "Warning", {"reason": keeping.why_not})

    def look(self) -> None:
        """Now and then: whether it is kept no more, or again."""
        why_not = self._keeping.why_not
        if why_not == self._why_not:
            return
        self._why_not = why_not
        if why_not is None:
            say("state: it is kept again")
            self._post("StateKept", "Informational", {})
        else:
            warn(f"state: {why_not}; a restart ends the flows")
            self._post("StateNotKept", "Warning", {"reason": why_not})
