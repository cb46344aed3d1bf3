"""Servers of the tests' internet: ``python -m tests.netns.servers ADDRESS…``, then ``up``.

On every address, each reply from the address that was asked:
7/udp, 7/tcp   echo
37/udp, 37/tcp who asks, as ``ip:port``
53/udp, 53/tcp the lab's name server
9/tcp          reads to the end, answers with the SHA-256 in hexadecimal
19/tcp         reads a line with a number, answers with that many bytes of ``pattern``
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import resource
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

from gateway.lab import nameserver

ECHO, WHO, DIGEST, SOURCE = 7, 37, 9, 19
BACKLOG = 4096

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def pattern(size: int) -> bytes:
    """Bytes in which a lost, doubled or moved piece shows."""
    block = b"".join(number.to_bytes(4, "big") for number in range(1 << 14))
    return (block * (size // len(block) + 1))[:size]


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, answer: Callable[[bytes, tuple[str, int]], bytes]) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # it is, and is no subclass

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(self._answer(data, addr), addr)


def who(_data: bytes, peer: tuple[str, int]) -> bytes:
    return f"{peer[0]}:{peer[1]}".encode()


async def tcp_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def tcp_who(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(who(b"", writer.get_extra_info("peername")))


async def tcp_digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    digest = hashlib.sha256()
    while data := await reader.read(65536):
        digest.update(data)
    writer.write(digest.hexdigest().encode())


async def tcp_source(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(pattern(int(await reader.readline())))
    await writer.drain()


def politely(talk: Talk) -> Talk:
    """Close at the end; a peer that goes away is no mistake."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await talk(reader, writer)
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()

    return serve


async def main(addresses: list[str]) -> None:
    loop = asyncio.get_running_loop()
    for address in addresses:
        for port, answer in ((ECHO, lambda data, _: data), (WHO, who)):
            await loop.create_datagram_endpoint(
                partial(Datagrams, answer), local_addr=(address, port)
            )
        for port, talk in (
            (ECHO, tcp_echo), (WHO, tcp_who), (DIGEST, tcp_digest), (SOURCE, tcp_source)
        ):  # fmt: skip
            await asyncio.start_server(politely(talk), address, port, backlog=BACKLOG)
    await nameserver.serve(addresses)
    print("up", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(sys.argv[1:]))
