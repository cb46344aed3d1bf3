"""How single resources are carried over, property by property, and what is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.importing.arm import (
    identity,
    imported,
    interface,
    network,
    resource,
    rule,
    run,
    template,
)


def rules_of(directory: Path, *rules: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    group = resource("networkSecurityGroups", "n", securityRules=list(rules))
    data, lines = imported(directory, [network(), group])
    return data["networkSecurityGroups"][0].get("securityRules", []), lines


def test_augmented_rules_and_application_security_groups(tmp_path: Path) -> None:
    given = rule(
        sourceAddressPrefix="",
        sourceAddressPrefixes=["10.0.0.0/8", "192.0.2.1"],
        destinationAddressPrefix=None,
        destinationApplicationSecurityGroups=[identity("applicationSecurityGroups/Web")],
        destinationPortRange=None,
        destinationPortRanges=[80, "8000-8100"],
        protocol="TCP",
        access="allow",
    )
    (made,), lines = rules_of(tmp_path, given)
    assert made == {
        "name": "r",
        "priority": 100,
        "direction": "Inbound",
        "access": "Allow",
        "protocol": "Tcp",
        "sourceAddressPrefixes": ["10.0.0.0/8", "192.0.2.1"],
        "sourcePortRange": "*",
        "destinationApplicationSecurityGroups": ["Web"],
        "destinationPortRanges": ["80", "8000-8100"],
    }
    assert lines == []


def test_ipv6_is_taken_out_of_a_rule_or_takes_the_rule_out(tmp_path: Path) -> None:
    mixed = rule(
        "mixed", sourceAddressPrefix=None, sourceAddressPrefixes=["10.0.0.0/8", "fd00::/8"]
    )
    alone = rule("alone", destinationAddressPrefix="::/0", priority=101)
    made, lines = rules_of(tmp_path, mixed, alone)
    assert [r["name"] for r in made] == ["mixed"]
    assert made[0]["sourceAddressPrefixes"] == ["10.0.0.0/8"]
    assert lines == [
        "networkSecurityGroups/n: securityRules[mixed].sourceAddressPrefixes: not carried over (fd00::/8): IPv6 is not supported",
        "networkSecurityGroups/n: securityRules[alone]: not carried over: a rule for IPv6, which is not supported",
    ]


def test_a_rule_with_an_unknown_part_stays_for_check_to_refuse(tmp_path: Path) -> None:
    group = resource("networkSecurityGroups", "n", securityRules=[rule(access="[utcNow()]")])
    data, lines = imported(tmp_path, template({**group, "id": None}))
    assert "access" not in data["networkSecurityGroups"][0]["securityRules"][0]
    assert (
        "networkSecurityGroups/n: securityRules[r].access: not carried over: [utcNow()]: function utcNow is not carried over"
        in lines
    )


@pytest.mark.parametrize(
    ("rules", "refused"),
    [
        ([rule(destinationAddressPrefix=None, destinationAddressPrefixes=["192.0.2.0/24", "[utcNow()]"])], "says no destination: "),
        ([rule(destinationPortRange=None, destinationPortRanges=["80", "[utcNow()]"])], "says no destination ports: "),
        ([rule(sourceAddressPrefix=None, sourceApplicationSecurityGroups=[identity("applicationSecurityGroups/a"), {"id": "[utcNow()]"}])], "= not-carried-over: no such name"),
        ([rule(), "[utcNow()]"], "no such service tag"),
        ([rule(name="[utcNow()]")], "name: missing"),
        ("[utcNow()]", "no such service tag"),
    ],
)  # fmt: skip
def test_what_is_not_known_of_rules_makes_no_narrower_group_that_passes(
    tmp_path: Path, rules: object, refused: str
) -> None:
    group = resource("networkSecurityGroups", "n", securityRules=rules) | {"id": None}
    said = run(tmp_path, template(network(), group)).stderr.splitlines()
    assert any("function utcNow is not carried over" in line for line in said)
    (line,) = (line for line in said if "check will say" in line and "warning" not in line)
    assert refused in line


@pytest.mark.parametrize(
    "changes",
    [
        {"condition": "[equals(1, 1)]"},
        {"copy": {"name": "c", "count": 3}},
        {"copy": {"name": "c", "count": 3}, "name": "[concat('n/deny', copyIndex())]"},
        {"name": "[utcNow()]"},
        {"name": ""},
        {"existing": True},
        {"properties": "[variables('gone')]"},
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_rule_as_a_resource_of_its_own_that_is_lost_leaves_a_group_that_check_refuses(
    tmp_path: Path, changes: dict[str, object], nested: bool
) -> None:
    kind = "networkSecurityGroups"
    group = resource(kind, "n", securityRules=[rule()]) | {"id": None}
    other = rule("deny", access="Deny", priority=101)
    own = {**other, "type": f"Microsoft.Network/{kind}/securityRules", "name": "n/deny", **changes}
    group["resources"] = [own] if nested else []
    resources = [group] if nested else [own, group]
    said = run(tmp_path, template(network(), *resources)).stderr.splitlines()
    (line,) = (line for line in said if "check will say" in line and "warning" not in line)
    assert "notCarriedOver[0]" in line
    assert any("not carried over" in line for line in said)


def test_an_address_space_of_which_a_prefix_is_not_known_is_refused_by_check(
    tmp_path: Path,
) -> None:
    space = network() | {"id": None}
    space["properties"]["addressSpace"]["addressPrefixes"].append("[utcNow()]")
    said = run(tmp_path, template(space)).stderr.splitlines()
    (line,) = (line for line in said if "check will say" in line and "warning" not in line)
    assert "notCarriedOver[0]" in line


def test_a_rule_that_is_not_deployed_is_left_out(tmp_path: Path) -> None:
    kind = "networkSecurityGroups"
    group = resource(kind, "n", securityRules=[rule()]) | {"id": None}
    own = {**rule("deny"), "type": f"Microsoft.Network/{kind}/securityRules", "name": "n/deny"}
    data, _ = imported(tmp_path, template(network(), group, own | {"condition": False}))
    assert [r["name"] for r in data[kind][0]["securityRules"]] == ["r"]


def test_a_group_whose_properties_are_not_known_is_refused_by_check(tmp_path: Path) -> None:
    group = resource("networkSecurityGroups", "n") | {"id": None, "properties": "[utcNow()]"}
    said = run(tmp_path, template(network(), group)).stderr
    assert ": notCarriedOver[0]: " in said


def test_a_membership_that_is_not_known_is_refused_by_check(tmp_path: Path) -> None:
    groups = [identity("applicationSecurityGroups/a"), {"id": "[utcNow()]"}]
    nic = interface("a", "10.0.1.4", applicationSecurityGroups=groups)
    said = run(tmp_path, template(network(), nic | {"id": None})).stderr
    assert "applicationSecurityGroups[0] = not-carried-over: no such name" in said


@pytest.mark.parametrize("reference", ["[utcNow()]", {"id": "[utcNow()]"}])
def test_a_reference_to_a_group_that_is_not_known_is_refused_by_check(
    tmp_path: Path, reference: object
) -> None:
    nic = interface("a", "10.0.1.4")
    nic["properties"]["networkSecurityGroup"] = reference
    said = run(tmp_path, template(network(), nic | {"id": None})).stderr
    assert "networkSecurityGroup = not-carried-over: no such name" in said


def test_a_group_that_is_not_in_the_files_stays_referred_to(tmp_path: Path) -> None:
    nic = interface("a", "10.0.1.4")
    nic["properties"]["networkSecurityGroup"] = identity("networkSecurityGroups/gone")
    data, lines = imported(tmp_path, [network(), nic])
    assert data["virtualMachines"][0]["networkSecurityGroup"] == "gone"
    assert lines == [
        "networkInterfaces/a: networkSecurityGroup: gone is not in the files; give az network nsg show, too"
    ]


def test_rules_and_subnets_that_stand_alone_find_their_parents(tmp_path: Path) -> None:
    alone = [
        {**rule("r"), **identity("networkSecurityGroups/n/securityRules/r")},
        {**identity("virtualNetworks/v/subnets/s"), "name": "s", "addressPrefix": "10.3.0.0/24"},
    ]
    data, lines = imported(tmp_path, alone)
    assert data["networkSecurityGroups"][0]["securityRules"][0]["name"] == "r"
    assert data["virtualNetwork"] == {
        "addressPrefixes": ["10.3.0.0/24"],
        "subnets": [{"name": "s", "addressPrefix": "10.3.0.0/24"}],
    }
    assert lines == ["virtualNetworks/v: addressSpace: not known: made of the subnets' prefixes"]


def test_dynamic_interfaces_get_the_next_free_addresses(tmp_path: Path) -> None:
    nics = [interface("a"), interface("b", "10.0.1.4"), interface("c"), interface("d", "10.0.1.6")]
    data, lines = imported(tmp_path, [network(), *nics])
    addresses = {vm["name"]: vm["privateIPAddress"] for vm in data["virtualMachines"]}
    assert addresses == {"a": "10.0.1.5", "b": "10.0.1.4", "c": "10.0.1.7", "d": "10.0.1.6"}
    assert len(lines) == 2


def test_a_full_subnet_is_said(tmp_path: Path) -> None:
    nics = [interface(f"n{number}") for number in range(5)]
    data, lines = imported(tmp_path, [network(web="10.0.1.0/29"), *nics])
    assert [vm["privateIPAddress"] for vm in data["virtualMachines"]] == [
        "10.0.1.4",
        "10.0.1.5",
        "10.0.1.6",
    ]
    assert sum("subnet web is full" in line for line in lines) == 2


def test_public_ips_without_address_get_free_documentation_addresses(tmp_path: Path) -> None:
    pips = [
        resource("publicIPAddresses", "known", ipAddress="203.0.113.1"),
        resource("publicIPAddresses", "a"),
        resource("publicIPAddresses", "b", publicIPAllocationMethod="Dynamic"),
    ]
    nic = interface("n", "10.0.1.4", publicIPAddress=identity("publicIPAddresses/elsewhere"))
    data, lines = imported(tmp_path, [network(), *pips, nic])
    addresses = {pip["name"]: pip["ipAddress"] for pip in data["publicIPAddresses"]}
    assert addresses == {
        "known": "203.0.113.1",
        "a": "203.0.113.2",
        "b": "203.0.113.3",
        "elsewhere": "203.0.113.4",
    }
    assert (
        lines[-1]
        == "publicIPAddresses/elsewhere: ipAddress: not in the files; 203.0.113.4 is used instead"
    )


def test_a_standard_public_ip_without_a_group_is_closed_as_in_azure(tmp_path: Path) -> None:
    pip = {
        **resource("publicIPAddresses", "p", ipAddress="203.0.113.9"),
        "sku": {"name": "Standard"},
    }
    nic = interface("n", "10.0.1.4", publicIPAddress=identity("publicIPAddresses/P"))
    data, lines = imported(tmp_path, [network(), pip, nic])
    assert data["virtualMachines"][0]["publicIPAddress"] == "p"
    assert lines == [
        "networkInterfaces/n: ipConfigurations[main].publicIPAddress: p is Standard: without a security group nothing comes in"
    ]
    assert data["gateway"]["profile"] == "azure-current"
    group = resource("networkSecurityGroups", "g", securityRules=[])
    nic["properties"]["networkSecurityGroup"] = identity("networkSecurityGroups/g")
    data, lines = imported(tmp_path, [network(), pip, nic, group])
    assert (data["gateway"]["profile"], lines) == ("azure-2017", [])


def test_the_vm_may_be_the_one_that_knows_its_interfaces(tmp_path: Path) -> None:
    machine = {
        "id": "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm",
        "name": "vm",
        "hardwareProfile": {"vmSize": "Standard_B1s"},
        "networkProfile": {
            "networkInterfaces": [
                {**identity("networkInterfaces/a"), "primary": False},
                {**identity("networkInterfaces/b"), "primary": True},
            ]
        },
    }
    nics = [interface("a", "10.0.1.4"), interface("b", "10.0.1.5")]
    data, lines = imported(tmp_path, [network(), machine, *nics])
    assert [vm["name"] for vm in data["virtualMachines"]] == ["a", "vm"]
    assert lines == [
        "networkInterfaces/a: virtualMachine: a further interface of vm: a VM of its own here, a"
    ]


def test_nothing_of_a_resource_gets_lost(tmp_path: Path) -> None:
    nic = interface(
        "n", "10.0.1.4", gatewayLoadBalancer=identity("loadBalancers/g/frontendIPConfigurations/f")
    )
    nic["properties"] |= {
        "futureSwitch": True,
        "futureNumber": 7,
        "futureNo": False,
        "dnsSettings": {},
    }
    _, lines = imported(tmp_path, [network(), nic])
    assert lines == [
        "networkInterfaces/n: futureSwitch: not carried over (true)",
        "networkInterfaces/n: futureNumber: not carried over (7)",
        "networkInterfaces/n: ipConfigurations[main].gatewayLoadBalancer: not carried over",
    ]


def test_pools_of_addresses_and_internal_or_gateway_balancers(tmp_path: Path) -> None:
    def balancer(name: str, frontend: dict[str, Any], sku: str) -> dict[str, Any]:
        made = resource(
            "loadBalancers",
            name,
            frontendIPConfigurations=[{"name": "f", "properties": frontend}],
            backendAddressPools=[
                {
                    "name": "p",
                    "properties": {
                        "loadBalancerBackendAddresses": [
                            {"name": "x", "properties": {"ipAddress": "10.0.1.4"}},
                            {"name": "y", "properties": {"ipAddress": "10.0.1.99"}},
                        ]
                    },
                }
            ],
        )
        return {**made, "sku": {"name": sku}}

    public = {"publicIPAddress": identity("publicIPAddresses/p")}
    inner = {"subnet": identity("virtualNetworks/v/subnets/web"), "privateIPAddress": "10.0.1.50"}
    pip = resource("publicIPAddresses", "p", ipAddress="203.0.113.9")
    balancers = [
        balancer("a", public, "Basic"),
        balancer("b", inner, "Basic"),
        balancer("c", public, "Gateway"),
    ]
    data, lines = imported(tmp_path, [network(), pip, interface("n", "10.0.1.4"), *balancers])
    (made,) = data["loadBalancers"]
    assert made["backendAddressPools"] == [{"name": "p", "virtualMachines": ["n"]}]
    assert lines == [
        "loadBalancers/a: backendAddressPools[p].loadBalancerBackendAddresses[y].ipAddress: not carried over: no VM of the files has 10.0.1.99",
        "loadBalancers/b: frontendIPConfigurations[f]: not carried over: an internal frontend",
        "loadBalancers/b: frontendIPConfigurations: not carried over: no public frontend",
        "loadBalancers/c: sku: not carried over (Gateway): a load balancer is Basic or Standard",
    ]


@pytest.mark.parametrize("existing", [False, True])
def test_symbolic_names_and_conditions(tmp_path: Path, existing: bool) -> None:
    nsg = {"type": "Microsoft.Network/networkSecurityGroups", "name": "n", "existing": existing}
    spare = {**nsg, "name": "s", "existing": False, "condition": "[equals(1, 1)]"}
    document = template(languageVersion="2.0") | {
        "resources": {"group": nsg, "spare": spare, "v": network()}
    }
    data, lines = imported(tmp_path, document)
    assert ("networkSecurityGroups" in data) is not existing
    assert (
        "networkSecurityGroups/s: condition: not carried over: [equals(1, 1)]: function equals is not carried over"
        in lines
    )
    assert any("an existing resource" in line for line in lines) is existing


def test_nested_deployments_and_copied_properties_are_named(tmp_path: Path) -> None:
    nested = {
        "type": "Microsoft.Resources/deployments",
        "name": "inner",
        "properties": {"template": template(network("w"))},
    }
    nsg = resource(
        "networkSecurityGroups", "n", copy=[{"name": "securityRules", "count": 2, "input": rule()}]
    )
    _, lines = imported(tmp_path, template(nested, network(), nsg))
    assert lines == [
        "deployments/inner: not carried over: a nested deployment; give its template as a file of its own",
        "networkSecurityGroups/n: copy: not carried over",
    ]


@pytest.mark.parametrize(
    "name", ["1e5", "no", "22", "0x10", "on", "nan", "1_0", "a.b-c_", "10.0.0.1"]
)
def test_names_that_look_like_something_else_stay_text(tmp_path: Path, name: str) -> None:
    address = name if name == "10.0.0.1" else "10.0.1.4"
    data, _ = imported(tmp_path, [network(web="10.0.0.0/16"), interface(name, address)])
    assert data["virtualMachines"][0]["name"] == name


def test_text_of_any_kind_is_yaml_that_reads_back(tmp_path: Path) -> None:
    odd = "a: b # c, {d} [e] \n 'f' \"g\" \u00e4 \u2028 \x1b[31m \\ \U0001f600 - ? | >"
    (made,), _ = rules_of(tmp_path, rule(description=odd))
    assert made["description"] == odd
    (made,), _ = rules_of(tmp_path, rule(description="lone \ud800 surrogate"))
    assert made["description"] == "lone \ufffd surrogate"


def test_an_inbound_nat_rule_for_a_pool_is_carried_over(tmp_path: Path) -> None:
    balancer = resource(
        "loadBalancers",
        "lb",
        frontendIPConfigurations=[
            {"name": "fe", "properties": {"publicIPAddress": identity("publicIPAddresses/p")}}
        ],
        backendAddressPools=[{"name": "pool", "properties": {}}],
        inboundNatRules=[
            {
                "name": "ssh",
                "properties": {
                    "frontendIPConfiguration": identity(
                        "loadBalancers/lb/frontendIPConfigurations/fe"
                    ),
                    "backendAddressPool": identity("loadBalancers/lb/backendAddressPools/pool"),
                    "frontendPort": 0,
                    "frontendPortRangeStart": 50000,
                    "frontendPortRangeEnd": 50099,
                    "backendPort": 22,
                    "protocol": "tcp",
                },
            }
        ],
    )
    public = resource("publicIPAddresses", "p", ipAddress="203.0.113.10")
    data, lines = imported(tmp_path, [network(), public, balancer])
    assert lines == []
    assert data["loadBalancers"][0]["inboundNatRules"] == [
        {
            "name": "ssh",
            "frontendIPConfiguration": "fe",
            "protocol": "Tcp",
            "frontendPortRangeStart": 50000,
            "frontendPortRangeEnd": 50099,
            "backendAddressPool": "pool",
            "backendPort": 22,
        }
    ]
