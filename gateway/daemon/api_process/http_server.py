"""uvicorn as the API process uses it: on sockets that are open already, without signal handlers.
Runs in the API process.

The Unix socket is for those who may use it. What listens on TCP is open to everyone who reaches it,
so there connections are counted, and those that ask nothing are closed. A request target may be a
whole address, as a client of a proxy sends it; applications see its path.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import unquote

# All but uvicorn itself would be loaded on first use: after the change to a user who may not be
# able to read where this program is installed (a clone under /root).
import anyio._backends._asyncio  # noqa: F401
import uvicorn
import uvicorn.lifespan.off
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

UNIX_CONNECTIONS = 256
TCP_CONNECTIONS = 128
PATIENCE = 10.0
"""Seconds for a connection's first request."""
_ABSOLUTE = re.compile(rb"http://(?P<host>[^/?#@]+)(?P<path>/.*)?", re.IGNORECASE | re.DOTALL)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class _GuardedConnection(H11Protocol):
    """A connection from any client."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting = self.loop.call_later(PATIENCE, self._close_silent)
        if len(self.connections) > TCP_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._waiting.cancel()
        super().connection_lost(exc)

    def _close_silent(self) -> None:
        if self.cycle is None:
            self.transport.close()


def origin_form(app: ASGIApp) -> ASGIApp:
    """``app``, for requests whose target is absolute, too: their host is the target's.

    RFC 9112 section 3.2.2: a server must accept them, and ignore the Host header.
    """

    async def with_path(scope: Scope, receive: Receive, send: Send) -> None:
        found = _ABSOLUTE.fullmatch(scope["raw_path"])
        if found is not None:
            path = found["path"] or b"/"
            headers = [item for item in scope["headers"] if item[0] != b"host"]
            headers.append((b"host", found["host"]))
            text = unquote(path.decode("ascii"))
            scope = {**scope, "path": text, "raw_path": path, "headers": headers}
        await app(scope, receive, send)

    return with_path


async def answer(app: ASGIApp, listener: socket.socket) -> None:
    """Answer on the Unix socket, until cancelled."""
    await _serve(app, listener, H11Protocol, UNIX_CONNECTIONS)


async def answer_anybody(app: ASGIApp, listener: socket.socket) -> None:
    """Answer on a TCP socket, until cancelled. ``app`` decides who gets what."""
    await _serve(app, listener, _GuardedConnection, TCP_CONNECTIONS)


async def _serve(
    app: ASGIApp, listener: socket.socket, protocol: type[asyncio.Protocol], connections: int
) -> None:
    configuration = uvicorn.Config(
        origin_form(app),
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # what clients send is no line for the operator
        access_log=False,
        server_header=False,
        limit_concurrency=connections,
    )
    await _Server(configuration).serve(sockets=[listener])
