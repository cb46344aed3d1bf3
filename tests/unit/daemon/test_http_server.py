"""What anybody may do to the TCP side: not much, and not for long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.daemon import http_server


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    async def forever() -> object:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    endless = scope["path"] == "/endless"
    answer = StreamingResponse(forever()) if endless else PlainTextResponse("hello")
    await answer(scope, receive, send)


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(http_server, "PATIENCE", 0.3)
    monkeypatch.setattr(http_server, "TCP_CONNECTIONS", 4)
    listener = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.new_event_loop()
    task = loop.create_task(http_server.answer_anybody(app, listener))

    def serve() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    loop.call_soon_threadsafe(task.cancel)
    thread.join(30)
    loop.close()
    listener.close()


def connection(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: a\r\nX-Half:"])
def test_who_asks_nothing_is_shown_out(port: int, said: bytes) -> None:
    with connection(port) as silent:
        silent.sendall(said)
        assert silent.recv(100) == b""


def test_an_answer_takes_as_long_as_it_takes(port: int) -> None:
    with httpx.stream("GET", f"http://127.0.0.1:{port}/endless", timeout=30) as response:
        chunks = response.iter_raw()
        assert sum(len(next(chunks)) for _ in range(100)) >= 100  # longer than the patience


def test_no_more_connections_than_there_is_room_for(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "PATIENCE", 60.0)
    silent = [connection(port) for _ in range(4)]
    with connection(port) as one_more, contextlib.suppress(ConnectionResetError):
        assert one_more.recv(100) == b""
    for each in silent:
        each.close()
    # and room again, once they are gone
    for _ in range(200):
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/", timeout=30).text == "hello":
                return
    raise AssertionError("nobody answers any more")
