"""uvicorn as the API process uses it: on sockets that are open already, without signal handlers.

The Unix socket is for those who may use it. What listens on TCP is open to anybody who reaches it,
so there connections are counted, and those that ask nothing are closed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager

# All but uvicorn itself would be loaded on first use: after the change to a user who may not be
# able to read where this program is installed (a clone under /root).
import anyio._backends._asyncio  # noqa: F401
import uvicorn
import uvicorn.lifespan.off
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

UNIX_CONNECTIONS = 256
TCP_CONNECTIONS = 128
PATIENCE = 10.0
"""Seconds for a connection's first request."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class _GuardedConnection(H11Protocol):
    """A connection from anybody."""

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
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # what anybody sends is no line for the operator
        access_log=False,
        server_header=False,
        limit_concurrency=connections,
    )
    await _Server(configuration).serve(sockets=[listener])
