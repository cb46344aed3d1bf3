"""Talks HTTP to the daemon over its Unix socket, with the standard library: it starts at once.

Every failure becomes a ``Failure`` with a sentence that says what to do.
"""

from __future__ import annotations

import errno
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from typing import Any
from urllib.parse import urlencode

from gateway.cli.options import Failure, WrongUsage

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0
"""Of silence; the API process itself gives up on an engine that is silent for less."""
RELOAD_SECONDS = 90.0
"""Reading the file and changing the rules may take this long."""
PIECE = 256 << 10
"""Bytes of a stream that are read at once, at most."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost")
        self._path = path
        self._patience = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_SECONDS)
        self.sock.connect(self._path)
        self.sock.settimeout(self._patience)


class Stream:
    """A streamed answer: ``headers`` at once, then pieces as they come."""

    def __init__(self, response: http.client.HTTPResponse, connection: socket.socket) -> None:
        self.headers = response.headers
        self.cut = False
        """Whether it ended without its end."""
        self._response = response
        self._connection = connection

    def pieces(self) -> Iterator[bytes]:
        """The body, as it comes, to its end."""
        try:
            while piece := self._response.read1(PIECE):
                yield piece
        except (OSError, http.client.HTTPException):
            self.cut = True

    def stop(self) -> None:
        """Cut the stream, from a signal handler or another thread."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


class Daemon:
    """The daemon behind the socket at ``path``."""

    def __init__(self, path: str) -> None:
        self._path = path

    def one(self, method: str, target: str) -> dict[str, Any]:
        """A single thing: one JSON object."""
        timeout = ANSWER_SECONDS if method == "GET" else RELOAD_SECONDS
        with closing(self._open(method, target, timeout)) as response:
            document = json.loads(self._read(response, None))
        assert isinstance(document, dict)
        return document

    def lines(
        self, target: str, query: Mapping[str, str], *, follow: bool = False
    ) -> Iterator[dict[str, Any]]:
        """A list: an object a line, as they come. ``follow``: wait for more without end."""
        timeout = None if follow else ANSWER_SECONDS
        with closing(self._open("GET", _full(target, query), timeout)) as response:
            rest = b""
            # not readline(), which takes a connection that breaks off for the end
            while piece := self._read(response, PIECE):
                *lines, rest = (rest + piece).split(b"\n")
                yield from map(json.loads, lines)
            if rest:
                raise Failure([reason(self._path, http.client.IncompleteRead(rest))])

    @contextmanager
    def stream(self, target: str, query: Mapping[str, str]) -> Iterator[Stream]:
        """An answer without an end of its own, as bytes."""
        connection = _Connection(self._path, None)
        with closing(connection), closing(self._ask(connection, "GET", _full(target, query))) as r:
            yield Stream(r, connection.sock)

    def _open(self, method: str, target: str, timeout: float | None) -> http.client.HTTPResponse:
        return self._ask(_Connection(self._path, timeout), method, target)

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, target: str
    ) -> http.client.HTTPResponse:
        try:
            connection.request(method, target)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Failure([reason(self._path, error)]) from error
        if response.status != 200:
            with closing(connection):
                wrong = response.status == http.HTTPStatus.BAD_REQUEST
                kind = WrongUsage if wrong else Failure
                raise kind(problems_in(response.status, self._read(response, None)))
        return response

    def _read(self, response: http.client.HTTPResponse, piece: int | None) -> bytes:
        """All of it, or what has come, up to ``piece`` bytes."""
        try:
            return response.read() if piece is None else response.read1(piece)
        except (OSError, http.client.HTTPException) as error:
            raise Failure([reason(self._path, error)]) from error


def reason(path: str, error: OSError | http.client.HTTPException) -> str:
    """Why the daemon on ``path`` does not answer, and what to do."""
    if isinstance(error, TimeoutError):
        return (
            f"the daemon on {path} takes the request and does not answer: it is stopped, "
            "or overloaded"
        )
    if isinstance(error, PermissionError):
        return f"{path}: permission denied; use sudo, or join the group snatgw"
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return (
            f"no daemon answers on {path}; is `snatgw run` running? "
            "Another socket is named with --api or $SNATGW_API"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOTSOCK, errno.EPROTOTYPE):
        return f"{path} is not a daemon's socket"
    if isinstance(error, http.client.HTTPException | ConnectionError):
        return f"the daemon on {path} ended while it answered"
    return f"{path}: {error.strerror or error}"


def _full(target: str, query: Mapping[str, str]) -> str:
    return f"{target}?{urlencode(query)}" if query else target


def problems_in(status: int, body: bytes) -> list[str]:
    """The sentences in an answer that is not 200."""
    try:
        problems = json.loads(body)["problems"]
    except (ValueError, KeyError, TypeError):
        return [f"the daemon answered with HTTP status {status}"]
    return [str(problem) for problem in problems]
