"""Traffic totals are exact and never fall, whatever ends and begins while they are added up.

VMs and the outside send at random, time passes, ports are taken back, and a walk goes on a slice
at a time in between. A tally kept by the test, of what the engine let through, brackets each walk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from gateway.core.engine import Engine
from gateway.core.flows.counters import TrafficSums
from gateway.core.ingress import IngressPath
from tests.property.test_engine import CONFIGURATIONS, MACHINES, flags, machines, remotes

SLOTS = 2  # in a slice: even few flows take many
OUT, IN = 0, 2


class Accounts(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine(CONFIGURATIONS[1, 80], seed=5)
        self.now = 0.0
        self.tally: Counter[tuple[str, str, int]] = Counter()
        self.syns: Counter[tuple[str, int]] = Counter()
        self.walk: Iterator[TrafficSums | None] | None = None
        self.at_begin: Counter[tuple[str, str, int]] = Counter()
        self.before: dict[tuple[str, str, int], int] = {}
        self.seen: list[bytes] = []

    def _count(self, public: str, protocol: str, direction: int, packet: bytes) -> None:
        self.tally[public, protocol, direction] += 1
        self.tally[public, protocol, direction + 1] += len(packet)
        if protocol == "Tcp" and IP(packet)[TCP].flags & 0x17 == 2:
            self.syns[public, direction // 2] += 1

    def _send(self, vm: str, remote: str, port: int, protocol: str, mark: str, size: int) -> None:
        transport = UDP(sport=port, dport=53)
        if protocol == "Tcp":
            transport = TCP(sport=port, dport=443, flags=mark)
        packet = bytes(IP(src=vm, dst=remote) / transport / Raw(b"x" * size))
        verdict = self.engine.handle(packet, IngressPath.OUTBOUND, self.now)
        if verdict is not None:
            self._count(IP(verdict).src, protocol, OUT, packet)
            self.seen.append(verdict)

    @rule(
        vm=machines, remote=remotes, port=st.integers(1, 9), protocol=st.sampled_from(["Tcp", "Udp"]),
        mark=flags, size=st.integers(0, 30),
    )  # fmt: skip
    def send(self, vm: str, remote: str, port: int, protocol: str, mark: str, size: int) -> None:
        self._send(vm, remote, port, protocol, mark, size)

    @rule(remote=remotes, first=st.integers(1, 40))
    def send_from_all(self, remote: str, first: int) -> None:
        for vm in MACHINES:
            for port in range(first, first + 3):
                self._send(vm, remote, port, "Tcp", "S", 0)

    @rule(which=st.integers(0, 1 << 20), mark=flags, size=st.integers(0, 30))
    def answer(self, which: int, mark: str, size: int) -> None:
        if not self.seen:
            return
        sent = IP(self.seen[which % len(self.seen)])
        protocol = "Tcp" if TCP in sent else "Udp"
        transport = UDP(sport=sent.dport, dport=sent.sport)
        if protocol == "Tcp":
            transport = TCP(sport=sent.dport, dport=sent.sport, flags=mark)
        packet = bytes(IP(src=sent.dst, dst=sent.src) / transport / Raw(b"x" * size))
        if self.engine.handle(packet, IngressPath.INBOUND, self.now) is not None:
            self._count(sent.src, protocol, IN, packet)

    @rule(seconds=st.sampled_from([1.0, 16.0, 100.0, 241.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        while self.engine.expire(self.now):
            pass

    @rule(size=st.sampled_from([1, 60, 500]))
    def resize_the_pool(self, size: int) -> None:
        self.engine.reconfigure(CONFIGURATIONS[size, 80], self.now)

    @rule()
    def walk_begins_anew(self) -> None:
        self.walk = None

    @rule(slices=st.integers(1, 30))
    def walk_on(self, slices: int) -> None:
        for _ in range(slices):
            if self.walk is None:
                self.at_begin = Counter(self.tally)
                self.walk = self.engine.flows.traffic.walk(self.engine.flows, SLOTS)
            sums = next(self.walk)
            if sums is not None:
                self.walk = None
                self._compare(sums)

    def _compare(self, sums: TrafficSums) -> None:
        found = self._read(sums)
        for key in found.keys() | self.tally.keys():
            value = found.get(key, 0)
            assert self.at_begin[key] <= value <= self.tally[key], key
            assert value >= self.before.get(key, 0), key
        self.before = found

    def _read(self, sums: TrafficSums) -> dict[tuple[str, str, int], int]:
        found: Counter[tuple[str, str, int]] = Counter()
        for (public, _, number), row in sums.rows.items():
            for direction, value in enumerate(row):
                address = ".".join(map(str, public))
                found[address, {6: "Tcp", 17: "Udp"}[number], direction] += value
        return +found

    def teardown(self) -> None:
        *slices, sums = self.engine.flows.traffic.walk(self.engine.flows, SLOTS)
        assert slices == [None] * len(slices)
        assert sums is not None
        assert self._read(sums) == +self.tally
        syns: Counter[tuple[str, int]] = Counter()
        for (public, _, _), row in self.engine.flows.traffic.syns.items():
            for direction, value in enumerate(row):
                syns[".".join(map(str, public)), direction] += value
        assert +syns == +self.syns
        assert sum(sums.flows.values()) == len(self.engine.flows)


Accounts.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAccounts = Accounts.TestCase
