"""A web server in a VM: ``python -m tests.netns.web NAME DIRECTORY PORT…``, then ``up``.

``GET /`` answers with ``NAME`` and who asks, as ``ip:port``; ``/slow`` begins its answer and ends it
when the file ``DIRECTORY/go`` is there; anything else, as probes ask for, is 200 unless the file
``DIRECTORY/sick-NAME`` is there: then it is 503. Each probe's source is a line of ``probes-NAME``.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path


async def main(name: str, directory: Path, ports: list[int]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            ip, number = writer.get_extra_info("peername")
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1]
                status, body = b"200 OK", f"{name} {ip}:{number}\n".encode()
                if path not in (b"/", b"/slow"):
                    with (directory / f"probes-{name}").open("a") as log:
                        log.write(f"{ip} {head.decode()!r}\n")
                    if (directory / f"sick-{name}").exists():
                        status, body = b"503 Service Unavailable", b"sick\n"
                size = b"Content-Length: %d\r\n" % len(body)
                writer.write(b"HTTP/1.1 " + status + b"\r\n" + size + b"\r\n")
                while path == b"/slow" and not (directory / "go").exists():
                    await asyncio.sleep(0.02)
                writer.write(body)
                await writer.drain()
                if b"Connection: close" in head:
                    break
        with contextlib.suppress(OSError):
            writer.close()

    for port in ports:
        await asyncio.start_server(serve, "0.0.0.0", port, backlog=1024)
    print("up", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), [int(port) for port in sys.argv[3:]]))
