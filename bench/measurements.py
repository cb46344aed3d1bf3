"""The measurements, by name. Those of forwarders take turns: a b c d, a b c d, …; medians count.

``docs/benchmarks.md`` says what each figure means and what it does not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.figures import FILLING_TOLERANCE, Alone, Row
from bench.forwarders import DROP, FAST, FORWARDERS, ROOT, Forwarder
from bench.loads import SENDER_CPU, Loads
from bench.namespaces import BenchError, run

TARGET = {"d/c": 0.7}
CHEAP = {"e/b": 1 / 0.6}
"""What a packet costs: at most 0.6 of masquerade's."""
AS_QUICK = {"e/b": 1 / 1.05}
"""Latency: at most 1.05 of masquerade's."""
ALL_FLOWS, PER_SOURCE = 63_488, 1024  # 62 VMs with 1,024 ports each: one public IP's worth
BUSY = 3  # packets after which the fast path takes a UDP flow over
MANY_FLOWS = 200_000
"""As many as connection tracking holds beside the other loads' (nf_conntrack_max is the host's)."""
BYTES_PER_FLOW = 700
RULES_LIMIT = 3.0
"""Judging a flow by 1,000 rules next to judging it by 10: at most this many times the cost."""


NO_TARGETS: Mapping[str, float] = {}


@dataclass
class Bench:
    """What the measurements work with and what they have found."""

    loads: Loads
    gateways: dict[str, Forwarder]
    seconds: float
    rounds: int
    say: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    alone: list[Alone] = field(default_factory=list)

    def row(
        self,
        name: str,
        title: str,
        unit: str,
        *,
        higher_is_better: bool = True,
        targets: Mapping[str, float] = NO_TARGETS,
    ) -> Row:
        """A new row of the table."""
        row = Row(name, title, unit, higher_is_better, dict(targets))
        self.rows.append(row)
        return row

    def turns(self, what: str, rounds: int | None = None) -> Iterator[Forwarder]:
        """Each forwarder in turn, as often as there are rounds."""
        rounds = rounds or self.rounds
        for number in range(1, rounds + 1):
            self.say(f"{what}, round {number} of {rounds}")
            yield from (self.gateways[name] for name in FORWARDERS if name in self.gateways)


def packets(bench: Bench) -> None:
    """64-byte frames of established flows: one, 1,000 and their answers, 10,000, very many."""
    senders: list[float] = []
    loads = [(1, False, "1 flow"), (1000, False, "1,000 flows"), (1000, True, "their answers")]
    loads.append((10_000, False, "10,000 flows"))
    if bench.rounds >= 5:
        loads.append((MANY_FLOWS, False, f"{MANY_FLOWS:,} flows"))
    for flows, reply, title in loads:
        name = f"{flows}{'-answers' * reply}"
        near_queue = flows <= 1000  # what the queue's targets are about
        rate = bench.row(
            f"rate-{name}", f"UDP, {title}", "kpps", targets=TARGET if near_queue else NO_TARGETS
        )
        cost = bench.row(
            f"cost-{name}",
            f"CPU to forward a packet, {title}",
            "us",
            higher_is_better=False,
            targets=NO_TARGETS if reply else CHEAP,
        )
        alone = bench.row(
            f"process-{name}",
            f"  its forwarding process's, {title}",
            "us",
            higher_is_better=False,
            targets=TARGET if near_queue else NO_TARGETS,
        )
        drops = bench.gateways[DROP]
        spread = {"per_source": PER_SOURCE - 24, "per_destination": min(flows, 50_000)}
        many: dict[str, int] = {} if flows <= 1000 else spread
        for gateway in bench.turns(f"UDP, {title}"):
            if gateway.name == FORWARDERS[0]:
                own = bench.loads.flood(drops, seconds=bench.seconds, flows=flows, **many)
                senders.append(own.per_second / 1e3)
            if gateway.name == FAST and not rate.rounds.get(FAST):
                for _ in range(BUSY):  # then the fast path has taken all of them over
                    bench.loads.flood(gateway, seconds=60, flows=flows, once=True, **many)
            measured = bench.loads.flood(
                gateway, seconds=bench.seconds, flows=flows, reply=reply, **many
            )
            rate.add(gateway.name, measured.per_second / 1e3)
            if gateway.pid is None or gateway.name == FAST:
                cost.add(gateway.name, measured.cost - own.cost)
                continue
            if not near_queue:
                continue
            drain = bench.loads.drain(gateway, seconds=bench.seconds, flows=flows, reply=reply)
            alone.add(gateway.name, drain.draining)
            cost.add(gateway.name, drain.filling - own.cost + drain.draining)
    title = "the sender alone: packets dropped on arrival"
    bench.alone.append(Alone("sender", title, median(senders), "kpps"))


def tcp(bench: Bench) -> None:
    """Bulk TCP, one stream, each way."""
    for download in (False, True):
        way = "to the VM" if download else "from the VM"
        row = bench.row(
            f"bulk-{'down' if download else 'up'}",
            f"TCP, one stream {way}",
            "Gbit/s",
            targets={"d/c": 1.5, "e/b": 1.0},
        )
        # iperf3 counts in whole seconds.
        seconds, rounds = max(1, round(bench.seconds)), max(1, bench.rounds // 3)
        for gateway in bench.turns(f"bulk TCP {way}", rounds):
            rate = bench.loads.bulk(gateway, seconds, download=download)
            row.add(gateway.name, rate / 1e9)


def connections(bench: Bench) -> None:
    """Connect, one byte there and back, close, one at a time; request and response."""
    row = bench.row(
        "connect", "TCP connect, byte, close, one at a time", "k/s", targets={"e/b": 0.7}
    )
    middle = bench.row(
        "ask-p50", "TCP request and response, p50", "us", higher_is_better=False, targets=AS_QUICK
    )
    slow = bench.row(
        "ask-p99", "TCP request and response, p99", "us", higher_is_better=False, targets=AS_QUICK
    )
    for gateway in bench.turns("connections", min(bench.rounds, 5)):
        said = bench.loads.connect(gateway, bench.seconds)
        row.add(gateway.name, said["count"] / said["seconds"] / 1e3)
        said = bench.loads.ask(gateway, bench.seconds / 2)
        middle.add(gateway.name, said["p50"])
        slow.add(gateway.name, said["p99"])


def new_flows(bench: Bench) -> None:
    """One SYN each of 63,488 flows to one address: all SNAT ports of a public IP."""
    row = bench.row("new-flows", f"new flows, until {ALL_FLOWS:,} ports are in use", "k/s")
    # Three times that many is what connection tracking holds by default.
    rounds = min(bench.rounds, 3)
    for number, gateway in enumerate(bench.turns("new flows", rounds)):
        _fill(bench, gateway, 1 + number // len(FORWARDERS), row)


def _fill(bench: Bench, gateway: Forwarder, turn: int, row: Row | None = None) -> None:
    """Every turn has a destination of its own, toward which all ports are free.

    The VMs are the one that the other loads use and the 61 addresses after it: no room for more.
    """
    said = bench.loads.flood(
        gateway,
        seconds=30,
        flows=ALL_FLOWS,
        to=f"198.19.0.{turn}",
        once=True,
        syn=True,
        per_source=PER_SOURCE,
    )
    if said.received < ALL_FLOWS:
        raise BenchError(f"{gateway.name}: {said.received} of {ALL_FLOWS} SYNs arrived")
    if row is not None:
        row.add(gateway.name, said.per_second / 1e3)


def listing(bench: Bench) -> None:
    """Packets while a client lists 64,000 flows again and again, and without that."""
    gateway = bench.gateways["snatgw"]
    bench.say("listing: filling the table")
    _fill(bench, gateway, 200)
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


def engine(bench: Bench) -> None:
    """The engine by itself; each in a fresh process."""
    repeats = 3 if bench.rounds < 5 else 11
    for flows, limit in ((100_000, None), (1_000_000, BYTES_PER_FLOW)):
        bench.say(f"engine: memory of {flows:,} flows")
        size = _engine("memory", flows)["bytesPerFlow"]
        title = f"memory a flow at {flows:,} flows"
        bench.alone.append(Alone(f"memory-{flows}", title, size, "bytes", limit))
    bench.say("engine: time per packet")
    times = _engine("packets", repeats)
    for key, title in (
        ("tcp_out", "engine, established TCP packet out"),
        ("tcp_in", "engine, established TCP packet in"),
        ("udp_out", "engine, established UDP packet out"),
        ("udp_in", "engine, established UDP packet in"),
        ("new_flow", "engine, new flow"),
        ("expired_flow", "engine, expired flow"),
    ):
        bench.alone.append(Alone(key, title, times[key], "us"))
    bench.say("engine: filling 64,000 ports")
    for name, found in _engine("filling", repeats).items():
        for edge in ("first", "last"):
            title = f"{FILLING_TITLES[name]}, {edge} 1,000 of 64,000 ports"
            bench.alone.append(Alone(f"fill-{name}-{edge}", title, found[edge], "us"))
        title = f"{FILLING_TITLES[name]}, last 1,000 / first 1,000"
        ratio = found["last"] / found["first"]
        bench.alone.append(Alone(f"fill-{name}", title, ratio, "", FILLING_TOLERANCE))


FILLING_TITLES = {
    "pool": "port taken",
    "holes": "port taken, after releases at random",
    "engine": "engine, new flow",
}


def _engine(name: str, size: int) -> dict[str, Any]:
    return _alone("bench.engine_only", name, str(size))


def _alone(module: str, *arguments: str) -> dict[str, Any]:
    return dict(json.loads(run([sys.executable, "-m", module, *arguments], timeout=180)))


def security_rules(bench: Bench) -> None:
    """A flow's first packet judged by 10 rules and by 1,000."""
    bench.say("security rules: 10 and 1,000 of them")
    times = _alone("bench.security_rules", "5" if bench.rounds < 5 else "21")
    for name, title in (("few", "10 rules"), ("many", "1,000 rules with 4,000 prefixes")):
        bench.alone.append(Alone(f"rules-{name}", f"flow judged by {title}", times[name], "us"))
    title = "flow judged by 1,000 rules with 4,000 prefixes / by 10 rules"
    ratio = times["many"] / times["few"]
    bench.alone.append(Alone("rules", title, ratio, "", RULES_LIMIT))


MEASUREMENTS: dict[str, Callable[[Bench], None]] = {
    "packets": packets,
    "tcp": tcp,
    "connections": connections,
    "new-flows": new_flows,
    "listing": listing,
    "engine": engine,
    "security-rules": security_rules,
}
"""In the order in which they run."""

NEEDED: dict[str, tuple[str, ...]] = {
    "packets": (DROP, *FORWARDERS),
    "tcp": FORWARDERS,
    "connections": FORWARDERS,
    "new-flows": FORWARDERS,
    "listing": ("snatgw",),
    "engine": (),
    "security-rules": (),
}
"""The gateways that each needs."""
