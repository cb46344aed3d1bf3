"""Explain, about packets of flows that are live: they were judged when they opened."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from gateway.core.explain import explain_inbound, explain_outbound
from gateway.core.ingress import IngressPath
from tests.scenario import Scenario, build
from tests.unit.core.policy.test_nsg import NO_SMTP, WEB, network, rule

REMOTE = IPv4Address("198.51.100.1")
VM1, VM2, VM3 = (IPv4Address(a) for a in ("10.0.1.4", "10.0.1.5", "10.0.2.4"))
PUBLIC = IPv4Address("203.0.113.30")


def verdict(document: dict[str, Any]) -> tuple[str, bool]:
    return document["verdict"], document["existingFlow"] is not None


def test_a_live_flow_goes_on_and_a_new_one_is_denied() -> None:
    scenario = Scenario(network())
    scenario.play("vm1 sends tcp 10.0.1.4:40000 > 198.51.100.1:25 syn")
    scenario.reconfigure(network(NO_SMTP))
    engine = scenario.engine
    assert verdict(explain_outbound(engine, VM1, "Tcp", REMOTE, 25, 40000)) == ("Allow", True)
    assert verdict(explain_outbound(engine, VM1, "Tcp", REMOTE, 25, 40001)) == ("Deny", False)
    assert verdict(explain_outbound(engine, VM1, "Tcp", REMOTE, 25, None)) == ("Deny", False)
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:25 syn
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:25 syn
    """)


def test_a_connection_anew_from_an_ended_flows_port_is_judged_anew() -> None:
    scenario = Scenario(network(WEB, WEB))
    scenario.play("""
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:80 syn
        vm2 sends      tcp 10.0.1.5:80 > 198.51.100.1:4000 syn ack
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:80 fin ack
        vm2 sends      tcp 10.0.1.5:80 > 198.51.100.1:4000 fin ack
        flows          vm2 state=Closed
    """)
    scenario.reconfigure(network())
    document = explain_inbound(scenario.engine, REMOTE, 4000, "Tcp", PUBLIC, 80)
    assert verdict(document) == ("Deny", False)
    scenario.play("""
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:80 syn
        dropped        DeniedBySecurityRule
    """)


def test_between_vms_both_directions_of_a_live_flow_go_on() -> None:
    scenario = Scenario(network())
    engine = scenario.engine
    assert engine.handle(
        build("udp 10.0.2.4:4000 > 10.0.1.4:53"), IngressPath.LATERAL, scenario.now
    )
    shut = rule("shut", 100, "Inbound", "Deny") + rule("mute", 100, "Outbound", "Deny")
    scenario.reconfigure(network(shut))
    for source, port, to, to_port in ((VM3, 4000, VM1, 53), (VM1, 53, VM3, 4000)):
        document = explain_outbound(engine, source, "Udp", to, to_port, port)
        assert verdict(document) == ("Allow", True)
        assert document["method"] == "VirtualNetwork"
    assert verdict(explain_outbound(engine, VM3, "Udp", VM1, 53, 4001)) == ("Deny", False)


def test_both_legs_of_a_live_hairpin_go_on() -> None:
    web = WEB.replace("Tcp", "Udp")
    scenario = Scenario(network(web, web))
    engine = scenario.engine
    packet = build("udp 10.0.2.4:4000 > 203.0.113.30:80")
    assert engine.handle(packet, IngressPath.HAIRPIN, scenario.now)
    scenario.reconfigure(network())
    assert verdict(explain_outbound(engine, VM3, "Udp", PUBLIC, 80, 4000)) == ("Allow", True)
    assert engine.handle(packet, IngressPath.HAIRPIN, scenario.now)
    assert verdict(explain_outbound(engine, VM3, "Udp", PUBLIC, 80, 4001)) == ("Deny", False)
    packet = build("udp 10.0.2.4:4001 > 203.0.113.30:80")
    assert engine.handle(packet, IngressPath.HAIRPIN, scenario.now) is None
