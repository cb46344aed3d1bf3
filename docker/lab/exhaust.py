#!/opt/snatgw/bin/python
"""Runs a VM of the compose lab out of SNAT ports: opens connections to one address and holds them.

    docker compose exec vm1 exhaust             until Ctrl-C
    docker compose exec -T vm1 exhaust --hold 30

A VM behind default SNAT or one frontend has 1,024 ports toward an address: the attempt after that
gets no answer at all. At the end all are reset (RST), and each port is held for 15 more of Azure's
seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal

from gateway.lab.client import Holder
from gateway.lab.servers import raise_open_file_limit

PATIENCE = 3.0


async def exhaust(address: str, port: int, count: int, hold: float) -> None:
    holder = Holder(address, port)
    print(f"Opening {count:,} connections to {address}:{port} …", flush=True)
    outcome = await holder.open(count, PATIENCE)
    failed = ", ".join(f"{number:,} {why}" for why, number in outcome["failed"].items()) or "none"
    print(f"{outcome['held']:,} are open; failed: {failed}.", flush=True)
    print("Look: snatgw ports, snatgw events, snatgw diagnose. Ctrl-C lets go.", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), hold or None)
    print(f"{holder.close(reset=True)['closed']:,} connections reset.", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1100, help="connections to try [1100]")
    parser.add_argument("--hold", type=float, default=0, help="seconds to hold them [until Ctrl-C]")
    parser.add_argument("--address", default="198.51.100.7")
    parser.add_argument("--port", type=int, default=7)
    given = parser.parse_args()
    raise_open_file_limit()
    asyncio.run(exhaust(given.address, given.port, given.count, given.hold))


if __name__ == "__main__":
    main()
