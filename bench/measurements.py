"""The measurements, by name. Those of forwarders take turns: a b c d, a b c d, …; medians count.

``docs/benchmarks.md`` says what each figure means and what it does not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from bench.figures import FILLING_TOLERANCE, Alone
from bench.forwarders import DROP, FAST, FORWARDERS, LETTERS, OTHERS
from bench.looking import listing, watched
from bench.namespaces import BenchError, inside, run
from bench.reload import CHANGES as RELOADS
from bench.session import ALL_FLOWS, NO_TARGETS, Bench, fill
from bench.tracking import room_for

TARGET = {"d/c": 0.7}
CHEAP = {"e/b": 1 / 0.6}
"""What a packet costs: at most 0.6 of masquerade's."""
AS_QUICK = {"e/b": 1 / 1.05}
"""Latency: at most 1.05 of masquerade's."""
MANY_PER_SOURCE, MANY_PER_DESTINATION = 1000, 50_000
"""How more than 1,000 flows are spread over VMs and destinations."""
BUSY = 3  # packets after which the fast path takes a UDP flow over
MANY_FLOWS = 1_000_000
TRACKED = 1_400_000
"""What connection tracking must have room for: these and the other loads' flows."""
UDP_TIMEOUT = 600
"""Seconds that connection tracking keeps a UDP flow in that measurement: its own 30 would be over
before the same flow's turn comes again."""
BYTES_PER_FLOW = 700
RULES_LIMIT = 3.0
"""Judging a flow by 1,000 rules next to judging it by 10: at most this many times the cost."""


def packets(bench: Bench) -> None:
    """64-byte frames of established flows: one, 1,000 and their answers, 10,000."""
    senders: list[float] = []
    loads = [(1, False, "1 flow"), (1000, False, "1,000 flows"), (1000, True, "their answers")]
    loads.append((10_000, False, "10,000 flows"))
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
        flood = partial(
            bench.loads.flood,
            flows=flows,
            per_source=0 if flows <= 1000 else MANY_PER_SOURCE,
            per_destination=0 if flows <= 1000 else MANY_PER_DESTINATION,
        )
        for gateway in bench.turns(f"UDP, {title}"):
            if gateway.name == FORWARDERS[0]:
                own = flood(drops, seconds=bench.seconds)
                senders.append(own.per_second / 1e3)
            if gateway.name == FAST and not rate.rounds.get(FAST):
                # Then the fast path has them all, and the packet after that has had its verdict:
                # nothing of a flow may overtake what waits in the queue.
                for _ in range(BUSY + 1):
                    flood(gateway, seconds=60, once=True)
                if reply:
                    flood(gateway, seconds=60, once=True, reply=True)
            measured = flood(gateway, seconds=bench.seconds, reply=reply)
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


def million(bench: Bench) -> None:
    """The same of 1,000,000 flows, where the kernel carries them."""
    title = f"{MANY_FLOWS:,} flows"
    rate = bench.row(f"rate-{MANY_FLOWS}", f"UDP, {title}", "kpps")
    cost = bench.row(
        f"cost-{MANY_FLOWS}",
        f"CPU to forward a packet, {title}",
        "us",
        higher_is_better=False,
        targets=CHEAP,
    )
    tracking = bench.gateways["masquerade"].wires.gateway
    timeout = f"net.netfilter.nf_conntrack_udp_timeout={UDP_TIMEOUT}"
    run([*inside(tracking), "sysctl", "-qw", timeout])
    names = ("plain", "masquerade", FAST)
    flood = partial(
        bench.loads.flood,
        flows=MANY_FLOWS,
        per_source=MANY_PER_SOURCE,
        per_destination=MANY_PER_DESTINATION,
    )
    with room_for(TRACKED):
        for name in names[1:]:
            bench.say(f"{title}: opening them ({LETTERS[name]})")
            for _ in range(BUSY + 1 if name == FAST else 1):
                said = flood(bench.gateways[name], seconds=120, once=True)
                if said.received < MANY_FLOWS:
                    raise BenchError(f"{name}: {said.received:,} of {MANY_FLOWS:,} flows opened")
        seconds = max(bench.seconds, 4.0)  # every flow has its turn
        for gateway in bench.turns(title, min(bench.rounds, 3), names):
            if gateway.name == names[0]:
                own = flood(bench.gateways[DROP], seconds=seconds)
            measured = flood(gateway, seconds=seconds)
            rate.add(gateway.name, measured.per_second / 1e3)
            cost.add(gateway.name, measured.cost - own.cost)


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
        for gateway in bench.turns(f"bulk TCP {way}", rounds, (*FORWARDERS, *OTHERS)):
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
    for gateway in bench.turns("connections", min(bench.rounds, 5), (*FORWARDERS, *OTHERS)):
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
        fill(bench, gateway, 1 + number // len(FORWARDERS), row)


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
    """A flow's first packet evaluated by 10 rules and by 1,000."""
    bench.say("security rules: 10 and 1,000 of them")
    times = _alone("bench.security_rules", "5" if bench.rounds < 5 else "21")
    for name, title in (("few", "10 rules"), ("many", "1,000 rules with 4,000 prefixes")):
        bench.alone.append(Alone(f"rules-{name}", f"flow evaluated by {title}", times[name], "us"))
    title = "flow evaluated by 1,000 rules with 4,000 prefixes / by 10 rules"
    ratio = times["many"] / times["few"]
    bench.alone.append(Alone("rules", title, ratio, "", RULES_LIMIT))


def reload(bench: Bench) -> None:
    """How long packets wait, at most, while a gateway with 2,000 VMs is reloaded."""
    bench.say("reload: 2,000 VMs, changes and back")
    stops = _alone("bench.reload", "1" if bench.rounds < 5 else "5")
    for kind, (title, _, limit) in RELOADS.items():
        title = f"longest stop for packets during a reload at 2,000 VMs, {title}"
        bench.alone.append(Alone(f"reload-{kind}", title, stops[kind], "ms", limit))


MEASUREMENTS: dict[str, Callable[[Bench], None]] = {
    "packets": packets,
    "tcp": tcp,
    "connections": connections,
    "new-flows": new_flows,
    "listing": listing,
    "watched": watched,
    "million": million,
    "engine": engine,
    "security-rules": security_rules,
    "reload": reload,
}
"""In the order in which they run: what fills a gateway's table for its four minutes comes last."""

NEEDED: dict[str, tuple[str, ...]] = {
    "packets": (DROP, *FORWARDERS),
    "million": (DROP, *FORWARDERS),
    "tcp": (*FORWARDERS, *OTHERS),
    "connections": (*FORWARDERS, *OTHERS),
    "new-flows": FORWARDERS,
    "listing": ("snatgw",),
    "watched": ("snatgw", FAST),
    "engine": (),
    "security-rules": (),
    "reload": (),
}
"""The gateways that each needs."""
