"""A client that opens TCP connections and holds them, as a leaking application does.

`python -m gateway.lab.client ADDRESS PORT` reads one command a line from standard input and
answers each with one JSON object on standard output:

  open N SECONDS   open N more; an attempt ends as open, timeout (after SECONDS) or another error
  echo             send a byte on every open connection and count those that bring it back
  reset            close all with RST (SO_LINGER 0)
  close            close all with FIN

It binds no source port and retries nothing itself: retransmissions are the kernel's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import sys
import time
from collections import Counter
from typing import Any

from gateway.lab.servers import raise_open_file_limit

AT_ONCE = 128
"""Connection attempts under way at a time: a burst, but none that overflows a listen queue."""
ECHO_SECONDS = 5.0
LINGER_ZERO = struct.pack("ii", 1, 0)


class Holder:
    """The open connections of one client, all toward one address and port."""

    def __init__(self, address: str, port: int) -> None:
        self._target = (address, port)
        self._held: list[socket.socket] = []

    async def open(self, count: int, seconds: float) -> dict[str, Any]:
        """Try `count` more connections. `seconds` bounds each attempt."""
        slots = asyncio.Semaphore(AT_ONCE)
        started = time.monotonic()

        async def attempt() -> str:
            async with slots:
                return await self._connect(seconds)

        outcomes = Counter(await asyncio.gather(*(attempt() for _ in range(count))))
        return {
            "open": outcomes.pop("open", 0),
            "failed": dict(outcomes),
            "held": len(self._held),
            "seconds": round(time.monotonic() - started, 3),
        }

    async def echo(self) -> dict[str, Any]:
        """Count the connections that still carry a byte there and back."""
        loop = asyncio.get_running_loop()

        async def ping(connection: socket.socket) -> bool:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(ECHO_SECONDS):
                    await loop.sock_sendall(connection, b"!")
                    return await loop.sock_recv(connection, 1) == b"!"
            return False

        alive = sum(await asyncio.gather(*map(ping, self._held)))
        return {"alive": alive, "held": len(self._held)}

    def close(self, *, reset: bool) -> dict[str, Any]:
        """Close everything, with RST or FIN."""
        closed = len(self._held)
        for connection in self._held:
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            connection.close()
        self._held.clear()
        return {"closed": closed}

    async def _connect(self, seconds: float) -> str:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(connection, self._target)
        except TimeoutError:
            connection.close()
            return "timeout"
        except OSError as error:
            connection.close()
            # asyncio puts the address where the reason was.
            return os.strerror(error.errno) if error.errno else type(error).__name__
        self._held.append(connection)
        return "open"


async def obey(holder: Holder) -> None:
    """Read and carry out commands until standard input ends."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        match line.split():
            case ["open", count, seconds]:
                outcome = await holder.open(int(count), float(seconds))
            case ["echo"]:
                outcome = await holder.echo()
            case ["reset" | "close" as how]:
                outcome = holder.close(reset=how == "reset")
            case _:
                outcome = {"error": f"no such command: {line.strip()}"}
        print(json.dumps(outcome), flush=True)


def main() -> int:
    """Run the client that the command line describes."""
    if len(sys.argv) != 3 or not sys.argv[2].isdigit():
        print("usage: python -m gateway.lab.client ADDRESS PORT", file=sys.stderr)
        return 2
    raise_open_file_limit()
    asyncio.run(obey(Holder(sys.argv[1], int(sys.argv[2]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
