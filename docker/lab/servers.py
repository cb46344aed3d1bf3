"""The compose lab's internet: `servers.py web|dns|echo`, on all addresses of its container.

web   80/tcp   says who asks, as the internet sees it; /bytes/N: that many bytes
dns   53       the names below, and myip.opendns.com as OpenDNS answers it
echo  7        gives back what it gets, TCP and UDP
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

from gateway.lab import nameserver
from gateway.lab.servers import raise_open_file_limit, serve_echo

NAMES = {
    "web.example": ["198.51.100.10"],
    "echo.example": ["198.51.100.7"],
    "dns.example": ["198.51.100.53"],
    "resolver1.opendns.com": ["198.51.100.53"],
}
EVERY_ADDRESS = "0.0.0.0"
PATIENCE = 30.0
MOST_BYTES = 1 << 30
_PIECE = bytes(1 << 16)


async def answer_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request, one answer, and the end of the connection."""
    ip, port = writer.get_extra_info("peername")[:2]
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].decode("latin-1")
    if method not in (b"GET", b"HEAD"):
        status, size, text = "405 Method Not Allowed", 0, b"GET only\n"
    elif path.startswith("/bytes/") and path[7:].isdecimal() and int(path[7:]) <= MOST_BYTES:
        status, size, text = "200 OK", int(path[7:]), b""
    else:
        status, size, text = "200 OK", 0, f"You are {ip}:{port}\n".encode()
    writer.write(
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {size or len(text)}\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    if method == b"HEAD":
        return
    writer.write(text)
    for start in range(0, size, len(_PIECE)):
        writer.write(_PIECE[: size - start])
        await writer.drain()


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
        await answer_http(reader, writer)
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()


async def serve(service: str) -> None:
    """Run one of them until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if service == "web":
        await asyncio.start_server(_http, EVERY_ADDRESS, 80, backlog=4096)
    elif service == "dns":
        await nameserver.serve([EVERY_ADDRESS], hosts=NAMES)
    else:
        await serve_echo(EVERY_ADDRESS, 7)
    print(f"{service}: listening", flush=True)
    await stop.wait()


if __name__ == "__main__":
    if sys.argv[1:] not in (["web"], ["dns"], ["echo"]):
        sys.exit(__doc__)
    raise_open_file_limit()
    asyncio.run(serve(sys.argv[1]))
