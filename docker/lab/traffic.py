"""What the compose lab's VMs do all day, gently: web pages, names, a connection that stays open.

One of each every few seconds, so that the flow table moves and no port runs out. Says once what
works and under which public address, and after that only what changes. It needs no capability:
the default route is Docker's doing, and a VM whose route does not lead to the gateway stops.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from dnslib import DNSRecord

WEB, DNS, ECHO = ("198.51.100.10", 80), ("198.51.100.53", 53), ("198.51.100.7", 7)
PATIENCE = 5.0
PAUSE = 2.0
"""Seconds between two rounds, give or take half."""


def default_gateway() -> str:
    """The address that the default route leads to, or nothing."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000" and fields[7] == "00000000":
            return socket.inet_ntoa(struct.pack("=I", int(fields[2], 16)))
    return ""


async def web() -> str:
    """A page, on a connection of its own; what it says."""
    reader, writer = await asyncio.open_connection(*WEB)
    writer.write(b"GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.rpartition(b"\r\n\r\n")[2].decode().strip().rpartition(":")[0]


async def dns() -> str:
    """The address that the name server sees, from a fresh UDP port."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        await loop.sock_connect(client, DNS)
        await loop.sock_sendall(client, DNSRecord.question("myip.opendns.com").pack())
        answer = DNSRecord.parse(await loop.sock_recv(client, 512))
    return f"myip.opendns.com is {answer.rr[0].rdata}"


class Echo:
    """One connection that stays open, with a byte there and back each time."""

    def __init__(self) -> None:
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __call__(self) -> str:
        try:
            self._streams = self._streams or await asyncio.open_connection(*ECHO)
            reader, writer = self._streams
            writer.write(b"!")
            await reader.readexactly(1)
        except BaseException:
            if self._streams is not None:
                self._streams[1].close()
                self._streams = None
            raise
        return "the connection is open"


async def keep_doing(name: str, task: Callable[[], Awaitable[str]]) -> None:
    """Again and again, telling what changes."""
    before = ""
    while True:
        try:
            async with asyncio.timeout(PATIENCE):
                outcome = await task()
        except (OSError, EOFError, TimeoutError) as error:
            outcome = f"fails: {str(error) or type(error).__name__}"
        if outcome != before:
            print(f"{name}: {outcome}", flush=True)
            before = outcome
        await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))


async def main() -> None:
    """Until SIGTERM."""
    wanted, route = os.environ.get("GATEWAY", ""), default_gateway()
    if wanted and route != wanted:
        sys.exit(f"the default route leads to {route or 'nowhere'}, not to the gateway {wanted}")
    print(f"the default route leads to {route or 'nowhere'}", flush=True)
    tasks = [
        asyncio.create_task(keep_doing(name, task))
        for name, task in (("web", web), ("dns", dns), ("echo", Echo()))
    ]
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: [task.cancel() for task in tasks])
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main())
