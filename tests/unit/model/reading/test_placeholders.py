"""A key that is missing or misspelt hides no other mistake, and brings none that is not there."""

from __future__ import annotations

import pytest

from gateway.model.reading.placeholders import Substitutes
from tests.unit.model.files import changed, messages

RULE = "loadBalancers[0].loadBalancingRules[0]"

# (old, new) in a good file, then all that is to be said of it.
WITHHELD = {
    "gateway without outside": (
        "inside: [lan0]\n  outside: wan0", "inside: [lan0, lan0]\n  profile: azure-2016\n  timeScale: x",
        [
            "gateway.inside[1] = lan0: interface named twice",
            "gateway.outside: missing",
            "gateway.profile = azure-2016: no such profile",
            "gateway.timeScale = x: must be a number",
        ],
    ),
    "gateway with a misspelt outside": (
        "outside: wan0", "outsde: lan0",
        ["gateway.inside[0] = lan0: is also gateway.outside", "gateway.outsde: unknown key"],
    ),
    "a misspelt key with a wrong value": (
        "outside: wan0", "outsde: wan 0",
        ["gateway.outsde: unknown key", "gateway.outside = wan 0: not an interface name"],
    ),
    "network without prefixes": (
        "addressPrefixes: [10.0.0.0/16]", "",
        ["virtualNetwork.addressPrefixes: missing"],
    ),
    "network without prefixes, and subnets that overlap": (
        "addressPrefixes: [10.0.0.0/16]\n  subnets:",
        "subnets:\n    - {name: all, addressPrefix: 10.0.0.0/8, networkSecurityGroup: none}",
        [
            "virtualNetwork.addressPrefixes: missing",
            "virtualNetwork.subnets[0].networkSecurityGroup = none: no such name in networkSecurityGroups",
            "virtualNetwork.subnets[1].addressPrefix = 10.0.1.0/24: overlaps virtualNetwork.subnets[0].addressPrefix (10.0.0.0/8)",
        ],
    ),
    "VM without address": (
        "virtualMachines:", "virtualMachines:\n  - {name: vm1, publicIPAddress: nope}",
        [
            "virtualMachines[0].privateIPAddress: missing",
            "virtualMachines[0].publicIPAddress = nope: no such name in publicIPAddresses",
            "virtualMachines[1].name = vm1: name already used by virtualMachines[0]",
        ],
    ),
    "VM without name": (
        "virtualMachines:", "virtualMachines:\n  - {privateIPAddress: 10.0.1.4}",
        [
            "virtualMachines[0].name: missing",
            "virtualMachines[1].privateIPAddress = 10.0.1.4: private address already used by VM one without a name",
        ],
    ),
    "load balancer without name": (
        "- name: lb\n", "- sku: Standard\n",
        [
            "loadBalancers[0].name: missing",
            "loadBalancers[0].sku = Standard: needs gateway.profile: azure-current",
        ],
    ),
    "rule without a protocol": (
        "probe: p,\n         protocol: Tcp, frontendPort: 80,", "probe: none, frontendPort: 50001,",
        [
            "loadBalancers[0].loadBalancingRules[0].protocol: missing",
            "loadBalancers[0].loadBalancingRules[0].probe = none: no such name in probes",
        ],
    ),
    "rule without a frontend port": (
        "frontendPort: 80,", "disableOutboundSnat: true,",
        [
            "loadBalancers[0].loadBalancingRules[0].frontendPort: missing",
            f"{RULE}.disableOutboundSnat = true: needs gateway.profile: azure-current",
        ],
    ),
    "probe without name": (
        "probes: [{name: p, protocol: Http,", "probes: [{protocol: Tcp,",
        [
            "loadBalancers[0].probes[0].name: missing",
            "loadBalancers[0].probes[0]: requestPath is for probes of protocol Http or Https, this one is Tcp",
        ],
    ),
    "probe without protocol": (
        "protocol: Http,", "", ["loadBalancers[0].probes[0].protocol: missing"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), WITHHELD.values(), ids=WITHHELD)
def test_a_missing_or_misspelt_key_hides_no_other_mistake(
    old: str, new: str, expected: list[str]
) -> None:
    assert sorted(line.split("; ")[0] for line in messages(changed(old, new))) == sorted(expected)


def test_no_two_substitutes_are_alike_and_none_is_in_the_file() -> None:
    data = {"loadBalancers": [{"frontendPort": 1, "backendPort": "2"}]}
    substitutes = Substitutes(data)
    rule = ("loadBalancers", 0, "loadBalancingRules", 0)
    made = [substitutes.of((*rule, key))[key] for key in ("frontendPort", "backendPort") * 3]
    names = [substitutes.of((*rule, "name"))["name"] for _ in range(3)]
    assert len({*made, *names}) == 9
    assert not {1, 2} & set(made)


def test_what_two_rules_differ_in_by_the_missing_key_is_substituted_with_it() -> None:
    rule = ("loadBalancers", 0, "inboundNatRules", 0, "protocol")
    assert Substitutes().of(rule).keys() == {"protocol", "frontendPort", "backendPort"}
    probe = ("loadBalancers", 0, "probes", 0, "protocol")
    assert Substitutes().of(probe).keys() == {"protocol"}
    security = ("networkSecurityGroups", 0, "securityRules", 0, "direction")
    assert Substitutes().of(security).keys() == {"direction", "priority"}


def test_a_sentence_for_the_user_names_no_substitute() -> None:
    substitutes = Substitutes()
    name = substitutes.of(("virtualMachines", 0, "name"))["name"]
    assert substitutes.taken_out(f"used by VM {name}") == "used by VM one without a name"
