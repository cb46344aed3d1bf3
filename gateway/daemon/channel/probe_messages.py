"""What the engine process and the prober say to each other, over a SOCK_SEQPACKET pair.
Runs in the engine process and the prober process.

As with the API process, the two directions differ on purpose. The engine sends ``marshal``: the
list of targets, in parts, each time that it changes; a number stands for the same task for ever.
The prober sends small JSON: results, at least once a second. The engine checks every field of these
and ignores what is not a report.
"""

from __future__ import annotations

import json
import marshal
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

MAXIMUM_REPORT = 16 << 10
"""Bytes of a report; more is garbage."""
RESULTS_PER_REPORT = 64
MAXIMUM_REASON = 100
"""Characters."""
TARGETS_SIZE = 32 << 10
"""Bytes of a part of the list of targets, about."""
_OVERHEAD = 96


class Task(NamedTuple):
    """What the prober is to do; times are real seconds."""

    number: int
    protocol: str  # Tcp, Http or Https
    address: str
    port: int
    path: str
    interval: float
    timeout: float
    threshold: int
    up: bool | None  # what is known of its health


class Result(NamedTuple):
    """A probe's outcome, and the health that it leads to."""

    number: int
    up: bool | None
    in_a_row: int  # results like this one; failures are negative
    success: bool
    reason: str
    milliseconds: float


class Targets(NamedTuple):
    """A part of the list of targets."""

    source: str  # the address to send from
    last: bool  # no further parts
    tasks: list[Task]


class NotAReportError(ValueError):
    """A message from the prober that is none."""


def encode_targets(source: str, tasks: Iterable[Task]) -> Iterator[bytes]:
    """The list of targets in messages of bounded size."""
    part: list[tuple[Any, ...]] = []
    size = 0
    for task in tasks:
        if part and size + len(task.path) + _OVERHEAD > TARGETS_SIZE:
            yield marshal.dumps((source, False, part))
            part, size = [], 0
        part.append(tuple(task))
        size += len(task.path) + _OVERHEAD
    yield marshal.dumps((source, True, part))


def decode_targets(message: bytes) -> Targets:
    """What the engine sent."""
    source, last, tasks = marshal.loads(message)  # noqa: S302 - the engine's
    return Targets(source, last, [Task(*task) for task in tasks])


def encode_report(results: Sequence[Result]) -> bytes:
    """A report of at most ``RESULTS_PER_REPORT`` results."""
    return json.dumps([list(result) for result in results]).encode()


def decode_report(data: bytes) -> list[Result]:
    """Check what the prober sent; raises NotAReportError for anything but a report."""
    if len(data) > MAXIMUM_REPORT:
        raise NotAReportError(f"a report of more than {MAXIMUM_REPORT} bytes")
    try:
        results = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NotAReportError("a report that is not JSON") from error
    if not isinstance(results, list) or len(results) > RESULTS_PER_REPORT:
        raise NotAReportError(f"a report that is no list of at most {RESULTS_PER_REPORT} results")
    return [_result(fields) for fields in results]


def _result(fields: object) -> Result:
    if not isinstance(fields, list) or len(fields) != len(Result._fields):
        raise NotAReportError("a result with other fields")
    result = Result(*fields)
    if (
        type(result.number) is not int
        or (result.up is not None and type(result.up) is not bool)
        or type(result.in_a_row) is not int
        or abs(result.in_a_row) >= 1 << 62
        or type(result.success) is not bool
        or type(result.reason) is not str
        or len(result.reason) > MAXIMUM_REASON
        or not result.reason.isprintable()
        or type(result.milliseconds) not in (int, float)
        or not math.isfinite(result.milliseconds)
        or result.milliseconds < 0
    ):
        raise NotAReportError("a result whose fields are of other kinds")
    return result
