"""What it costs packets that somebody looks at the gateway: listings, a dashboard, ``top``."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from bench.figures import Alone
from bench.forwarders import FAST, LETTERS, ROOT, Forwarder
from bench.loads import SENDER_CPU
from bench.namespaces import BenchError
from bench.session import Bench, fill
from bench.watchers import watching

WATCHED_LIMIT = 2.0
"""Latency while a gateway is watched: at most this many times what it is otherwise."""
WATCHERS_START = 3.0
"""Seconds until `top` and the dashboard are up and see samples."""


def listing(bench: Bench) -> None:
    """Packets while a client lists 64,000 flows again and again, and without that."""
    gateway = bench.gateways["snatgw"]
    bench.say("listing: filling the table")
    fill(bench, gateway, 200)
    pace, seconds = 20_000.0, 3 * bench.seconds
    found: dict[str, dict[str, float]] = {}
    for name in ("without", "with"):
        bench.say(f"packets {name} listings")
        with _listings(gateway) if name == "with" else _nothing() as counter:
            paced = bench.loads.flood(gateway, seconds=seconds, rate=pace)
            most = bench.loads.flood(gateway, seconds=seconds)
            asked = bench.loads.ask(gateway, seconds, SENDER_CPU)
        found[name] = {
            "lost": paced.lost,
            "rate": most.per_second / 1e3,
            "p50": asked["p50"],
            "p99": asked["p99"],
            "max": asked["max"],
        }
        if name == "with":
            bench.alone.append(
                Alone("listings", "flows listed meanwhile (64,000 each)", counter[0], "listings")
            )
    for key, title, unit in (
        ("lost", f"packets lost at {pace:,.0f} a second", "packets"),
        ("rate", "UDP, 1 flow, as fast as it goes", "kpps"),
        ("p50", "TCP request and response, p50", "us"),
        ("p99", "TCP request and response, p99", "us"),
        ("max", "TCP request and response, slowest", "us"),
    ):
        for name, figures in found.items():
            bench.alone.append(
                Alone(f"listing-{key}-{name}", f"{title}, {name} listings", figures[key], unit)
            )


@contextmanager
def _nothing() -> Iterator[list[int]]:
    yield [0]


@contextmanager
def _listings(gateway: Forwarder) -> Iterator[list[int]]:
    """``GET /v1/flows`` without a pause, from a process of its own; yields how many ended."""
    counter = [0]
    command = ["taskset", "-c", str(SENDER_CPU), sys.executable, "-m", "bench.lister"]
    process = subprocess.Popen(
        [*command, str(gateway.api)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield counter
        output, _ = process.communicate(timeout=60)  # closes its input: it ends
        if process.returncode:
            raise BenchError("the listing failed")
        counter[0] = int(output)
    finally:
        process.kill()
        process.wait()


def watched(bench: Bench) -> None:
    """Latency while a dashboard, ``top`` and a Prometheus look at 64,000 flows, and without."""
    seconds = max(5 * bench.seconds, 3.0)  # several samples and scrapes
    for turn, name in enumerate(("snatgw", FAST)):
        gateway, letter = bench.gateways[name], LETTERS[name]
        bench.say(f"watched ({letter}): filling the table")
        fill(bench, gateway, 201 + turn)
        rounds: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
        for number in range(1, min(bench.rounds, 3) + 1):
            bench.say(f"watched ({letter}), round {number}")
            rounds["without"].append(bench.loads.ask(gateway, seconds))
            with watching(gateway) as seen:
                time.sleep(WATCHERS_START)
                rounds["with"].append(bench.loads.ask(gateway, seconds))
            if not (seen["samples"] and seen["scrapes"]):
                raise BenchError(f"{name}: nothing was seen by the watchers: {seen}")
        for key in ("p50", "p99", "max"):
            values = {way: median(said[key] for said in rounds[way]) for way in rounds}
            shown = {"max": "slowest"}.get(key, key)
            title = f"({letter}) request and response, {shown}"
            for way, value in values.items():
                entry = f"watched-{name}-{key}-{way}"
                bench.alone.append(Alone(entry, f"{title}, {way} watchers", value, "us"))
            if key == "p99":
                ratio = median(b[key] / a[key] for a, b in zip(*rounds.values(), strict=True))
                title += ", with watchers / without"
                bench.alone.append(Alone(f"watched-{name}", title, ratio, "", WATCHED_LIMIT))
