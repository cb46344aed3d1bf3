"""What ``explain`` foresees of any packet is what the engine then does with that very packet.

Packets come by every way in: openings, answers to what left, repetitions, ends, ICMP queries and
errors, fragments, other protocols, between VMs, from outside, by hairpin and from this host. They
meet live, closing and ended flows, exhausted ports and a full flow table. A dry run says the
verdict beforehand, byte by byte, and changes nothing that anybody can see.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from gateway.core.engine import Engine
from gateway.core.explain import explain_inbound, explain_outbound, foresee
from gateway.core.ingress import IngressPath
from gateway.core.packet.view import completed
from gateway.model.profile import AZURE_CURRENT, PROFILES
from gateway.schema.drop_reasons import DropReason
from tests.scenario import configuration

TCP, UDP, ICMP, GRE = 6, 17, 1, 47
SYN, SYN_ACK, ACK, FIN_ACK, RST = 0x02, 0x12, 0x10, 0x11, 0x04
NAT_TERMS = AZURE_CURRENT.nat_gateway
assert NAT_TERMS is not None
FEW = replace(AZURE_CURRENT, nat_gateway=replace(NAT_TERMS, first_port=1024, last_port=1026))

COMMON = """
gateway: {inside: [lan0, lan1], outside: wan0, profile: %s, icmpEcho: %s, maximumFlows: %d}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {name: a, addressPrefix: 10.0.1.0/24%s}
    - {name: b, addressPrefix: 10.0.2.0/24}
    - {name: c, addressPrefix: 10.0.3.0/24}
publicIPAddresses:
  - {name: d, ipAddress: 203.0.113.10}
  - {name: f, ipAddress: 203.0.113.20}
  - {name: g, ipAddress: 203.0.113.21}
  - {name: o, ipAddress: 203.0.113.30}
networkSecurityGroups:
  - name: judge
    securityRules:
      - {name: no-smtp, priority: 100, direction: Outbound, access: Deny, protocol: Tcp,
         sourceAddressPrefix: "*", sourcePortRange: "*", destinationAddressPrefix: "*",
         destinationPortRange: "25"}
      - {name: web, priority: 100, direction: Inbound, access: Allow, protocol: "*",
         sourceAddressPrefix: Internet, sourcePortRange: "*", destinationAddressPrefix: "*",
         destinationPortRange: "1024"}
      - {name: no-dns, priority: 110, direction: Inbound, access: Deny, protocol: Udp,
         sourceAddressPrefix: VirtualNetwork, sourcePortRange: "*",
         destinationAddressPrefix: "*", destinationPortRange: "53"}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.1.5}
  - {name: vm3, privateIPAddress: 10.0.1.6, publicIPAddress: o}
  - {name: vm4, privateIPAddress: 10.0.2.4, networkSecurityGroup: judge}
  - {name: vm5, privateIPAddress: 10.0.3.4}
loadBalancers:
  - name: lb
    sku: %s
    frontendIPConfigurations:
      - {name: ff, publicIPAddress: f}
      - {name: fg, publicIPAddress: g}
    backendAddressPools: [{name: pool, virtualMachines: [vm2, vm4]}]
    probes: [{name: p, protocol: Tcp, port: 80, intervalInSeconds: 15, probeThreshold: 2}]
    loadBalancingRules:
      - {name: web, frontendIPConfiguration: ff, backendAddressPool: pool, protocol: Tcp,
         frontendPort: 80, backendPort: 1024, probe: p%s}
      - {name: dns, frontendIPConfiguration: fg, backendAddressPool: pool, protocol: Udp,
         frontendPort: 53, backendPort: 1024%s}
    inboundNatRules:
      - {name: one, frontendIPConfiguration: ff, protocol: Udp, frontendPort: 50001,
         virtualMachine: vm2, backendPort: 1025}
"""
CURRENT = """
    outboundRules:
      - {name: out, frontendIPConfigurations: [ff, fg], backendAddressPool: pool, protocol: All,
         allocatedOutboundPorts: 8, idleTimeoutInMinutes: 4, enableTcpReset: true}
natGateways: [{name: nat, publicIPAddresses: [d], subnets: [c]}]
"""


def text(*, current: bool, groups: bool, echo: bool, flows: int) -> str:
    """A configuration with all that a packet can meet."""
    shown = "translate" if echo else "drop"
    group = ", networkSecurityGroup: judge" if groups else ""
    if current:
        off = ", disableOutboundSnat: true"
        values = "azure-current", shown, flows, group, "Standard", off, off
        return COMMON % values + CURRENT
    rest = "defaultOutboundAccess: {publicIPAddresses: [d]}\n"
    return COMMON % ("azure-2017", shown, flows, group, "Basic", "", "") + rest


CONFIGURATIONS = {
    (current, groups, flows): configuration(
        text(current=current, groups=groups, echo=groups, flows=flows)
    )
    for current in (False, True)
    for groups in (False, True)
    for flows in (1000, 6)
}
VMS = [f"10.0.{last}" for last in ("1.4", "1.5", "1.6", "2.4", "3.4", "1.99", "3.99")]
PUBLIC = ["203.0.113.10", "203.0.113.20", "203.0.113.21", "203.0.113.30"]
REMOTES = ["198.51.100.1", "198.51.100.2"]
ODD = ["10.0.9.9", "192.168.50.7", "168.63.129.16", "203.0.113.1", "10.0.1.255"]

vms, remotes, publics = st.sampled_from(VMS), st.sampled_from(REMOTES), st.sampled_from(PUBLIC)
anybody = st.sampled_from([*VMS, *PUBLIC, *REMOTES, *ODD])
ports = st.sampled_from([25, 53, 80, 1024, 1025, 1026, 2048, 40000, 50001])
flags = st.sampled_from([SYN, SYN, SYN_ACK, ACK, FIN_ACK, RST, 0x14, 0])
numbers = st.sampled_from([0, 1, 7, 8, 1000, 1001, 1 << 31, 0xFFFFFFFF])
ingresses = st.sampled_from(list(IngressPath))
protocols = st.sampled_from([TCP, TCP, TCP, UDP, UDP, ICMP, GRE])


def summed(data: bytes, at: int) -> bytes:
    """``data`` with its checksum at ``at``."""
    even = data + bytes(len(data) & 1)
    total = -int.from_bytes(even, "big") % 0xFFFF
    return data[:at] + (total or 0xFFFF).to_bytes(2, "big") + data[at + 2 :]


def packet(source: str, to: str, protocol: int, payload: bytes, fragment: int = 0) -> bytes:
    """An IPv4 packet with right checksums."""
    head = b"\x45\0" + (20 + len(payload)).to_bytes(2, "big") + b"\0\1"
    head += fragment.to_bytes(2, "big") + bytes((64, protocol)) + bytes(2)
    head += IPv4Address(source).packed + IPv4Address(to).packed
    whole = summed(head, 10) + payload
    return completed(whole) if protocol in (TCP, UDP) else whole


def transport(
    protocol: int, sport: int, dport: int, flag: int, number: int, acknowledged: int
) -> bytes:
    """What follows the IP header; of ICMP a query (or a reply, by ``flag``)."""
    both = sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    if protocol == TCP:
        numbers = number.to_bytes(4, "big") + acknowledged.to_bytes(4, "big")
        return both + numbers + bytes((0x50, flag)) + b"\x20\0" + bytes(4)
    if protocol == UDP:
        return both + (8).to_bytes(2, "big") + bytes(2)
    if protocol == ICMP:
        kind = {SYN: 8, SYN_ACK: 0, ACK: 13, RST: 5}.get(flag, 8)
        return summed(bytes((kind, 0, 0, 0)) + both[:2] + bytes(2), 2)
    return bytes(12)


def answer(seen: bytes, flag: int, number: int, acknowledged: int) -> bytes:
    """What the receiver of a packet says to it."""
    protocol = seen[9]
    ends = str(IPv4Address(seen[16:20])), str(IPv4Address(seen[12:16]))
    sport = int.from_bytes(seen[22:24], "big")
    dport = int.from_bytes(seen[20:22], "big")
    if protocol == ICMP:
        sport, flag = int.from_bytes(seen[24:26], "big"), SYN_ACK
    return packet(*ends, protocol, transport(protocol, sport, dport, flag, number, acknowledged))


class Foreseen(RuleBasedStateMachine):
    """An engine, and what it let pass."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine(CONFIGURATIONS[False, False, 1000], seed=1)
        self.now = 0.0
        self.passed: list[tuple[IngressPath, bytes, bytes]] = []

    @initialize(
        current=st.booleans(),
        groups=st.booleans(),
        flows=st.sampled_from([1000, 1000, 6]),
        seed=st.integers(0, 3),
    )
    def begin(self, *, current: bool, groups: bool, flows: int, seed: int) -> None:
        with patch.dict(PROFILES, {"azure-current": FEW}):
            self.engine = Engine(CONFIGURATIONS[current, groups, flows], seed=seed)

    def seen_from_outside(self) -> Any:
        """All that an operator, or another packet, could find changed."""
        engine, lifecycle = self.engine, self.engine.lifecycle
        machines = engine.outbound.machines.values()
        return (
            list(engine.flow_records(lambda: self.now, 1 << 30)),
            [(flow.state, flow.timeout, flow.inbound) for flow in engine.flows],
            list(engine.port_records(self.now)),
            engine.status(self.now),
            engine.security_records(),
            [(m.name, m.flows, len(m.allocations)) for m in machines],
            engine.flows.numbers.opening.tobytes(),
            [side.tobytes() for side in engine.flows.numbers.acknowledged],
            lifecycle.allocator._random.getstate(),
            len(lifecycle.reset_queue),
        )

    def meet(self, data: bytes, ingress: IngressPath) -> None:
        before = self.seen_from_outside()
        said = foresee(self.engine, data, ingress, self.now)
        assert self.seen_from_outside() == before
        dropped = dict(before[3]["drops"])
        verdict = self.engine.handle(data, ingress, self.now)
        if verdict is not None:
            assert said.verdict == verdict
            if len(self.passed) < 64:
                self.passed.append((ingress, data, verdict))
            return
        counts = self.engine.status(self.now)["drops"]
        (reason,) = [name for name in counts if counts[name] != dropped.get(name, 0)]
        assert said.reason is not None
        assert said.reason.value == reason

    @rule(
        ends=st.tuples(anybody, anybody, ports, ports),
        protocol=protocols,
        flag=flags,
        number=numbers,
        ingress=ingresses,
        fragment=st.sampled_from([0, 0, 0, 0, 0x4000, 0x2000, 0x0001]),
    )
    def anything(
        self,
        *,
        ends: tuple[str, str, int, int],
        protocol: int,
        flag: int,
        number: int,
        ingress: IngressPath,
        fragment: int,
    ) -> None:
        source, to, sport, dport = ends
        body = transport(protocol, sport, dport, flag, number, 0)
        self.meet(packet(source, to, protocol, body, fragment), ingress)

    @rule(
        vm=vms,
        to=st.one_of(remotes, publics, vms),
        sport=ports,
        dport=ports,
        protocol=st.sampled_from([TCP, UDP, ICMP]),
        number=numbers,
        fragmented=st.booleans(),
    )
    def opening(
        self,
        *,
        vm: str,
        to: str,
        sport: int,
        dport: int,
        protocol: int,
        number: int,
        fragmented: bool,
    ) -> None:
        """A VM opens, by the way in that its destination makes; explain's document says the same."""
        ingress = IngressPath.OUTBOUND
        if to in PUBLIC:
            ingress = IngressPath.HAIRPIN
        elif to in VMS:
            ingress = IngressPath.LATERAL
        data = packet(vm, to, protocol, transport(protocol, sport, dport, SYN, number, 0))
        if fragmented and protocol == UDP and ingress is not IngressPath.LATERAL:
            self.meet(data, IngressPath[f"{ingress.name}_IN_FRAGMENTS"])
            return
        said = foresee(self.engine, data, ingress, self.now, to_come=True)
        name = {TCP: "Tcp", UDP: "Udp", ICMP: "Icmp"}[protocol]
        port = 0 if protocol == ICMP else dport
        document = explain_outbound(
            self.engine, IPv4Address(vm), name, IPv4Address(to), port, sport
        )
        self.told(document, said.reason)
        self.meet(data, ingress)

    @rule(
        remote=remotes,
        to=publics,
        sport=ports,
        dport=ports,
        protocol=st.sampled_from([TCP, UDP, ICMP]),
        number=numbers,
    )
    def arriving(
        self, *, remote: str, to: str, sport: int, dport: int, protocol: int, number: int
    ) -> None:
        """From outside to a public IP."""
        data = packet(remote, to, protocol, transport(protocol, sport, dport, SYN, number, 0))
        said = foresee(self.engine, data, IngressPath.INBOUND, self.now, to_come=True)
        name = {TCP: "Tcp", UDP: "Udp", ICMP: "Icmp"}[protocol]
        far, near = (sport, 0) if protocol == ICMP else (sport, dport)
        document = explain_inbound(
            self.engine, IPv4Address(remote), far, name, IPv4Address(to), near
        )
        self.told(document, said.reason)
        self.meet(data, IngressPath.INBOUND)

    def told(self, document: dict[str, Any], reason: DropReason | None) -> None:
        """The contract's document says what was foreseen."""
        if reason is None:
            assert document["verdict"] == "Allow"
        elif reason is DropReason.DENIED_BY_SECURITY_RULE:
            assert document["verdict"] == "Deny"
        else:
            assert document["verdict"] == "Drop"
            assert document["reason"].startswith(f"{reason.value}: ")

    @rule(which=st.integers(0, 63), flag=flags, number=numbers, acknowledged=numbers)
    def again(self, *, which: int, flag: int, number: int, acknowledged: int) -> None:
        """The sender goes on with what it began."""
        if self.passed:
            ingress, data, _ = self.passed[which % len(self.passed)]
            if data[9] == TCP:
                numbered = number.to_bytes(4, "big") + acknowledged.to_bytes(4, "big")
                data = completed(data[:24] + numbered + data[32:33] + bytes((flag,)) + data[34:])
            self.meet(data, ingress)

    @rule(
        which=st.integers(0, 63),
        flag=flags,
        number=numbers,
        acknowledged=numbers,
        by=st.one_of(st.none(), ingresses),
    )
    def answering(
        self,
        *,
        which: int,
        flag: int,
        number: int,
        acknowledged: int,
        by: IngressPath | None,
    ) -> None:
        """The receiver of what left answers."""
        if not self.passed:
            return
        ingress, _, verdict = self.passed[which % len(self.passed)]
        back = {
            IngressPath.OUTBOUND: IngressPath.INBOUND,
            IngressPath.INBOUND: IngressPath.OUTBOUND,
            IngressPath.PROBE: IngressPath.HAIRPIN,
        }.get(ingress.whole, ingress)
        self.meet(answer(verdict, flag, number, acknowledged), back if by is None else by)

    @rule(
        which=st.integers(0, 63),
        kind=st.sampled_from([3, 11, 12]),
        source=st.one_of(st.none(), anybody),
        length=st.sampled_from([20, 28, 60]),
        broken=st.booleans(),
        ingress=ingresses,
    )
    def error(
        self,
        *,
        which: int,
        kind: int,
        source: str | None,
        length: int,
        broken: bool,
        ingress: IngressPath,
    ) -> None:
        """An ICMP error about what left, from its receiver or another."""
        if not self.passed:
            return
        _, _, verdict = self.passed[which % len(self.passed)]
        to = str(IPv4Address(verdict[12:16]))
        sender = str(IPv4Address(verdict[16:20])) if source is None else source
        body = summed(bytes((kind, 0, 0, 0)) + bytes(4) + verdict[:length], 2)
        if broken:
            body = body[:-1] + bytes((body[-1] ^ 1,))
        self.meet(packet(sender, to, ICMP, body), ingress)

    @rule(vm=vms, remote=remotes, protocol=st.sampled_from([TCP, UDP]), first=ports)
    def filling(self, *, vm: str, remote: str, protocol: int, first: int) -> None:
        """A VM opens flow after flow, until there are no ports or no room."""
        for sport in range(first, first + 17):
            body = transport(protocol, sport, 443, SYN, 7, 0)
            self.meet(packet(vm, remote, protocol, body), IngressPath.OUTBOUND)

    @rule(seconds=st.sampled_from([1.0, 16.0, 66.0, 121.0, 241.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        while self.engine.expire(self.now):
            pass

    @rule(up=st.booleans())
    def probed(self, *, up: bool) -> None:
        for target in self.engine.balancer.targets():
            if self.engine.health.report(target, up, self.now):
                for _ in self.engine.health.settle():
                    pass


Foreseen.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestForeseen = Foreseen.TestCase
