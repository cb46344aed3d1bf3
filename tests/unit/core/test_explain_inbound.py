"""Explain, about what comes in by rules: the rule, the VM that the hash chooses, and hairpins."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from gateway.core.explain import explain_inbound, explain_outbound
from tests.scenario import Scenario, build, describe
from tests.unit.core.inbound.test_load_balancer import TWO
from tests.unit.core.policy.test_nsg import WEB, network

CLIENT, FRONTEND, OTHER = (IPv4Address(a) for a in ("198.51.100.1", "203.0.113.20", "203.0.113.21"))
VM1 = IPv4Address("10.0.1.4")


def inbound(scenario: Scenario, port: int, to_port: int = 80) -> dict[str, Any]:
    return explain_inbound(scenario.engine, CLIENT, port, "Tcp", FRONTEND, to_port)


def test_it_names_the_rule_and_the_vm_that_the_packet_then_goes_to() -> None:
    scenario = Scenario(TWO)
    chosen = set()
    for port in range(40000, 40020):
        document = inbound(scenario, port)
        assert document["verdict"] == "Allow"
        backend = document["backend"]
        assert (backend["loadBalancer"], backend["rule"]) == ("lb", "web")
        assert (backend["port"], backend["healthy"], backend["total"]) == (8080, 2, 2)
        assert f"chooses {backend['vm']}, 2 of 2 VMs are up." in document["reason"]
        verdict = scenario.send("outside", build(f"tcp {CLIENT}:{port} > {FRONTEND}:80 syn"))
        assert verdict is not None
        assert f"> {backend['ip']}:8080 " in describe(verdict)
        chosen.add(backend["vm"])
        assert inbound(scenario, port)["existingFlow"] is not None
    assert chosen == {"vm1", "vm2"}


def test_it_says_why_nothing_answers() -> None:
    scenario = Scenario(TWO)
    scenario.play("probe lb/p vm1 down\nprobe lb/p vm2 down")
    document = inbound(scenario, 40000)
    assert (document["verdict"], document["method"]) == ("Drop", "LoadBalancingRule")
    assert document["reason"].startswith("NoHealthyBackend: ")
    assert document["reason"].endswith("Load balancing rule web of lb: 0 of 2 VMs are up.")
    assert document["backend"]["vm"] is None
    nowhere = inbound(scenario, 40000, 8080)
    assert nowhere["reason"].startswith("InboundWithoutFlow: ")
    assert "backend" not in nowhere


def test_an_inbound_nat_rule_leads_to_its_vm() -> None:
    document = inbound(Scenario(TWO), 40000, 51001)
    assert (document["method"], document["backend"]["vm"]) == ("InboundNatRule", "vm2")
    assert "Inbound NAT rule rdp of lb leads to vm2." in document["reason"]


def test_a_second_way_to_the_same_port_of_a_vm_is_foreseen() -> None:
    scenario = Scenario(TWO)
    scenario.play("outside sends tcp 198.51.100.1:40000 > 203.0.113.21:80 syn")
    own = IPv4Address("203.0.113.30")
    document = explain_inbound(scenario.engine, CLIENT, 40000, "Tcp", own, 80)
    assert document["reason"].startswith("PrivateEndpointInUse: ")


def test_a_hairpin_says_what_its_hash_does_and_why_it_fails_now_and_then() -> None:
    scenario = Scenario(TWO)
    verdicts = set()
    for port in range(40000, 40020):
        document = explain_outbound(scenario.engine, VM1, "Tcp", FRONTEND, 80, port)
        verdicts.add(document["verdict"])
        assert document["method"] == "LoadBalancer"
        assert "vm1 is one of the 2 VMs that the rule's hash chooses from" in document["reason"]
        assert "do not build on it" in document["reason"]
        packet = build(f"tcp {VM1}:{port} > {FRONTEND}:80 syn")
        verdict = scenario.send("vm1", packet)
        if document["verdict"] == "Drop":
            assert document["reason"].startswith("HairpinToItself: ")
            assert scenario.reason() == "HairpinToItself"
        else:
            assert verdict is not None
            assert describe(verdict).split(" > ")[1].startswith(document["backend"]["ip"])
    assert verdicts == {"Allow", "Drop"}


def test_a_hairpin_to_a_rule_that_has_not_the_sender_behind_it_has_the_caveat_alone() -> None:
    scenario = Scenario(TWO)
    document = explain_outbound(scenario.engine, VM1, "Tcp", OTHER, 80, None)
    assert (document["verdict"], document["backend"]["vm"]) == ("Allow", "vm3")
    assert "hash chooses from" not in document["reason"]


def test_ports_show_what_rules_keep_out() -> None:
    scenario = Scenario(
        TWO.replace("frontendPort: 80, backendPort: 8080", "frontendPort: 1030, backendPort: 8080")
    )
    record = scenario.ports("vm1", "203.0.113.20", "Udp")
    assert record.reserved == ((1024, 1031), (50000, 50007), (51000, 51007))
    assert record.ranges == ((1032, 2055),)
    assert scenario.ports("vm4", "203.0.113.10", "Tcp").reserved == ()


def test_a_denied_packet_for_an_instance_level_public_ip_names_the_method() -> None:
    engine = Scenario(network(interface=WEB)).engine
    document = explain_inbound(engine, CLIENT, 4000, "Tcp", IPv4Address("203.0.113.30"), 22)
    assert (document["verdict"], document["method"]) == ("Deny", "InstanceLevelPublicIP")
    nobody = explain_inbound(engine, CLIENT, 4000, "Tcp", IPv4Address("203.0.113.10"), 22)
    assert nobody["method"] is None


@pytest.mark.parametrize(
    "source",
    ["10.0.1.4", "10.0.99.9", "168.63.129.16", "203.0.113.10", "127.0.0.1", "169.254.169.254"],
)
def test_nothing_from_outside_borrows_an_address_that_the_rules_trust(source: str) -> None:
    """168.63.129.16 is in VirtualNetwork and AzureLoadBalancer: it passed AllowVnetInBound."""
    scenario = Scenario(network(interface=WEB))
    instance = IPv4Address("203.0.113.30")
    said = explain_inbound(scenario.engine, IPv4Address(source), 4000, "Udp", instance, 443)
    assert (said["verdict"], said["networkSecurityGroups"]) == ("Drop", [])
    assert said["reason"].startswith("SourceNotOutside: ")
    scenario.play(f"""
        outside forges udp {source}:4000 > {instance}:443
        dropped        SourceNotOutside
    """)


@pytest.mark.parametrize(
    ("source", "to", "reason"),
    [
        ("198.51.100.1", "10.0.1.4", "PublicAddressUnknown"),
        ("198.51.100.1", "192.0.2.99", "PublicAddressUnknown"),
        ("10.0.1.5", "10.0.1.4", "SourceNotOutside"),
        ("203.0.113.30", "192.0.2.99", "SourceNotOutside"),
    ],
)
def test_what_the_rules_of_the_host_drop_has_the_reason_that_they_count_by(
    source: str, to: str, reason: str
) -> None:
    engine = Scenario(network(interface=WEB)).engine
    said = explain_inbound(engine, IPv4Address(source), 4000, "Udp", IPv4Address(to), 443)
    assert said["reason"].startswith(f"{reason}: ")
