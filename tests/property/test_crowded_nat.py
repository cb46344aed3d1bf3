"""A NAT gateway of few ports, crowded: every port is held toward its destination as long as A4 says.

The model knows nothing of the engine's state: it watches the packets and the clock, and keeps for
each public port and destination until when no other flow may have it. What the engine refuses it
must refuse for want of a port, and may only when all ports are held toward that destination.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from scapy.layers.inet import IP, TCP, UDP

from gateway.core.engine import Engine
from gateway.core.ingress import IngressPath
from gateway.model.profile import AZURE_CURRENT, PROFILES
from tests.scenario import configuration

PORTS, IDLE = 3, 240.0
HALF_OPEN, AFTER_FINS, AFTER_RST, AFTER_UDP = 30.0, 65.0, 16.0, 65.0
TICK = 0.25  # a timer may be this late, and is never early
VMS, REMOTES = ("10.0.1.4", "10.0.1.5", "10.0.1.200"), ("198.51.100.1", "198.51.100.2")
NAT_TERMS = AZURE_CURRENT.nat_gateway
assert NAT_TERMS is not None
FEW = replace(
    AZURE_CURRENT, nat_gateway=replace(NAT_TERMS, first_port=1024, last_port=1023 + PORTS)
)
CONFIGURATION = configuration("""
gateway: {inside: [lan0], outside: wan0, profile: azure-current}
virtualNetwork: {addressPrefixes: [10.0.0.0/16], subnets: [{name: s, addressPrefix: 10.0.1.0/24}]}
publicIPAddresses: [{name: n, ipAddress: 203.0.113.40}]
virtualMachines: [{name: vm1, privateIPAddress: 10.0.1.4}, {name: vm2, privateIPAddress: 10.0.1.5}]
natGateways: [{name: nat, publicIPAddresses: [n], subnets: [s]}]
""")

vms, remotes, sports = st.sampled_from(VMS), st.sampled_from(REMOTES), st.integers(1, 4)
Conversation = tuple[bool, str, int, str]  # TCP, VM, its port, remote


@dataclass
class Watched:
    """A conversation as its packets tell."""

    port: int
    seen: float
    answered: bool = False
    fins: frozenset[str] = frozenset()
    reset: bool = False

    def until(self, tcp: bool) -> float:
        """When its port is free again toward its destination."""
        if not tcp:
            return self.seen + IDLE + AFTER_UDP
        if self.reset:
            return self.seen + AFTER_RST
        if len(self.fins) == 2:
            return self.seen + AFTER_FINS
        return self.seen + (IDLE if self.answered else HALF_OPEN)

    def alive(self, tcp: bool, now: float) -> bool:
        """Whether its packets pass."""
        return now < (self.seen + IDLE if not tcp else self.until(tcp))


class CrowdedNatGateway(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        with patch.dict(PROFILES, {FEW.name: FEW}):
            self.engine = Engine(CONFIGURATION, seed=7)
        self.now = 0.0
        self.talks: dict[Conversation, Watched] = {}
        self.held: list[tuple[bool, str, Watched]] = []  # also those that another took the place of

    def _toward(self, tcp: bool, remote: str) -> dict[int, float]:
        """Ports held toward a destination, and until when."""
        found: dict[int, float] = {}
        for is_tcp, to, talk in self.held:
            if (is_tcp, to) == (tcp, remote) and talk.until(tcp) > self.now:
                found[talk.port] = max(found.get(talk.port, 0.0), talk.until(tcp))
        return found

    def _send(self, talk: Conversation, flags: str) -> bytes | None:
        tcp, vm, sport, remote = talk
        layer = TCP(sport=sport, dport=443, flags=flags) if tcp else UDP(sport=sport, dport=443)
        return self.engine.handle(
            bytes(IP(src=vm, dst=remote) / layer), IngressPath.OUTBOUND, self.now
        )

    def _answer(self, talk: Conversation, port: int, flags: str) -> bytes | None:
        tcp, _, _, remote = talk
        layer = TCP(sport=443, dport=port, flags=flags) if tcp else UDP(sport=443, dport=port)
        packet = bytes(IP(src=remote, dst="203.0.113.40") / layer)
        return self.engine.handle(packet, IngressPath.INBOUND, self.now)

    @rule(tcp=st.booleans(), vm=vms, sport=sports, remote=remotes)
    def opens(self, tcp: bool, vm: str, sport: int, remote: str) -> None:
        key = (tcp, vm, sport, remote)
        known = self.talks.get(key)
        if known is not None and known.alive(tcp, self.now) and not (known.reset or known.fins):
            return
        held = self._toward(tcp, remote)
        verdict = self._send(key, "S")
        if verdict is None:
            assert len(held) == PORTS
            self.talks.pop(key, None)  # who sends a SYN has done with the connection before
            return
        port = IP(verdict).sport
        assert held.get(port, 0.0) <= self.now
        talk = self.talks[key] = Watched(port, self.now)
        self.held.append((tcp, remote, talk))

    @rule(chosen=st.integers(0, 100), flags=st.sampled_from(["A", "FA", "R"]), out=st.booleans())
    def goes_on(self, chosen: int, flags: str, out: bool) -> None:
        alive = [(k, t) for k, t in self.talks.items() if t.alive(k[0], self.now)]
        if not alive:
            return
        self._goes_on(*alive[chosen % len(alive)], flags, out=out)

    @rule(chosen=st.integers(0, 100))
    def closes(self, chosen: int) -> None:
        alive = [(k, t) for k, t in self.talks.items() if k[0] and t.alive(True, self.now)]
        if alive:
            for out in (True, False):
                self._goes_on(*alive[chosen % len(alive)], "FA", out=out)

    def _goes_on(self, key: Conversation, talk: Watched, flags: str, *, out: bool) -> None:
        verdict = self._send(key, flags) if out else self._answer(key, talk.port, flags)
        assert verdict is not None
        assert IP(verdict).sport == talk.port if out else IP(verdict).dport == key[2]
        if not talk.reset:
            talk.seen = self.now
        if key[0] and flags == "R":
            talk.reset = True
        elif key[0] and flags == "FA" and not talk.reset:
            talk.fins |= {"vm" if out else "remote"}
        talk.answered = talk.answered or not out or bool(talk.fins)

    @rule(seconds=st.sampled_from([0.5, 3, 10, 15, 17, 31, 60, 66, 175, 241]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        while self.engine.expire(self.now, 5):
            pass
        # A timer's grain: what is due just now may be late, so that nothing is asked at that time.
        for _, _, talk in self.held:
            for tcp in (True, False):
                for due in (talk.until(tcp), talk.seen + IDLE):
                    if due <= self.now < due + TICK:
                        self.now = due + TICK
        while self.engine.expire(self.now, 5):
            pass
        self.held = [h for h in self.held if h[2].until(h[0]) > self.now]
        self.talks = {k: t for k, t in self.talks.items() if t.until(k[0]) > self.now}

    @invariant()
    def the_inventory_is_what_the_packets_say(self) -> None:
        public = self.engine.outbound.addresses[IPv4Address("203.0.113.40").packed]
        for number, tcp in ((6, True), (17, False)):
            taken = {p for remote in REMOTES for p in self._toward(tcp, remote)}
            assert public.shared[number].free == PORTS - len(taken)
            used = sum(
                share.pools[number].used for share in public.current if number in share.pools
            )
            assert used == sum(len(self._toward(tcp, remote)) for remote in REMOTES)


CrowdedNatGateway.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestCrowdedNatGateway = CrowdedNatGateway.TestCase
