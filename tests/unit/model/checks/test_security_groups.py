"""What is wrong with network security groups: a row for each class, with the line that says so."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.model import Loaded, load_text
from tests.unit.model.groups import GROUPED, grouped, rule


def lines(data: dict[str, Any], severity: str = "error") -> list[str]:
    """``field = value: message`` of every problem, in order."""
    loaded: Loaded = load_text(json.dumps(data), "f")
    found = [str(p) for p in loaded.problems if p.severity == severity]
    return [line.split(": ", 1)[1].removeprefix(FIRST) for line in found]


FIRST = "networkSecurityGroups[0].securityRules[0]"
PORTS = "allowed: *, a port, or a range as in 8000-8100, from 0 to 65535"
ADDRESSES = (
    "allowed: *, an IPv4 address as in 10.0.1.4, a prefix as in 10.0.1.0/24, a service tag as in "
    "Internet"
)
ONE_RULE = {
    "priority too low": (
        {"priority": 99},
        [".priority = 99: out of range; allowed: 100 to 4096"],
    ),
    "priority too high": (
        {"priority": 4097},
        [".priority = 4097: out of range; allowed: 100 to 4096"],
    ),
    "direction": (
        {"direction": "Sideways"},
        [".direction = Sideways: not one of the choices; allowed: Inbound, Outbound"],
    ),
    "access": (
        {"access": "Alow"},
        [".access = Alow: not one of the choices; allowed: Allow, Deny; did you mean Allow?"],
    ),
    "protocol": (
        {"protocol": "Sctp"},
        [".protocol = Sctp: not one of the choices; allowed: Tcp, Udp, Icmp, Esp, Ah, *"],
    ),
    "description": (
        {"description": "x" * 141},
        [f".description = {'x' * 59}…: has 141 characters; allowed: at most 140"],
    ),
    "name": (
        {"name": "-r"},
        [(".name = -r: not a resource name; allowed: 1 to 80 of letters, digits, '_', '-', '.', "
         "beginning with a letter, digit or '_', ending with one of these")],
    ),
    "name of a default rule": (
        {"name": "denyallinbound"},
        [(".name = denyallinbound: is the name of the default rule DenyAllInBound; "
         "allowed: any other name")],
    ),
    "missing": (
        {"priority": None, "direction": None, "access": None, "protocol": None},
        [f".{key}: missing; this key is required"
         for key in ("priority", "direction", "access", "protocol")],
    ),
    "no source": (
        {"sourceAddressPrefix": None},
        [(": says no source: needs sourceAddressPrefix, sourceAddressPrefixes or "
         "sourceApplicationSecurityGroups")],
    ),
    "empty is none": (
        {"destinationAddressPrefix": "", "destinationAddressPrefixes": []},
        [(": says no destination: needs destinationAddressPrefix, destinationAddressPrefixes or "
         "destinationApplicationSecurityGroups")],
    ),
    "no ports": (
        {"destinationPortRange": None},
        [": says no destination ports: needs destinationPortRange or destinationPortRanges"],
    ),
    "single and plural addresses": (
        {"sourceAddressPrefixes": ["10.0.0.0/8"]},
        [": sourceAddressPrefix and sourceAddressPrefixes together; allowed: one of them"],
    ),
    "single and plural ports": (
        {"sourcePortRanges": [80]},
        [": sourcePortRange and sourcePortRanges together; allowed: one of them"],
    ),
    "addresses and groups": (
        {"sourceApplicationSecurityGroups": ["web"]},
        [(": sourceAddressPrefix and sourceApplicationSecurityGroups together; "
         "allowed: one of them")],
    ),
    "host bits": (
        {"destinationAddressPrefix": "10.1.2.3/16"},
        [(".destinationAddressPrefix = 10.1.2.3/16: has bits set to the right of its length; "
         "did you mean 10.1.0.0/16?")],
    ),
    "host bits in a list": (
        {"sourceAddressPrefix": None, "sourceAddressPrefixes": ["10.0.0.0/8", "10.0.0.1/24"]},
        [(".sourceAddressPrefixes[1] = 10.0.0.1/24: has bits set to the right of its length; "
         "did you mean 10.0.0.0/24?")],
    ),
    "IPv6 prefix": (
        {"destinationAddressPrefix": "2001:db8::/32"},
        [(".destinationAddressPrefix = 2001:db8::/32: IPv6 is not supported; "
         "allowed: *, an IPv4 address or prefix, a service tag")],
    ),
    "IPv6 address": (
        {"destinationAddressPrefix": "::1"},
        [(".destinationAddressPrefix = ::1: IPv6 is not supported; "
         "allowed: *, an IPv4 address or prefix, a service tag")],
    ),
    "length of a prefix": (
        {"destinationAddressPrefix": "10.0.0.0/33"},
        [(".destinationAddressPrefix = 10.0.0.0/33: not an IPv4 prefix; "
         "allowed: address/length, as in 10.0.1.0/24")],
    ),
    "no address": (
        {"destinationAddressPrefix": "10.0.0.256"},
        [(".destinationAddressPrefix = 10.0.0.256: not an IPv4 address; "
         "allowed: four numbers, as in 203.0.113.10")],
    ),
    "neither address nor tag": (
        {"destinationAddressPrefix": "the web"},
        [f".destinationAddressPrefix = the web: neither an address nor a service tag; {ADDRESSES}"],
    ),
    "unknown tag, nearly right": (
        {"destinationAddressPrefix": "Internets"},
        [".destinationAddressPrefix = Internets: no such service tag; did you mean Internet?"],
    ),
    "unknown tag": (
        {"destinationAddressPrefix": "Storage"},
        [(".destinationAddressPrefix = Storage: no such service tag; allowed: VirtualNetwork, "
         "AzureLoadBalancer, Internet and those of the file in serviceTags")],
    ),
    "any": (
        {"destinationAddressPrefix": "Any"},
        [".destinationAddressPrefix = Any: no such service tag; did you mean *?"],
    ),
    "a group as a tag": (
        {"destinationAddressPrefix": "web"},
        [(".destinationAddressPrefix = web: is an application security group; "
         "name it in destinationApplicationSecurityGroups")],
    ),
    "two tags": (
        {"destinationAddressPrefix": None,
         "destinationAddressPrefixes": ["internet", "VirtualNetwork"]},
        [(".destinationAddressPrefixes: several service tags (internet, VirtualNetwork); "
         "allowed: one on a side")],
    ),
    "everything and more": (
        {"sourceAddressPrefix": None, "sourceAddressPrefixes": ["10.0.0.0/8", "*"]},
        [".sourceAddressPrefixes[1] = *: * is everything; allowed: alone, or the others"],
    ),
    "too many addresses": (
        {"sourceAddressPrefix": None, "sourceAddressPrefixes": ["10.0.0.1"] * 4001},
        [".sourceAddressPrefixes: 4001 addresses; allowed: at most 4000"],
    ),
    "unknown group": (
        {"sourceAddressPrefix": None, "sourceApplicationSecurityGroups": ["wep"]},
        [(".sourceApplicationSecurityGroups[0] = wep: no such name in applicationSecurityGroups; "
         "did you mean web?")],
    ),
    "group twice": (
        {"sourceAddressPrefix": None, "sourceApplicationSecurityGroups": ["web", "web"]},
        [".sourceApplicationSecurityGroups[1] = web: application security group named twice"],
    ),
    "ports out of order": (
        {"destinationPortRange": "90-80"},
        [".destinationPortRange = 90-80: ports out of order; did you mean 80-90?"],
    ),
    "port out of range": (
        {"destinationPortRange": "1-65536"},
        [f".destinationPortRange = 1-65536: out of range; {PORTS}"],
    ),
    "no port": (
        {"destinationPortRange": "http"},
        [f".destinationPortRange = http: not a port range; {PORTS}"],
    ),
    "ports in one text": (
        {"destinationPortRange": "80,443"},
        [f'.destinationPortRange = 80,443: not a port range; {PORTS}'],
    ),
    "ports that are no list": (
        {"destinationPortRange": None, "destinationPortRanges": "80"},
        [".destinationPortRanges = 80: must be a list, as in [a, b]"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), ONE_RULE.values(), ids=ONE_RULE)
def test_what_is_wrong_with_a_rule(changes: dict[str, Any], expected: list[str]) -> None:
    assert lines(grouped(rule(**changes))) == expected


ALL_GROUPS = GROUPED["applicationSecurityGroups"]
MACHINE = {"name": "vm", "privateIPAddress": "10.0.1.4"}
AROUND_RULES = {
    "priority twice": (
        grouped(rule(), rule(name="s", direction="Inbound"), rule(name="t")),
        [("networkSecurityGroups[0].securityRules[2].priority = 100: rules r and t of n have the "
         "same priority; allowed: each once among Outbound rules")],
    ),
    "name of a rule twice": (
        grouped(rule(), rule(name="R", priority=101)),
        [("networkSecurityGroups[0].securityRules[1].name = R: name already used by "
         "networkSecurityGroups[0].securityRules[0] (r): capitals make no difference")],
    ),
    "too many rules": (
        grouped(*(
            rule(name=f"r{n}", priority=100 + n // 2, direction=("Inbound", "Outbound")[n % 2])
            for n in range(1001)
        )),
        ["networkSecurityGroups[0].securityRules: 1001 rules; allowed: at most 1000"],
    ),
    "name of a group twice": (
        grouped(networkSecurityGroups=[{"name": "n"}, {"name": "n"}]),
        ["networkSecurityGroups[1].name = n: name already used by networkSecurityGroups[0]"],
    ),
    "group of a VM": (
        grouped(virtualMachines=[MACHINE | {"networkSecurityGroup": "x"}]),
        [("virtualMachines[0].networkSecurityGroup = x: no such name in networkSecurityGroups; "
         "known: n")],
    ),
    "group of a subnet": (
        grouped(networkSecurityGroups=[]),
        [f"{place}.networkSecurityGroup = n: no such name in networkSecurityGroups; known: none"
         for place in ("virtualNetwork.subnets[0]", "virtualNetwork.subnets[1]",
                       "virtualMachines[3]")],
    ),
    "application group of a VM": (
        grouped(virtualMachines=[MACHINE | {"applicationSecurityGroups": ["al"]}]),
        [("virtualMachines[0].applicationSecurityGroups[0] = al: no such name in "
         "applicationSecurityGroups; did you mean all?")],
    ),
    "too many application groups of a VM": (
        grouped(
            virtualMachines=[
                MACHINE | {"applicationSecurityGroups": [f"g{n}" for n in range(21)]}],
            applicationSecurityGroups=[{"name": f"g{n}"} for n in range(21)],
        ),
        [("virtualMachines[0].applicationSecurityGroups: 21 application security groups; "
         "allowed: at most 20")],
    ),
    "application group twice": (
        grouped(applicationSecurityGroups=[*ALL_GROUPS, {"name": "WEB"}]),
        [("applicationSecurityGroups[3].name = WEB: name already used by "
         "applicationSecurityGroups[0] (web): capitals make no difference")],
    ),
    "own tag with Azure's name": (
        grouped(serviceTags={"values": [{"name": "internet"}]}),
        [("serviceTags.values[0].name = internet: Azure defines this tag by the virtual network; "
         "allowed: any other name")],
    ),
    "own tag that looks like an address": (
        grouped(serviceTags={"values": [{"name": "10.0.0.0/8"}]}),
        [("serviceTags.values[0].name = 10.0.0.0/8: a tag's name begins with a letter, as in "
         "Storage")],
    ),
    "service tags that are no file": (
        grouped(serviceTags=5),
        ["serviceTags = 5: must be a mapping, as in {name: …}"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), AROUND_RULES.values(), ids=AROUND_RULES)
def test_what_is_wrong_around_rules(data: dict[str, Any], expected: list[str]) -> None:
    found = load_text(json.dumps(data), "f").problems
    assert [str(p).split(": ", 1)[1] for p in found if p.severity == "error"] == expected


WARNINGS = {
    "Icmp with ports": (
        {"protocol": "icmp"},
        [(".destinationPortRange = 25: warning: Icmp has no ports, so this rule matches nothing; "
         "meaningful: *")],
    ),
    "Esp with all ports": ({"protocol": "Esp", "destinationPortRange": "0-65535"}, []),
    "a group without members": (
        {"sourceAddressPrefix": None, "sourceApplicationSecurityGroups": ["empty"]},
        [(".sourceApplicationSecurityGroups[0] = empty: warning: no VM is in this application "
         "security group: it matches nothing")],
    ),
    "a tag in a list": (
        {"destinationAddressPrefix": None, "destinationAddressPrefixes": ["10.0.0.1", "Partner"]},
        [(".destinationAddressPrefixes[1] = Partner: warning: taken as meant, but Azure takes this "
         "as destinationAddressPrefix only")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), WARNINGS.values(), ids=WARNINGS)
def test_what_a_rule_is_warned_of(changes: dict[str, Any], expected: list[str]) -> None:
    data = grouped(rule(**changes))
    assert lines(data, "warning") == expected
    assert load_text(json.dumps(data), "f").configuration is not None


def test_every_mistake_is_reported_in_one_go() -> None:
    data = grouped(
        rule(sourceAddressPrefix="10.0.0.1/8", destinationPortRange="9-8"),
        rule(name="AllowVnetInBound", priority=200, destinationAddressPrefix="Internt"),
        rule(name="t", priority=200, sourcePortRanges=["80"]),
        virtualMachines=[MACHINE | {"networkSecurityGroup": "m"}],
    )
    found = load_text(json.dumps(data), "f").problems
    assert {p.path.removeprefix("networkSecurityGroups[0].") for p in found} == {
        "securityRules[0].sourceAddressPrefix",
        "securityRules[0].destinationPortRange",
        "securityRules[1].name",
        "securityRules[1].destinationAddressPrefix",
        "securityRules[2].priority",
        "securityRules[2]",
        "virtualMachines[0].networkSecurityGroup",
    }
    assert len(found) == 7


def test_a_mistake_of_one_rule_or_key_hides_none_of_another() -> None:
    wrong = rule(sourceAddressPrefix=None, sourceAddressPrefixes=["10.0.0.1/8"], sourcePortRange=-1)
    empty = rule(name="b", priority=101, sourceAddressPrefix="", sourcePortRange=None)
    other = rule(name="c", priority=102, sourceAddressPrefix="", destinationAddressPrefix="1.2.3")
    found = [
        (p.path.partition("securityRules")[2], p.message[:14])
        for p in load_text(json.dumps(grouped(wrong, empty, other)), "f").problems
    ]
    assert sorted(found) == [
        ("[0].sourceAddressPrefixes[0]", "has bits set t"),
        ("[0].sourcePortRange", "not a port ran"),
        ("[1]", "says no source"),
        ("[1]", "says no source"),
        ("[2]", "says no source"),
        ("[2].destinationAddressPrefix", "not an IPv4 ad"),
    ]


def test_a_mistake_brings_no_others_that_are_not_there() -> None:
    (line,) = lines(grouped(rule(sourceAddressPrefix="10.0.0.1/8")))
    assert line.startswith(".sourceAddressPrefix = 10.0.0.1/8: has bits set")
    data = grouped(rule(destinationAddressPrefix="Partner"))
    data["serviceTag"] = data.pop("serviceTags")
    assert lines(data) == ["serviceTag: unknown key; did you mean serviceTags?"]
    data["tagsOfServices"] = data.pop("serviceTag")
    assert [line.partition(";")[0] for line in lines(data)] == ["tagsOfServices: unknown key"]
    data = grouped(networkSecurityGroups=[{"name": "n", "securityRule": []}])
    (line,) = (str(p) for p in load_text(json.dumps(data), "f").problems)
    assert line.endswith("unknown key; did you mean securityRules?")
