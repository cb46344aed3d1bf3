"""What the API process may ask for: one table, from a request's name to its parser and its handler.
Runs in the engine process.

A handler takes what the parser made of the parameters and answers in one of three ways: with one
object at once (``at_once``), a step at a time with packets in between (``in_slices``), or when it
is done (``later``). The table must have a handler for each name of ``api_messages.REQUESTS`` and no
other, or the gateway does not start. What the API process asks is checked here a second time; a
request that there is not, or that does not parse, is answered with why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.daemon.channel.api_messages import REQUESTS, Kind, Request
from gateway.schema.queries import QueryError

Parameters = Mapping[str, str]
Steps = Iterator[tuple[Kind, Any] | None]
"""Messages of an answer, the last END or FAILED; None where packets may come first."""
Respond = Callable[[Kind, Any], None]
"""Takes a message of an answer that is given later."""
Query = TypeVar("Query")
_LONGEST_NAME = 64


@dataclass(frozen=True)
class RequestHandler:
    """How one request is answered. ``begin`` parses (QueryError) and answers, step by step."""

    begin: Callable[[Parameters, Respond], Steps]


def at_once(parse: Callable[[Parameters], Query], answer: Callable[[Query], Any]) -> RequestHandler:
    """Answers with one object, which takes no longer than a slice."""

    def begin(parameters: Parameters, _respond: Respond) -> Steps:
        yield Kind.END, answer(parse(parameters))

    return RequestHandler(begin)


def in_slices(
    parse: Callable[[Parameters], Query], answer: Callable[[Query], Steps]
) -> RequestHandler:
    """Answers in as many steps as it takes."""

    def begin(parameters: Parameters, _respond: Respond) -> Steps:
        yield from answer(parse(parameters))

    return RequestHandler(begin)


def later(
    parse: Callable[[Parameters], Query], answer: Callable[[Query, Respond], None]
) -> RequestHandler:
    """Answers by ``respond``, now or in a later turn."""

    def begin(parameters: Parameters, respond: Respond) -> Steps:
        answer(parse(parameters), respond)
        yield None

    return RequestHandler(begin)


def nothing(parameters: Parameters) -> None:
    """The parser of a request without parameters."""


class Requests:
    """All requests with their handlers. Raises ValueError if the table is not complete."""

    def __init__(self, *tables: Mapping[str, RequestHandler]) -> None:
        self._handlers: dict[str, RequestHandler] = {}
        for table in tables:
            if twice := self._handlers.keys() & table.keys():
                raise ValueError(f"two handlers for the requests {sorted(twice)}")
            self._handlers.update(table)
        if missing := REQUESTS.keys() - self._handlers.keys():
            raise ValueError(f"no handlers for the requests {sorted(missing)}")
        if unlisted := self._handlers.keys() - REQUESTS.keys():
            raise ValueError(f"handlers for requests that REQUESTS does not list: {unlisted}")

    def answer(self, request: Request, respond: Respond) -> Steps:
        """The steps of a request's answer; a request that cannot be answered FAILED."""
        try:
            yield from self._handler(request).begin(request.parameters, respond)
        except QueryError as error:
            yield Kind.FAILED, error.problems

    def _handler(self, request: Request) -> RequestHandler:
        name = request.what
        handler = self._handlers.get(name)
        if handler is None:
            raise QueryError([f"no such request: {name[:_LONGEST_NAME]!r}"])
        unknown = [each for each in request.parameters if each not in REQUESTS[name]]
        if unknown:
            raise QueryError([f"{name}: no such parameter: {unknown[0][:_LONGEST_NAME]!r}"])
        return handler
