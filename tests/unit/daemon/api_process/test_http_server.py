"""What anybody may do to the TCP side: not much, and not for long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.daemon.api_process import http_server


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    async def forever() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    endless = scope["path"] == "/endless"
    seen = f"{scope['path']} at {dict(scope['headers'])[b'host'].decode()}"
    answer = StreamingResponse(forever()) if endless else PlainTextResponse(seen)
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
            if httpx.get(f"http://127.0.0.1:{port}/", timeout=30).text == f"/ at 127.0.0.1:{port}":
                return
    raise AssertionError("nobody answers any more")


def raw(port: int, target: str, host: str) -> str:
    """What is answered to a request line as it is, after its head."""
    with connection(port) as line:
        request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        line.sendall(request.encode())
        said = b""
        while piece := line.recv(4096):
            said += piece
    return said.decode().partition("\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        ("/asked/a%20b?c=1", "/asked/a b at other"),
        ("http://127.0.0.1:8480/asked/a%20b?c=1", "/asked/a b at 127.0.0.1:8480"),
        ("HTTP://evil.example/asked", "/asked at evil.example"),
        ("http://[::1]:8480/asked/http://x/", "/asked/http://x/ at [::1]:8480"),
        ("/asked/http://x/", "/asked/http://x/ at other"),
        # not ours to understand: the application refuses such paths
        ("ftp://127.0.0.1/asked", "ftp://127.0.0.1/asked at other"),
        ("http:///asked", "http:///asked at other"),
        ("http://me@127.0.0.1/asked", "http://me@127.0.0.1/asked at other"),
    ],
)
def test_a_whole_address_is_a_target_too(port: int, target: str, seen: str) -> None:
    """RFC 9112 section 3.2.2. The target's host counts, so that the guard judges that one."""
    assert raw(port, target, "other") == seen


@pytest.mark.parametrize("target", ["http://127.0.0.1", "http://127.0.0.1?c=1"])
def test_a_whole_address_without_a_path_is_the_home_page(port: int, target: str) -> None:
    assert raw(port, target, "other") == "/ at 127.0.0.1"
