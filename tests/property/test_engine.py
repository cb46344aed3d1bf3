"""Invariants of the engine over random packets, replies, times and reloads.

The schedule is hypothesis's: in either profile, VMs with every method send TCP, UDP, echo and GRE
to a few remotes, replies and errors come back, time passes, pools grow and shrink, NAT gateways
come and go. After every step the
invariants of the issue must hold; after everything expired, no port may be missing or held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import islice, pairwise
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw

from gateway.core.engine import Engine
from gateway.core.flows.flow import Flow
from gateway.core.inbound.listeners import Target
from gateway.core.inbound.load_balancer import INBOUND_RULES
from gateway.core.ingress import IngressPath
from gateway.core.packet.view import PacketView
from gateway.core.persistence.flow_record import pack, unpack
from gateway.core.persistence.restore import resume_flow, resume_state
from gateway.core.persistence.snapshot import save
from gateway.core.reload import flow_eviction
from gateway.core.reload.resolved import resolve
from gateway.core.snat.port_pool import PortPool
from gateway.model.configuration import Configuration
from gateway.model.profile import AZURE_CURRENT, PROFILES, Method
from tests.scenario import configuration, wrong_checksums

MACHINES = {
    "10.0.1.4": "default",
    "10.0.1.5": "balanced",
    "10.0.1.6": "instance",
    "10.0.1.99": "stranger",
}
REMOTES = ["198.51.100.1", "198.51.100.2", "192.0.2.7"]
PUBLIC = ["203.0.113.10", "203.0.113.20", "203.0.113.21", "203.0.113.30", "203.0.113.40"]


def yaml(pool_size: int, *, frontend_port: int = 80) -> str:
    """A pool of one or of many (over tiers: 1,024, 512 and 64 ports each), two frontends."""
    extra = "".join(
        f"  - {{name: e{n}, privateIPAddress: 10.0.{4 + n // 200}.{10 + n % 200}}}\n"
        for n in range(pool_size - 1)
    )
    members = ", ".join(["vm2", *(f"e{n}" for n in range(pool_size - 1))])
    rule_text = (
        "      - {{name: r{0}, frontendIPConfiguration: fe{0}, backendAddressPool: pool, probe: p,\n"
        "         protocol: Tcp, frontendPort: {1}, backendPort: {2}}}\n"
        "      - {{name: u{0}, frontendIPConfiguration: fe{0}, backendAddressPool: pool, probe: p,\n"
        "         protocol: Udp, frontendPort: {1}, backendPort: {2}}}\n"
    )
    return f"""
gateway: {{inside: [lan0], outside: wan0, icmpEcho: translate, maximumFlows: 300}}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{{name: web, addressPrefix: 10.0.0.0/16}}]
publicIPAddresses:
  - {{name: d, ipAddress: 203.0.113.10}}
  - {{name: a, ipAddress: 203.0.113.20}}
  - {{name: b, ipAddress: 203.0.113.21}}
  - {{name: i, ipAddress: 203.0.113.30}}
defaultOutboundAccess: {{publicIPAddresses: [d]}}
virtualMachines:
  - {{name: vm1, privateIPAddress: 10.0.1.4}}
  - {{name: vm2, privateIPAddress: 10.0.1.5}}
  - {{name: vm3, privateIPAddress: 10.0.1.6, publicIPAddress: i}}
{extra}loadBalancers:
  - name: lb
    sku: Basic
    frontendIPConfigurations: [{{name: fe1, publicIPAddress: a}}, {{name: fe2, publicIPAddress: b}}]
    backendAddressPools: [{{name: pool, virtualMachines: [{members}]}}]
    probes: [{{name: p, protocol: Tcp, port: 80}}]
    inboundNatRules:
      - {{name: n, frontendIPConfiguration: fe1, protocol: Tcp, frontendPort: {frontend_port + 1}, virtualMachine: vm2, backendPort: 2}}
    loadBalancingRules:
{rule_text.format(1, frontend_port, 80)}{rule_text.format(2, 80, 8080)}"""


CONFIGURATIONS = {
    (size, port): configuration(yaml(size, frontend_port=port))
    for size, port in ((1, 80), (60, 80), (500, 80), (1, 1026))
}


def current(ways: str) -> str:
    """The same VMs in azure-current; ``ways`` is what the load balancer and NAT gateway have."""
    return f"""
gateway:
  {{inside: [lan0], outside: wan0, profile: azure-current, icmpEcho: translate, maximumFlows: 300}}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {{name: web, addressPrefix: 10.0.1.0/24, defaultOutboundAccess: true}}
    - {{name: rest, addressPrefix: 10.0.2.0/24}}
publicIPAddresses:
  - {{name: d, ipAddress: 203.0.113.10}}
  - {{name: a, ipAddress: 203.0.113.20}}
  - {{name: b, ipAddress: 203.0.113.21}}
  - {{name: i, ipAddress: 203.0.113.30}}
  - {{name: n, ipAddress: 203.0.113.40}}
defaultOutboundAccess: {{publicIPAddresses: [d]}}
virtualMachines:
  - {{name: vm1, privateIPAddress: 10.0.1.4}}
  - {{name: vm2, privateIPAddress: 10.0.1.5}}
  - {{name: vm3, privateIPAddress: 10.0.1.6, publicIPAddress: i}}
{ways}"""


_BALANCER = """loadBalancers:
  - name: lb
    sku: Standard
    frontendIPConfigurations: [{name: fe1, publicIPAddress: a}%s]
    backendAddressPools: [{name: pool, virtualMachines: [vm2, vm3]}]
    loadBalancingRules:
      - {name: r, frontendIPConfiguration: fe1, backendAddressPool: pool, protocol: Tcp, frontendPort: 1026, backendPort: 80%s}
"""
_SECOND, _OFF = ", {name: fe2, publicIPAddress: b}", ", disableOutboundSnat: true"
_RULE = "      - {name: %s, frontendIPConfigurations: [%s], backendAddressPool: pool, protocol: %s, allocatedOutboundPorts: %s, enableTcpReset: true}\n"
_NAT = "natGateways: [{name: nat, publicIPAddresses: [%s], subnets: [%s]}]\n"
_BOTH = _BALANCER % (_SECOND, _OFF) + "    outboundRules:\n"
CURRENT = {
    name: configuration(current(ways))
    for name, ways in {
        "linked": _BALANCER % (_SECOND, ""),
        "rule": _BOTH + _RULE % ("all", "fe1, fe2", "All", 8),
        "rules": _BOTH + _RULE % ("t", "fe1, fe2", "Tcp", 8) + _RULE % ("u", "fe2", "Udp", 16),
        "much": _BOTH + _RULE % ("all", "fe1, fe2", "All", 60000),
        "nat": _BOTH + _RULE % ("all", "fe1", "All", 8) + _NAT % ("n", "web"),
        "nat of two": _BALANCER % ("", "") + _NAT % ("n, b", "web"),  # b was a frontend
        "nat elsewhere": _BALANCER % (_SECOND, "") + _NAT % ("n", "rest"),
    }.items()
}
# Few ports, so that they run out and are used again.
NAT_TERMS = AZURE_CURRENT.nat_gateway
assert NAT_TERMS is not None
CROWDED = replace(AZURE_CURRENT, nat_gateway=replace(NAT_TERMS, first_port=1024, last_port=1030))

machines = st.sampled_from(list(MACHINES))
remotes = st.sampled_from(REMOTES)
ports = st.integers(1, 6)
payloads = st.binary(max_size=9)
flags = st.sampled_from(["S", "S", "S", "A", "PA", "FA", "R", "RA", "SA"])


class GatewayUnderLoad(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.configurations: list[Configuration] = list(CONFIGURATIONS.values())
        self.engine = Engine(self.configurations[0], seed=3)
        self.now = 0.0
        self.reloading: Iterator[None] | None = None
        self.sent: dict[bytes, bytes] = {}  # what the wire saw -> what the VM sent

    @initialize(now=st.booleans(), first=st.integers(0, 6))
    def profile(self, now: bool, first: int) -> None:
        """One of the two profiles, for the engine's life."""
        if now:
            self.configurations = list(CURRENT.values())
            with patch.dict(PROFILES, {CROWDED.name: CROWDED}):
                self.engine = Engine(self.configurations[first], seed=3)

    # -- what happens

    def _send(self, packet: bytes) -> None:
        destination = ".".join(map(str, packet[16:20]))
        arrival = IngressPath.HAIRPIN if destination in PUBLIC else IngressPath.OUTBOUND
        verdict = self.engine.handle(packet, arrival, self.now)
        if verdict is None:
            return
        assert not wrong_checksums(verdict)
        assert len(verdict) == len(packet)
        if arrival is IngressPath.OUTBOUND:
            assert IP(verdict).src in PUBLIC
            assert IP(verdict).dst == destination
            self._reply_comes_back(packet, verdict)

    def _reply_comes_back(self, packet: bytes, verdict: bytes) -> None:
        """The exact mirror of what left must reach the exact mirror of what the VM sent."""
        own, seen = IP(packet), IP(verdict)
        if own.proto == 6:
            answer: Any = TCP(sport=seen.dport, dport=seen.sport, flags="A")
        elif own.proto == 17:
            answer = UDP(sport=seen.dport, dport=seen.sport)
        elif own.proto == 1:
            answer = ICMP(type=0, id=seen[ICMP].id, seq=3)
        else:
            answer = Raw(b"x" * 12)
        reply = bytes(IP(src=seen.dst, dst=seen.src, proto=own.proto) / answer / Raw(b"odd"))
        delivered = self.engine.handle(reply, IngressPath.INBOUND, self.now)
        assert delivered is not None
        assert not wrong_checksums(delivered)
        back = IP(delivered)
        assert (back.src, back.dst) == (own.dst, own.src)
        if own.proto in (6, 17):
            assert (back.sport, back.dport) == (own.dport, own.sport)
        elif own.proto == 1:
            assert back[ICMP].id == own[ICMP].id

    @rule(vm=machines, to=remotes, sport=ports, dport=ports, flag=flags, data=payloads)
    def tcp(self, vm: str, to: str, sport: int, dport: int, flag: str, data: bytes) -> None:
        header = TCP(sport=sport, dport=dport, flags=flag)
        self._send(bytes(IP(src=vm, dst=to) / header / Raw(data)))

    @rule(vm=machines, to=remotes, sport=ports, dport=ports, data=payloads, summed=st.booleans())
    def udp(self, vm: str, to: str, sport: int, dport: int, data: bytes, summed: bool) -> None:
        header = (
            UDP(sport=sport, dport=dport) if summed else UDP(sport=sport, dport=dport, chksum=0)
        )
        self._send(bytes(IP(src=vm, dst=to) / header / Raw(data)))

    @rule(vm=machines, to=remotes, identifier=st.integers(0, 4), data=payloads)
    def echo(self, vm: str, to: str, identifier: int, data: bytes) -> None:
        self._send(bytes(IP(src=vm, dst=to) / ICMP(id=identifier, seq=1) / Raw(data)))

    @rule(vm=machines, to=remotes)
    def gre(self, vm: str, to: str) -> None:
        self._send(bytes(IP(src=vm, dst=to, proto=47) / Raw(b"\0" * 16)))

    @rule(vm=machines, to=st.sampled_from(PUBLIC), sport=ports, dport=st.integers(1024, 1027))
    def hairpin(self, vm: str, to: str, sport: int, dport: int) -> None:
        self._send(bytes(IP(src=vm, dst=to) / UDP(sport=sport, dport=dport)))

    @rule(
        src=remotes,
        dst=st.sampled_from(PUBLIC),
        sport=ports,
        dport=st.sampled_from([80, 81, *range(1020, 1030)]),
        flag=flags,
        udp=st.booleans(),
    )
    def from_outside(
        self, src: str, dst: str, sport: int, dport: int, flag: str, udp: bool
    ) -> None:
        layer = UDP(sport=sport, dport=dport) if udp else TCP(sport=sport, dport=dport, flags=flag)
        packet = bytes(IP(src=src, dst=dst) / layer)
        verdict = self.engine.handle(packet, IngressPath.INBOUND, self.now)
        if verdict is None:
            return
        assert not wrong_checksums(verdict)
        view = PacketView.parse(packet)
        assert view is not None
        flow = self.engine.flows.replies(view.protocol)[view.key]
        assert verdict[16:20] == flow.machine.address
        if self.engine.flows.originals(view.protocol).get(flow.original) is flow:
            self._answer_comes_from_there(packet, verdict)

    def _answer_comes_from_there(self, packet: bytes, delivered: bytes) -> None:
        """What answers a delivered packet leaves as the mirror of what came: nothing is mixed."""
        came, got = IP(packet), IP(delivered)
        layer = (
            UDP(sport=got.dport, dport=got.sport)
            if got.proto == 17
            else TCP(sport=got.dport, dport=got.sport, flags="A")
        )
        answer = bytes(IP(src=got.dst, dst=got.src) / layer)
        verdict = self.engine.handle(answer, IngressPath.OUTBOUND, self.now)
        assert verdict is not None
        seen = IP(verdict)
        assert (seen.src, seen.sport, seen.dst, seen.dport) == (
            came.dst,
            came.dport,
            came.src,
            came.sport,
        )

    @rule(vm=st.sampled_from(["vm2", "e0"]), up=st.booleans())
    def health(self, vm: str, up: bool) -> None:
        """A backend goes down or comes up; UDP never stays with one that is down."""
        engine = self.engine
        if Target("lb", "p", vm) not in engine.balancer.targets():
            return
        if engine.health.report(Target("lb", "p", vm), up, self.now):
            for _ in engine.health.settle():
                pass
        for flow in engine.flows:
            if flow.method is Method.LOAD_BALANCING_RULE and flow.protocol == 17:
                listener = engine.balancer.match(17, flow.reply)
                assert listener is not None
                assert listener.takes(flow.machine)

    @rule(index=st.integers(0, 400), kind=st.sampled_from([3, 11, 12]), short=st.booleans())
    @precondition(lambda self: len(self.engine.flows) > 0)
    def error_about_a_flow(self, index: int, kind: int, short: bool) -> None:
        flows = [flow for flow in self.engine.flows if not flow.awaiting_removal]
        if not flows:
            return
        flow: Flow = flows[index % len(flows)]
        if self.engine.flows.replies(flow.protocol).get(flow.reply) is not flow:
            return
        src, dst = str(IPv4Address(flow.reply[4:8])), str(IPv4Address(flow.reply[0:4]))
        if flow.protocol not in (6, 17):
            return
        sport = int.from_bytes(flow.reply[10:12], "big")
        dport = int.from_bytes(flow.reply[8:10], "big")
        layer = TCP if flow.protocol == 6 else UDP
        quoted = bytes(IP(src=src, dst=dst) / layer(sport=sport, dport=dport) / Raw(b"data"))
        if short:
            quoted = quoted[:28]
        packet = bytes(IP(src="192.0.2.99", dst=src) / ICMP(type=kind) / Raw(quoted))
        verdict = self.engine.handle(packet, IngressPath.INBOUND, self.now)
        assert verdict is not None
        assert not wrong_checksums(verdict)
        outer = IP(verdict)
        inner = IP(bytes(outer[ICMP].payload))
        assert outer.dst == inner.src == ".".join(map(str, flow.original[0:4]))

    @rule(
        packet=st.binary(max_size=80),
        arrival=st.sampled_from(list(IngressPath)),
        header=st.booleans(),
    )
    def noise(self, packet: bytes, arrival: IngressPath, header: bool) -> None:
        """Nothing raises, whatever arrives; with a plausible start, deeper code is reached."""
        if header:
            start = bytes(IP(src="10.0.1.6", dst="198.51.100.1", len=len(packet) + 12))[:10]
            packet = start[:9] + packet
        self.engine.handle(packet, arrival, self.now)

    @rule(seconds=st.sampled_from([0.1, 1, 14.9, 15.3, 60, 239, 241]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        while self.engine.expire(self.now, 7):
            pass

    @precondition(lambda self: self.reloading is None)
    @rule(chosen=st.integers(0, 27))
    def reload_begins(self, chosen: int) -> None:
        """In slices: whatever else happens may happen in between."""
        resolved = resolve(self.configurations[chosen % len(self.configurations)])
        self.reloading = self.engine.reconfiguring(resolved, lambda: self.now)

    @precondition(lambda self: self.reloading is not None)
    @rule(steps=st.integers(1, 40))
    def reload_goes_on(self, steps: int) -> None:
        assert self.reloading is not None
        with patch.object(flow_eviction, "SLICE", 4), patch.object(flow_eviction, "LAST", 1):
            if len(list(islice(self.reloading, steps))) < steps:
                self.reloading = None
                for _ in self.engine.health.settle():
                    pass

    @precondition(lambda self: self.reloading is None)
    @rule(chosen=st.integers(0, 27))
    def reload(self, chosen: int) -> None:
        configurations = self.configurations
        self.engine.reconfigure(configurations[chosen % len(configurations)], self.now)
        for _ in self.engine.health.settle():
            pass

    @rule()
    def restart(self) -> None:
        """Another engine goes on from what is written down, and nobody can tell."""
        self.reloading = None
        before = self.engine
        with patch.dict(PROFILES, {before.profile.name: before.profile}):
            after = Engine(before.configuration, seed=3, now=self.now)
        (state,) = (state for state in save(before) if state is not None)
        resume_state(after, state)
        records = {
            flow.slot: pack(flow, before.flows, lambda flow: (0, 0, 0, 0)) for flow in before.flows
        }
        for slot in sorted(records):
            saved = unpack(records[slot])
            assert saved is not None
            assert resume_flow(after, slot, saved, lambda flow, seen: False, self.now) is not None
        now = self.now
        assert [*after.flow_records(lambda: now, 1000)] == [*before.flow_records(lambda: now, 1000)]
        told, telling = listed_ports(after, now), listed_ports(before, now)
        assert [row[:2] for row in told] == [row[:2] for row in telling]
        alone = {row[0]: row[2] for row in telling if row[2] is not None}
        assert {row[0]: row[2] for row in told if row[0] in alone} == alone
        assert after.balancer.targets() == before.balancer.targets()
        assert after.flows.reclaimed.keys() == before.flows.reclaimed.keys()
        self.engine = after

    # -- what must hold

    @invariant()
    def no_two_flows_share_a_public_tuple(self) -> None:
        live = [flow for flow in self.engine.flows if not flow.awaiting_removal]
        tuples = {(flow.protocol, flow.reply) for flow in live}
        assert len(tuples) == len(live)
        table = self.engine.flows
        for flow in live:
            if flow.protocol == 17 and flow.state_name == "CoolDown":
                continue  # it only holds its port
            assert table.replies(flow.protocol)[flow.reply] is flow
            if flow.pool is None:  # a SNAT flow may only hold its port, and another be the VM's
                assert table.originals(flow.protocol)[flow.original] is flow
            if flow.method in INBOUND_RULES:
                public = self.engine.outbound.addresses[flow.reply[4:8]]
                assert int.from_bytes(flow.reply[10:12], "big") in public.frontend_ports

    @invariant()
    def a_port_is_held_exactly_by_its_flows(self) -> None:
        held: dict[int, int] = {}
        cooling: dict[int, int] = {}
        for flow in self.engine.flows:
            if flow.pool is not None:
                held[id(flow.pool)] = held.get(id(flow.pool), 0) + 1
                cooling[id(flow.pool)] = cooling.get(id(flow.pool), 0) + (
                    flow.state_name == "CoolDown"
                )
                if isinstance(flow.pool, PortPool):
                    assert flow.pool.index(flow.snat_port) >= 0
        for public in self.engine.outbound.addresses.values():
            shares: dict[int, int] = {}
            for allocation in (*public.current, *public.retired):
                for number, pool in allocation.pools.items():
                    shares[number] = shares.get(number, 0) + pool.held
            for number, shared in public.shared.items():
                assert shared.held == shares.get(number, 0)
            for allocation in (*public.current, *public.retired):
                for pool in allocation.pools.values():
                    assert pool.held == held.get(id(pool), 0)
                    assert pool.cooling == cooling.get(id(pool), 0)

    @invariant()
    def allocations_never_overlap(self) -> None:
        for public in self.engine.outbound.addresses.values():
            reserved = {port // 8 for port in public.frontend_ports}
            for protocol, inventory in public.port_ranges.items():
                everyone = (*public.allocations, *public.retired)
                ranges = [r for a in everyone if a.protocol == protocol for r in a.ranges]
                dealt = sorted(ranges, key=lambda r: r.start)
                for before, after in pairwise(dealt):
                    assert before.stop <= after.start
                for ports_ in dealt:
                    assert reserved.isdisjoint({ports_.start // 8, (ports_.stop - 1) // 8})
                assert inventory.free + sum(map(len, dealt)) == inventory.capacity

    @invariant()
    def the_table_is_bounded(self) -> None:
        assert len(self.engine.flows) <= 300

    def teardown(self) -> None:
        """After everything expired nothing is left: no flow, no held port, no timer."""
        for _ in self.reloading or ():
            pass
        self.now += 100_000
        while self.engine.expire(self.now):
            pass
        assert len(self.engine.flows) == 0
        engine = self.engine
        for records in (
            engine.flows.tcp_original,
            engine.flows.tcp_reply,
            engine.flows.udp_original,
            engine.flows.udp_reply,
            engine.flows.other_original,
            engine.flows.other_reply,
            *vars(engine.flows.lateral).values(),
            engine.flows.reclaimed,
            engine.lifecycle.allocator._endpoints,
            engine.lifecycle.expiry._buckets,
        ):
            assert not records
        assert all(not machine.flows for machine in engine.outbound.machines.values())
        for record in engine.port_records(self.now):
            if record is not None:
                assert (record.used, record.cooling, record.destinations) == (0, 0, ())


def listed_ports(engine: Engine, now: float) -> list[tuple[Any, ...]]:
    """Every pool that has, or had, something to tell.

    Of a VM's shares of one public IP, the one that its NAT gateway gives it and those that are left
    from before that was attached again, only what they hold together: a restart makes them one.
    """
    rows: dict[tuple[str, str, str], list[Any]] = {}
    for record in engine.port_records(now):
        if record is not None:
            rows.setdefault((record.vm, record.public_ip, record.protocol), []).append(record)
    listed = []
    for key, records in rows.items():
        held = sum(r.used for r in records), sum(r.cooling for r in records)
        first = records[0]
        own = (first.allocated, first.high_water, first.failed, first.ranges)
        listed.append((key, held, own if len(records) == 1 else None))
    return sorted(listed, key=str)


GatewayUnderLoad.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestGatewayUnderLoad = GatewayUnderLoad.TestCase


@given(st.binary(max_size=200), st.sampled_from(list(IngressPath)))
@settings(max_examples=500, deadline=None)
def test_no_input_raises(packet: bytes, arrival: IngressPath) -> None:
    engine = Engine(CONFIGURATIONS[1, 80], seed=1)
    verdict = engine.handle(packet, arrival, 0.0)
    assert verdict is None or len(verdict) == len(packet)


@given(
    st.binary(min_size=20, max_size=60),
    st.sampled_from([1, 6, 17, 47, 136]),
    st.integers(5, 15),
    st.sampled_from(list(IngressPath)),
)
@settings(max_examples=1000, deadline=None)
def test_no_plausible_header_raises(
    body: bytes, protocol: int, words: int, arrival: IngressPath
) -> None:
    total = 20 + len(body)
    packet = (
        bytes((0x40 | words, 0))
        + total.to_bytes(2, "big")
        + b"\0\0\0\0\x40"
        + bytes((protocol,))
        + b"\0\0"
        + bytes((10, 0, 1, 6))
        + bytes((198, 51, 100, 1))
        + body
    )
    engine = Engine(CONFIGURATIONS[1, 80], seed=1)
    verdict = engine.handle(packet, arrival, 0.0)
    assert verdict is None or len(verdict) == len(packet)
