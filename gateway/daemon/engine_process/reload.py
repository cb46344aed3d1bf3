"""A reload: another process reads the file and resolves it; it is carried out as a whole or not at
all, in slices between packets. Runs in the engine process.

Afterwards the live flows are evaluated again, in slices between packets: which of them would the
new rules deny? They continue, unless the request, or their network security group, ends them.

The reader (``gateway.daemon.reader``) has everything worked out that does not depend on what the
gateway is doing; its output arrives through the loop like anything else and is taken part by part,
so that not even a large file holds packets up. Requests that come while one is under
way are answered by another reading after it: the file may have changed since.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from gateway.core.engine import Review
from gateway.core.reload.resolved import Resolved
from gateway.daemon.channel.api_messages import Kind
from gateway.daemon.channel.reload_messages import NotHandedError, unpack
from gateway.model.configuration import Configuration
from gateway.model.problems import Problem

MAXIMUM_OUTPUT = 64 << 20
PATIENCE = 30.0
"""Seconds (real) for the reader; a named pipe in the file's place would keep it forever."""
LINES_PER_MESSAGE = 256
MAXIMUM_LINE = 1000
"""Characters of a line; a file may have any text in it, and a message must fit into its socket."""
MESSAGE_BYTES = 256 << 10
MAXIMUM_WAITING = 64
"""Requests that wait for the next reading. The API process, which may be hostile, could ask for
thousands while one is under way, and all are answered in one turn."""

Answer = Callable[[Kind, Any], None]

# what a running gateway is built on
_FIXED = (
    ("profile", "profile"),
    ("inside", "inside"),
    ("outside", "outside"),
    ("stateDirectory", "state_directory"),
    ("timeScale", "time_scale"),
    ("fastPath", "fast_path"),
    ("http", "http"),
)


@dataclass
class Outcome:
    """What came of a reload: changes, or problems and nothing changed."""

    changes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    refused_flows: int = 0
    """Live flows that the network security groups would deny if they opened now."""
    ended_flows: int = 0
    """Those of them that were ended."""


class ReloadRefusedError(Exception):
    """Why a configuration is not carried out; ``problems`` has a line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


def fixed_changes(before: Configuration, after: Configuration) -> list[str]:
    """A line for each difference that takes a restart."""
    lines = []
    for name, attribute in _FIXED:
        was, is_now = getattr(before.gateway, attribute), getattr(after.gateway, attribute)
        if was != is_now:
            lines.append(
                f"gateway.{name}: a reload cannot change it from {_shown(was)} to "
                f"{_shown(is_now)}; restart snatgw for that"
            )
    return lines


class Reloader:
    """Reads and carries out configurations, one at a time."""

    def __init__(
        self,
        *,
        read: Callable[[], int],
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
        apply: Callable[[Resolved], Generator[None, None, list[str]]],
        review: Callable[[bool], Iterator[Review | None]],
        in_slices: Callable[[Iterator[object]], None],
        report: Callable[[Outcome], None],
    ) -> None:
        """``read`` starts the reader and returns its output's descriptor (OSError: it cannot).

        ``apply`` carries a configuration out in slices and returns the changes, or raises
        ReloadRefusedError. ``review`` evaluates the live flows again (True: and ends those that
        are denied), ``in_slices`` does that between packets. ``report`` is called for each reload.
        """
        self._read = read
        self._watch = watch
        self._unwatch = unwatch
        self._apply = apply
        self._review = review
        self._in_slices = in_slices
        self._report = report
        self._descriptor = -1
        self._output = bytearray()
        self._started = 0.0
        self._now = 0.0
        self._busy = False
        self._enforce = False
        self._answers: list[Answer] = []
        self._next: list[tuple[Answer, bool]] = []

    def request(self, answer: Answer, *, enforce: bool = False) -> None:
        """Read the file and carry it out; ``answer`` gets the result.

        ``enforce``: end the live flows that the groups would deny if they opened now.
        """
        if len(self._next) >= MAXIMUM_WAITING:
            answer(Kind.FAILED, [f"{MAXIMUM_WAITING} requests to reload are waiting: try again"])
            return
        self._next.append((answer, enforce))
        if not self._busy:
            self._begin()

    def look(self, real: float) -> None:
        """Give up on a reader that does not end; ``real`` is the monotonic time."""
        self._now = real
        if self._descriptor >= 0 and real - self._started > PATIENCE:
            self._refuse([f"the configuration was not read within {PATIENCE:.0f} s"])

    def _begin(self) -> None:
        """Read for all who wait; if one of them wants flows ended, they are."""
        self._busy = True
        self._answers = [answer for answer, _ in self._next]
        self._enforce = any(enforce for _, enforce in self._next)
        self._next = []
        try:
            self._descriptor = self._read()
        except OSError as error:
            self._refuse([f"the configuration cannot be read: {error.strerror or error}"])
            return
        os.set_blocking(self._descriptor, False)
        self._output.clear()
        self._started = self._now
        self._watch(self._descriptor, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, 1 << 18)
        except BlockingIOError:
            return
        self._output += data
        if len(self._output) > MAXIMUM_OUTPUT:
            self._refuse([f"the configuration is larger than {MAXIMUM_OUTPUT >> 20} MiB"])
        elif not data:
            self._finish()

    def _finish(self) -> None:
        output, self._output = self._output, bytearray()
        self._close()
        self._in_slices(self._carry_out(output))

    def _carry_out(self, output: bytearray) -> Iterator[None]:
        try:
            handed = yield from unpack(output)
        except NotHandedError:
            self._refuse(["the configuration could not be read: its reader failed"])
            return
        warnings = [_line(p) for p in handed.problems if p.severity == "warning"]
        if handed.resolved is None:
            self._refuse([_line(p) for p in handed.problems if p.severity == "error"])
            return
        try:
            changes = yield from self._apply(handed.resolved)
        except ReloadRefusedError as error:
            self._refuse(error.problems)
            return
        yield from self._look_at_flows(Outcome(changes, warnings))

    def _look_at_flows(self, outcome: Outcome) -> Iterator[None]:
        for review in self._review(self._enforce):
            if review is None:
                yield
            else:
                outcome.refused_flows, outcome.ended_flows = review
        self._report(outcome)
        changes = outcome.changes
        for answer in self._answers:
            for start in range(0, len(changes), LINES_PER_MESSAGE):
                answer(Kind.PART, changes[start : start + LINES_PER_MESSAGE])
            answer(
                Kind.END,
                {
                    "warnings": _fitting(outcome.warnings),
                    "refusedFlows": outcome.refused_flows,
                    "endedFlows": outcome.ended_flows,
                },
            )
        self._done()

    def _refuse(self, problems: list[str]) -> None:
        self._close()
        self._report(Outcome(problems=problems))
        for answer in self._answers:
            answer(Kind.FAILED, _fitting(problems))
        self._done()

    def _close(self) -> None:
        if self._descriptor >= 0:
            self._unwatch(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        self._output.clear()

    def _done(self) -> None:
        self._answers = []
        self._busy = False
        if self._next:
            self._begin()


def _line(problem: Problem) -> str:
    text = str(problem)
    return text if len(text) <= MAXIMUM_LINE else text[: MAXIMUM_LINE - 1] + "…"


def _fitting(lines: list[str]) -> list[str]:
    """The first lines, as many as a message takes."""
    ends = accumulate(len(line.encode()) for line in lines[:LINES_PER_MESSAGE])
    return [line for line, end in zip(lines, ends, strict=False) if end <= MESSAGE_BYTES]


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
