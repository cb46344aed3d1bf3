"""A dry run says what the engine then does; in three places ``explain`` once said something else."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from gateway.core.explain import explain_outbound, foresee
from gateway.core.ingress import IngressPath
from gateway.schema.drop_reasons import DropReason
from tests.scenario import Scenario, build
from tests.unit.core.inbound.test_load_balancer import TWO

NETWORK = """
gateway: {inside: [lan0], outside: wan0%s}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{name: a, addressPrefix: 10.0.1.0/24}, {name: b, addressPrefix: 10.0.2.0/24}]
publicIPAddresses: [{name: d, ipAddress: 203.0.113.10}]
defaultOutboundAccess: {publicIPAddresses: [d]}
virtualMachines: [{name: vm1, privateIPAddress: 10.0.1.4}, {name: vm2, privateIPAddress: 10.0.2.4}]
"""
VM1, VM2 = IPv4Address("10.0.1.4"), IPv4Address("10.0.2.4")
REMOTE, FRONTEND = IPv4Address("198.51.100.1"), IPv4Address("203.0.113.20")


def test_a_full_flow_table_is_foreseen_between_vms() -> None:
    scenario = Scenario(NETWORK % ", maximumFlows: 1")
    scenario.play("vm1 sends udp 10.0.1.4:4000 > 198.51.100.1:53")
    document = explain_outbound(scenario.engine, VM1, "Tcp", VM2, 80, 40000)
    assert document["verdict"] == "Drop"
    assert document["reason"].startswith("FlowTableFull: ")
    assert scenario.send("vm1", build("tcp 10.0.1.4:40000 > 10.0.2.4:80 syn"), lateral=True) is None
    assert scenario.reason() == "FlowTableFull"


def test_default_outbound_ports_that_ran_out_are_foreseen() -> None:
    scenario = Scenario(NETWORK % "")
    engine = scenario.engine
    for last in range(10, 80):  # each of them gets 1,024 ports of the one public IP
        packet = build(f"udp 10.0.1.{last}:4000 > 198.51.100.1:53")
        said = foresee(engine, packet, IngressPath.OUTBOUND, 0.0)
        assert engine.handle(packet, IngressPath.OUTBOUND, 0.0) == (
            None if said.reason else said.verdict
        )
    assert said.reason is DropReason.DEFAULT_OUTBOUND_CAPACITY
    stranger = IPv4Address("10.0.1.200")
    document = explain_outbound(engine, stranger, "Tcp", REMOTE, 443, 40000)
    assert document["reason"].startswith("DefaultOutboundCapacity: ")
    assert scenario.send("10.0.1.200", build("tcp 10.0.1.200:40000 > 198.51.100.1:443 syn")) is None
    assert scenario.reason() == "DefaultOutboundCapacity"


def test_a_hairpin_by_one_of_several_public_ips_is_foreseen() -> None:
    """Which of them, and so which member of the pool, is drawn at random: the same way."""
    second = """
      - {name: more, frontendIPConfiguration: fe-b, backendAddressPool: pool, protocol: Tcp,
         frontendPort: 81, backendPort: 81}
    inboundNatRules:"""
    several = TWO.replace("\n    inboundNatRules:", second)
    scenario = Scenario(several)
    verdicts = set()
    for port in range(40000, 40040):
        document = explain_outbound(scenario.engine, VM1, "Tcp", FRONTEND, 80, port)
        verdicts.add(document["verdict"])
        verdict = scenario.send("vm1", build(f"tcp 10.0.1.4:{port} > 203.0.113.20:80 syn"))
        assert document["verdict"] == ("Drop" if verdict is None else "Allow")
    assert verdicts == {"Allow", "Drop"}


@pytest.mark.parametrize("lateral", [False, True])
def test_a_dry_run_opens_nothing(lateral: bool) -> None:
    scenario = Scenario(NETWORK % "")
    engine = scenario.engine
    to = "10.0.2.4" if lateral else "198.51.100.1"
    ingress = IngressPath.LATERAL if lateral else IngressPath.OUTBOUND
    said = foresee(engine, build(f"tcp 10.0.1.99:40000 > {to}:80 syn"), ingress, 0.0)
    assert said.reason is None
    assert said.flow is not None
    assert said.flow.slot < 0
    assert not list(engine.flows)
    assert IPv4Address("10.0.1.99").packed not in engine.outbound.machines


def test_a_packet_that_is_none_is_foreseen() -> None:
    engine = Scenario(NETWORK % "").engine
    assert foresee(engine, b"\x45", IngressPath.INBOUND, 0.0).reason is DropReason.MALFORMED
    first = bytearray(build("udp 198.51.100.1:53 > 203.0.113.10:1024"))
    first[6] |= 0x20  # more fragments
    said = foresee(engine, bytes(first), IngressPath.INBOUND, 0.0)
    assert said.reason is DropReason.FRAGMENT
