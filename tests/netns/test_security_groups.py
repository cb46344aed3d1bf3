"""Network security groups with real hosts: what passes, what is silently dropped, and who says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns.gateway import DEFAULT, INSTANCE, Gateway
from tests.netns.topology import SERVER, Topology, eventually

OPEN_PORT, SHUT_PORT = 5353, 5354


def rule(name: str, priority: int, direction: str, access: str, **match: str) -> dict[str, Any]:
    return {
        "name": name,
        "priority": priority,
        "direction": direction,
        "access": access,
        "protocol": match.get("protocol", "*"),
        "sourceAddressPrefix": match.get("source", "*"),
        "sourcePortRange": "*",
        "destinationAddressPrefix": match.get("to", "*"),
        "destinationPortRange": match.get("port", "*"),
    }


GROUPS = [
    {
        "name": "subnet-nsg",
        "securityRules": [
            rule("no-echo-to-second", 100, "Outbound", "Deny", to="198.51.100.2"),
            rule("in", 100, "Inbound", "Allow", source="Internet", port=f"{OPEN_PORT}-{SHUT_PORT}"),
        ],
    },
    {
        "name": "nic-nsg",
        "securityRules": [
            rule("open", 100, "Inbound", "Allow", source="Internet", port=str(OPEN_PORT))
        ],
    },
]


@pytest.fixture(scope="module")
def guarded(mode: None) -> Iterator[Gateway]:
    """The usual gateway with a group on the subnet and one on vm3's interface."""
    with Topology() as net:
        gateway = Gateway(net)
        gateway.configuration["networkSecurityGroups"] = GROUPS
        gateway.configuration["virtualNetwork"]["subnets"][0]["networkSecurityGroup"] = "subnet-nsg"
        gateway.configuration["virtualMachines"][2]["networkSecurityGroup"] = "nic-nsg"
        gateway.start()
        yield gateway
        assert gateway.stop() == 0


def explained(gateway: Gateway, *arguments: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(gateway.cli("explain", *arguments, "--json").stdout)
    return said


def test_an_outbound_rule_drops_silently_and_explain_said_so(guarded: Gateway) -> None:
    said = explained(guarded, "--vm", "vm1", "--to", "198.51.100.2:7/udp")
    assert (said["verdict"], said["networkSecurityGroups"][-1]["rule"]) == (
        "Deny",
        "no-echo-to-second",
    )
    vm = guarded.net.client("vm1")
    wire = guarded.net.capture("internet", "eth0", "host 198.51.100.2")
    assert vm.echo("198.51.100.2", patience=0.3) == "TimeoutError"
    assert vm.peer("Tcp", "198.51.100.2", patience=0.3) == "TimeoutError"  # no RST, no ICMP
    assert wire.lines() == []
    said = explained(guarded, "--vm", "vm1", "--to", f"{SERVER}:7/udp")
    assert (said["verdict"], said["candidates"][0]["publicIp"]) == ("Allow", DEFAULT)
    assert vm.echo(SERVER) == "whole"
    event = guarded.event(rule="subnet-nsg/no-echo-to-second")
    assert event["properties"]["vm"] == "vm1"


def test_inbound_needs_both_levels(guarded: Gateway) -> None:
    vm, internet = guarded.net.client("vm3"), guarded.net.client("internet")
    for port in (OPEN_PORT, SHUT_PORT, SHUT_PORT + 1):
        vm.listen(port)
    arguments = ("--inbound", "--from", f"{SERVER}:40000", "--to")
    for port, verdict, answer in (
        (OPEN_PORT, "Allow", "whole"),
        (SHUT_PORT, "Deny", "TimeoutError"),  # the interface's group
        (SHUT_PORT + 1, "Deny", "TimeoutError"),  # the subnet's
    ):
        said = explained(guarded, *arguments, f"{INSTANCE}:{port}/udp")
        assert said["verdict"] == verdict
        assert internet.echo(INSTANCE, port=port, patience=0.5) == answer


def test_the_rules_are_listed_with_their_hits(guarded: Gateway) -> None:
    guarded.net.client("vm1").echo("198.51.100.2", patience=0.1)
    listed = [json.loads(line) for line in guarded.cli("nsg", "--json").stdout.splitlines()]
    hits = {entry["name"]: entry["hits"] for entry in listed if entry["hits"]}
    assert hits["securityRules/no-echo-to-second"] > 0
    names = {entry["name"] for entry in listed}
    assert {
        "defaultSecurityRules/DenyAllInBound",
        "defaultSecurityRules/AllowInternetOutBound",
    } < names


def test_a_new_rule_leaves_live_connections_until_it_is_enforced(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    vm = fresh.client("vm1")
    vm.open(5, SERVER)
    eventually(vm.connections, lambda count: count["connected"] == 5)
    gateway.configuration["networkSecurityGroups"] = [
        {"name": "shut", "securityRules": [rule("no", 100, "Outbound", "Deny", to="Internet")]}
    ]
    gateway.configuration["virtualNetwork"]["subnets"][0]["networkSecurityGroup"] = "shut"
    gateway.write()
    said = json.loads(gateway.cli("reload", "--json").stdout)
    assert (said["refusedFlows"], said["endedFlows"]) == (5, 0)
    assert vm.talk() == 5
    assert vm.echo(SERVER, patience=0.3) == "TimeoutError"
    said = json.loads(gateway.cli("reload", "--enforce", "--json").stdout)
    assert (said["refusedFlows"], said["endedFlows"]) == (5, 5)
    assert vm.talk(patience=0.5) == 0
    assert gateway.flows("--protocol", "Tcp") == []
    assert gateway.stop() == 0
