"""The engine process's answer to ``reload``, which SIGHUP asks for as well.
Runs in the engine process.

``reload.py`` reads the file and says when; here is what carrying a configuration out means for the
host and the parts of the gateway, and what is said of it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from gateway.core.engine import Engine
from gateway.core.reload.resolved import Resolved
from gateway.daemon.channel.api_messages import Kind
from gateway.daemon.console import Level, say, warn
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.host import Diverted
from gateway.daemon.engine_process.reload import (
    Outcome,
    Reloader,
    ReloadRefusedError,
    fixed_changes,
)
from gateway.daemon.engine_process.requests import Parameters, RequestHandler, Respond, later
from gateway.datapath.errors import DatapathError
from gateway.model.configuration import Configuration
from gateway.schema.queries import parse_flag

CHANGES_IN_EVENT = 50
_NO_FILE = "started without a configuration file: there is nothing to reload"


class ReloadRequests:
    """The handler. ``read`` starts reading ``file`` and returns the descriptor that gets the
    result; ``parts`` take over the configuration once it is carried out, in order and in slices.
    """

    def __init__(
        self,
        engine: Engine,
        diverted: Diverted,
        file: Path | None,
        loop: EventLoop,
        *,
        read: Callable[[], int],
        parts: tuple[Callable[[Configuration], Iterator[None]], ...],
        post: Callable[[str, str, dict[str, Any]], None],
    ) -> None:
        self._engine = engine
        self._diverted = diverted
        self._file = file
        self._loop = loop
        self._parts = parts
        self._post = post
        self._reloader = Reloader(
            read=read,
            watch=loop.add_reader,
            unwatch=loop.remove_reader,
            apply=self._apply,
            review=lambda enforce: engine.review(enforce=enforce),
            in_slices=loop.spawn,
            report=self._report,
        )
        self.handlers: Mapping[str, RequestHandler] = {"reload": later(enforces, self._reload)}

    def register(self, loop: EventLoop) -> None:
        """See about once a second that a reader ends."""
        loop.every(1.0, self._reloader.look)

    def on_hangup(self) -> None:
        """SIGHUP: there is no one to answer."""
        self._reload(enforce=False, respond=lambda kind, payload: None)

    def _reload(self, enforce: bool, respond: Respond) -> None:
        if self._file is None:
            self._report(Outcome(problems=[_NO_FILE]))
            respond(Kind.FAILED, [_NO_FILE])
            return
        self._reloader.request(respond, enforce=enforce)

    def _apply(self, resolved: Resolved) -> Generator[None, None, list[str]]:
        """None after each slice. Rules and addresses of the host are changed at once: packets wait
        for the kernel there, where any of these change."""
        before = self._engine.configuration
        try:
            configuration = self._diverted.with_real_names(resolved.configuration)
        except DatapathError as error:
            raise ReloadRefusedError(error.problems) from None
        problems = fixed_changes(before, configuration)
        if problems:
            raise ReloadRefusedError(problems)
        yield
        try:
            self._diverted.change(configuration)
        except Exception as error:  # whatever the host rejects, the gateway continues as it was
            problems = [f"the rules could not be changed: {error}"]
            try:
                self._diverted.change(before)
            except Exception as second:
                problems.append(f"the earlier rules could not be restored: {second}")
            raise ReloadRefusedError(problems) from error
        yield
        resolved = resolved._replace(configuration=configuration)
        changes = yield from self._engine.reconfiguring(resolved, lambda: self._loop.now)
        for reconfiguring in self._parts:
            yield
            yield from reconfiguring(configuration)
        return changes

    def _report(self, outcome: Outcome) -> None:
        changes, problems = outcome.changes, outcome.problems
        for line in outcome.warnings:
            warn(line)
        for line in problems:
            say(f"reload rejected: {line}", Level.ERROR)
        if problems:
            shown = problems[:CHANGES_IN_EVENT]
            self._post("ReloadRefused", "Error", {"problems": shown, "count": len(problems)})
            return
        refused, ended = outcome.refused_flows, outcome.ended_flows
        flows = f"; of the live flows, rules now deny {refused}, {ended} ended" if refused else ""
        say(f"reloaded: {len(changes)} change{'' if len(changes) == 1 else 's'}{flows}")
        properties = {
            "changes": changes[:CHANGES_IN_EVENT],
            "count": len(changes),
            "refusedFlows": refused,
            "endedFlows": ended,
        }
        self._post("Reloaded", "Informational", properties)


def enforces(values: Parameters) -> bool:
    """Whether to end the flows that are no longer allowed."""
    return parse_flag(values, "enforce")
