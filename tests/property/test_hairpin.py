"""Hairpins: what ``explain`` says beforehand is what the engine then does, whoever sends to whom.

Three VMs that leave by SNAT and two with addresses of their own send to public IPs of the gateway:
to rules' ports, to SNAT ports that are held, about to be, or free, to each other at the same time
and to themselves. A packet never comes back to the endpoint that it came from.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from scapy.layers.inet import IP, TCP, UDP

from gateway.core.engine import Engine
from gateway.core.explain import explain_outbound
from gateway.core.ingress import IngressPath
from tests.scenario import configuration

SHARED, FRONTEND, OWN, OWN2 = "203.0.113.10", "203.0.113.20", "203.0.113.30", "203.0.113.31"
NETWORK = """
gateway: {inside: [lan0], outside: wan0%s}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{name: web, addressPrefix: 10.0.1.0/24}]
publicIPAddresses:
  - {name: pip-d, ipAddress: 203.0.113.10}
  - {name: pip-a, ipAddress: 203.0.113.20}
  - {name: pip-o, ipAddress: 203.0.113.30}
  - {name: pip-p, ipAddress: 203.0.113.31}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.1.5}
  - {name: vm3, privateIPAddress: 10.0.1.6, publicIPAddress: pip-o}
  - {name: vm4, privateIPAddress: 10.0.1.7, publicIPAddress: pip-p, networkSecurityGroup: shut}
  - {name: vm5, privateIPAddress: 10.0.1.8}
networkSecurityGroups:
  - name: shut
    securityRules:
      - {name: web, priority: 100, direction: Inbound, access: Allow, protocol: Tcp,
         sourceAddressPrefix: '*', sourcePortRange: '*', destinationAddressPrefix: '*',
         destinationPortRange: '1024'}
loadBalancers:
  - name: lb
    frontendIPConfigurations: [{name: fe, publicIPAddress: pip-a}]
    backendAddressPools: [{name: pool, virtualMachines: [vm2, vm5]}]
    loadBalancingRules:
      - {name: web, frontendIPConfiguration: fe, backendAddressPool: pool, protocol: Tcp,
         frontendPort: 80, backendPort: 1024}
      - {name: dns, frontendIPConfiguration: fe, backendAddressPool: pool, protocol: Udp,
         frontendPort: 53, backendPort: 1024}
    inboundNatRules:
      - {name: one, frontendIPConfiguration: fe, protocol: Udp, frontendPort: 50001,
         virtualMachine: vm2, backendPort: 7000}
"""
CONFIGURATIONS = [
    configuration(NETWORK % more) for more in ("", ", maximumFlows: 6", ", maximumFlows: 3")
]
VMS = [f"10.0.1.{last}" for last in (4, 5, 6, 7, 8)]
sources = st.sampled_from(VMS)
publics = st.sampled_from([SHARED, FRONTEND, OWN, OWN2])
ports = st.sampled_from([1024, 1025, 2048, 2049, 3072, 80, 53, 50001, 7000])


class Hairpins(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine(CONFIGURATIONS[0], seed=4)
        self.now = 0.0

    @rule(number=st.sampled_from(range(len(CONFIGURATIONS))))
    def other_size(self, number: int) -> None:
        self.engine = Engine(CONFIGURATIONS[number], seed=4)

    @rule(source=sources, sport=ports, to=publics, dport=ports, udp=st.booleans())
    def opening(self, source: str, sport: int, to: str, dport: int, udp: bool) -> None:
        said = explain_outbound(
            self.engine,
            IPv4Address(source),
            "Udp" if udp else "Tcp",
            IPv4Address(to),
            dport,
            sport,
        )
        before = self.engine.status(self.now)["drops"]
        layer = UDP(sport=sport, dport=dport) if udp else TCP(sport=sport, dport=dport, flags="S")
        packet = bytes(IP(src=source, dst=to) / layer)
        verdict = self.engine.handle(packet, IngressPath.HAIRPIN, self.now)
        if verdict is None:
            after = self.engine.status(self.now)["drops"]
            (reason,) = [name for name in after if after[name] != before.get(name, 0)]
            assert said["verdict"] == ("Deny" if reason == "DeniedBySecurityRule" else "Drop")
            assert reason == "DeniedBySecurityRule" or said["reason"].startswith(f"{reason}: ")
            return
        assert said["verdict"] == "Allow"
        got = IP(verdict)
        assert (got.dst, got.dport) != (source, sport)
        assert got.dst in VMS
        assert got.src not in VMS

    @rule(source=sources, sport=ports, to=publics, dport=ports, flags=st.sampled_from(["R", "FA"]))
    def ending(self, source: str, sport: int, to: str, dport: int, flags: str) -> None:
        packet = bytes(IP(src=source, dst=to) / TCP(sport=sport, dport=dport, flags=flags))
        self.engine.handle(packet, IngressPath.HAIRPIN, self.now)

    @rule(seconds=st.sampled_from([1.0, 16.0, 241.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        while self.engine.expire(self.now):
            pass


Hairpins.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestHairpins = Hairpins.TestCase
