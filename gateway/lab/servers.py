"""The lab internet's own servers, as a program: `python -m gateway.lab.servers echo|dns`.

Echo gives back whatever it gets, TCP and UDP (RFC 862, port 7), datagrams up to the 65,507 bytes
that UDP over IPv4 carries, thousands of connections at a time. DNS is `nameserver.py`. Web and
iperf3 are Debian's. Each runs in the foreground until it is killed, and knows nothing of the lab
but the addresses of `topology.py`.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
from typing import Any, cast

from gateway.lab import nameserver
from gateway.lab.topology import ECHO, ECHO_PORT, NAME_SERVER, OPENDNS

BACKLOG = 4096
RECEIVE_BUFFER = 4 << 20


class EchoStream(asyncio.Protocol):
    """One TCP connection: everything back, in order; reading stops while the peer does not read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class EchoDatagrams(asyncio.DatagramProtocol):
    """Every datagram back to where it came from."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.transport.sendto(data, addr)


async def serve_echo(address: str, port: int) -> tuple[asyncio.Server, asyncio.DatagramTransport]:
    """Start both echo servers on `address` and `port`. Raises OSError if that is taken."""
    loop = asyncio.get_running_loop()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    datagrams.bind((address, port))
    datagrams.setblocking(False)
    transport, _ = await loop.create_datagram_endpoint(EchoDatagrams, sock=datagrams)
    server = await loop.create_server(EchoStream, address, port, backlog=BACKLOG)
    return server, transport


def raise_open_file_limit() -> None:
    """Allow this process as many open files as it may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(service: str) -> None:
    if service == "echo":
        await serve_echo(ECHO, ECHO_PORT)
    else:
        await nameserver.serve((NAME_SERVER, OPENDNS))
    print(f"{service}: listening", flush=True)
    await asyncio.Event().wait()


def main() -> int:
    """Run the server that the command line names."""
    if sys.argv[1:] not in (["echo"], ["dns"]):
        print("usage: python -m gateway.lab.servers echo|dns", file=sys.stderr)
        return 2
    raise_open_file_limit()
    try:
        asyncio.run(_run(sys.argv[1]))
    except OSError as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
