"""Inbound flows and SNAT on one public address, crowded: nothing that goes in ever comes out mixed.

One remote with two ports, rules that a reload puts on ports that were SNAT ports a moment ago and
takes away again, a VM with an address of its own behind a frontend too: whatever collides must be
refused or ended, and never meet in one public five-tuple, or in one of a VM's.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from scapy.layers.inet import IP, TCP, UDP

from gateway.core.engine import Engine
from gateway.core.inbound.listeners import Target
from gateway.core.ingress import IngressPath
from gateway.core.packet.view import PacketView
from tests.scenario import configuration

REMOTE, FRONTEND, OWN = "198.51.100.1", "203.0.113.20", "203.0.113.30"


def yaml(ports: tuple[int, ...], members: str) -> str:
    rules = "".join(
        f"      - {{name: {kind}{port}, frontendIPConfiguration: fe, backendAddressPool: pool, "
        f"probe: p, protocol: {kind}, frontendPort: {port}, backendPort: {80 + number}}}\n"
        for number, port in enumerate(ports)
        for kind in ("Tcp", "Udp")
    )
    return f"""
gateway: {{inside: [lan0], outside: wan0}}
virtualNetwork: {{addressPrefixes: [10.0.0.0/16], subnets: [{{name: s, addressPrefix: 10.0.1.0/24}}]}}
publicIPAddresses: [{{name: a, ipAddress: {FRONTEND}}}, {{name: i, ipAddress: {OWN}}}]
virtualMachines:
  - {{name: vm2, privateIPAddress: 10.0.1.5}}
  - {{name: vm3, privateIPAddress: 10.0.1.6, publicIPAddress: i}}
loadBalancers:
  - name: lb
    frontendIPConfigurations: [{{name: fe, publicIPAddress: a}}]
    backendAddressPools: [{{name: pool, virtualMachines: [{members}]}}]
    probes: [{{name: p, protocol: Tcp, port: 80}}]
    loadBalancingRules:
{rules}"""


CONFIGURATIONS = [
    configuration(yaml(ports, members))
    for ports in ((1024,), (1032, 80), (80,), (1024, 1032))
    for members in ("vm2", "vm2, vm3", "vm3")
]
endpoints = st.sampled_from([1, 2])
flags = st.sampled_from(["S", "S", "S", "A", "FA", "RA"])


class Crowd(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine(CONFIGURATIONS[1], seed=3)
        self.now = 0.0

    @rule(
        to=st.sampled_from(
            [(FRONTEND, 1024), (FRONTEND, 1032), (FRONTEND, 80), (OWN, 80), (OWN, 81)]
        ),
        port=endpoints,
        flag=flags,
        udp=st.booleans(),
    )
    def from_outside(self, to: tuple[str, int], port: int, flag: str, udp: bool) -> None:
        ports = {"sport": port, "dport": to[1]}
        layer = UDP(**ports) if udp else TCP(**ports, flags=flag)
        packet = bytes(IP(src=REMOTE, dst=to[0]) / layer)
        verdict = self.engine.handle(packet, IngressPath.INBOUND, self.now)
        if verdict is None:
            return
        view = PacketView.parse(packet)
        assert view is not None
        flow = self.engine.flows.replies(view.protocol)[view.key]
        got = IP(verdict)
        assert (got.src, got.sport) == (REMOTE, port)
        if self.engine.flows.originals(view.protocol).get(flow.original) is not flow:
            assert not udp  # whose answers go by what the remote used last
            return  # it only holds its SNAT port: the VM's endpoint is another flow's
        ports = {"sport": got.dport, "dport": got.sport}
        layer = UDP(**ports) if udp else TCP(**ports, flags="A")
        answer = bytes(IP(src=got.dst, dst=got.src) / layer)
        seen = self.engine.handle(answer, IngressPath.OUTBOUND, self.now)
        assert seen is not None
        assert (IP(seen).src, IP(seen).sport) == to
        assert (IP(seen).dst, IP(seen).dport) == (REMOTE, port)

    @rule(
        vm=st.sampled_from(["10.0.1.5", "10.0.1.6"]),
        sport=st.sampled_from([80, 81, 7]),
        port=endpoints,
        flag=flags,
        udp=st.booleans(),
    )
    def from_a_vm(self, vm: str, sport: int, port: int, flag: str, udp: bool) -> None:
        ports = {"sport": sport, "dport": port}
        layer = UDP(**ports) if udp else TCP(**ports, flags=flag)
        self.engine.handle(bytes(IP(src=vm, dst=REMOTE) / layer), IngressPath.OUTBOUND, self.now)

    @rule(seconds=st.sampled_from([1.0, 16.0, 100.0, 241.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        while self.engine.expire(self.now):
            pass

    @rule(chosen=st.sampled_from(CONFIGURATIONS))
    def reload(self, chosen: object) -> None:
        self.engine.reconfigure(chosen, self.now)  # type: ignore[arg-type]
        for _ in self.engine.health.settle():
            pass

    @rule(vm=st.sampled_from(["vm2", "vm3"]), up=st.booleans())
    def health(self, vm: str, up: bool) -> None:
        if self.engine.health.report(Target("lb", "p", vm), up, self.now):
            for _ in self.engine.health.settle():
                pass

    @invariant()
    def every_flow_has_its_tuples_to_itself(self) -> None:
        table = self.engine.flows
        for flow in table:
            if flow.awaiting_removal:
                continue
            assert table.replies(flow.protocol)[flow.reply] is flow
            if flow.pool is None:  # a SNAT flow may only hold its port
                holder = table.originals(flow.protocol).get(flow.original)
                # Of two UDP flows at one endpoint one has it; and what takes it may end first.
                assert holder is flow or flow.protocol == 17

    def teardown(self) -> None:
        self.now += 100_000
        while self.engine.expire(self.now):
            pass
        assert len(self.engine.flows) == 0
        assert all(not machine.flows for machine in self.engine.outbound.machines.values())


Crowd.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestCrowd = Crowd.TestCase
