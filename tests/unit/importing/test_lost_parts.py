"""What an import cannot know must not go missing unseen: ``check`` refuses the result, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.model import load_text
from tests.unit.importing.arm import identity, interface, network, resource, rule, run, template

UNKNOWN = "[equals(1, 1)]"
LOOP = {"name": "several", "count": 3}
NSG = "Microsoft.Network/networkSecurityGroups"


def refusals(directory: Path, *resources: Any) -> list[str]:
    """What check says of an import of these, each line without what is the same in all."""
    result = run(directory, template(*resources))
    assert result.exit_code == 0, result.output
    loaded = load_text(result.stdout, "result")
    errors = [problem for problem in loaded.problems if problem.severity == "error"]
    assert (loaded.configuration is None) is bool(errors)
    for problem in errors:
        assert f"check will say: {problem}" in result.stderr.splitlines()
    told = "; write what it stands for into this file, then take this line away"
    return [p.message.replace(f"{directory}/", "").removesuffix(told) for p in errors]


def group(*rules: dict[str, Any]) -> dict[str, Any]:
    return resource("networkSecurityGroups", "n", securityRules=list(rules))


def alone(kind: str = NSG, child: str = "securityRules", **changes: Any) -> dict[str, Any]:
    """A child as a resource of its own: a rule that denies, say."""
    parent = "n" if kind == NSG else "v"
    return {"type": f"{kind}/{child}", **rule(access="Deny"), "name": f"{parent}/deny", **changes}


def test_what_is_known_is_not_refused(tmp_path: Path) -> None:
    stands_alone = alone(properties=rule(priority=200, access="Deny")["properties"])
    assert refusals(tmp_path, network(), group(rule()), stands_alone) == []
    left_out = alone(condition=False)
    assert refusals(tmp_path, network(), group(rule()), left_out) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"condition": UNKNOWN},
            (
                "in.json: networkSecurityGroups/n/securityRules/deny: condition: [equals(1, 1)]: "
                "function equals is not carried over"
            ),
        ),
        (
            {"copy": LOOP},
            (
                "in.json: resources[2].copy: "
                "Microsoft.Network/networkSecurityGroups/securityRules made by a copy loop"
            ),
        ),
        (
            {"name": "[concat('n/', uniqueString('x'))]"},
            (
                "in.json: resources[2].name: Microsoft.Network/networkSecurityGroups/securityRules: "
                "[concat('n/', uniqueString('x'))]: function uniqueString is not carried over"
            ),
        ),
        (
            {"name": "[uniqueString('x')]"},
            (
                "in.json: resources[2].name: Microsoft.Network/networkSecurityGroups/securityRules: "
                "[uniqueString('x')]: function uniqueString is not carried over"
            ),
        ),
        (
            {"properties": "[union(variables('a'), variables('b'))]"},
            (
                "in.json: networkSecurityGroups/n/securityRules/deny: properties: "
                "[union(variables('a'), variables('b'))]: function union is not carried over"
            ),
        ),
    ],
)
def test_a_rule_of_its_own(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    assert refusals(tmp_path, network(), group(rule()), alone(**changes)) == [says]


def test_a_rule_within_its_groups_resources(tmp_path: Path) -> None:
    for changes in ({"condition": UNKNOWN}, {"copy": LOOP}, {"name": UNKNOWN}):
        inner = alone(type="securityRules", name="deny") | changes
        outer = {**group(rule()), "resources": [inner]}
        assert len(refusals(tmp_path, network(), outer)) == 1
    assert len(refusals(tmp_path, network(), {**group(rule()), "resources": UNKNOWN})) == 1


def test_a_group_whose_properties_are_unknown(tmp_path: Path) -> None:
    unknown = {**group(), "properties": "[variables('none')]"}
    assert refusals(tmp_path, network(), unknown) == [
        "in.json: networkSecurityGroups/n: properties: there is no variable none"
    ]


def test_rules_added_to_a_group_that_is_not_in_the_files(tmp_path: Path) -> None:
    """The group's own rules are unknown, unless az listed all of them."""
    (says,) = refusals(tmp_path, network(), alone())
    assert says == (
        "in.json: networkSecurityGroups/n: only rules of it are in the files; "
        "give az network nsg show, too"
    )
    listed = {**rule(), "id": f"{identity('networkSecurityGroups/n/securityRules/r')['id']}"}
    result = run(tmp_path, [network(), {**listed, "type": f"{NSG}/securityRules"}])
    assert load_text(result.stdout, "result").configuration is not None


@pytest.mark.parametrize(
    ("kind", "child"),
    [
        ("Microsoft.Network/virtualNetworks", "subnets"),
        ("Microsoft.Network/loadBalancers", "backendAddressPools"),
        ("Microsoft.Network/loadBalancers", "inboundNatRules"),
    ],
)
def test_other_children(tmp_path: Path, kind: str, child: str) -> None:
    for changes in ({"condition": UNKNOWN}, {"copy": LOOP}, {"name": UNKNOWN}):
        lost = alone(kind, child, **changes)
        assert len(refusals(tmp_path, network(), lost)) == 1


@pytest.mark.parametrize(
    "kind",
    [
        "virtualNetworks",
        "networkSecurityGroups",
        "networkInterfaces",
        "publicIPAddresses",
        "loadBalancers",
        "natGateways",
    ],
)
def test_whole_resources(tmp_path: Path, kind: str) -> None:
    for changes in ({"condition": UNKNOWN}, {"copy": LOOP}, {"name": UNKNOWN}):
        lost = resource(kind, "x") | changes
        assert len(refusals(tmp_path, network(), lost)) == 1


def test_what_is_never_carried_over_is_only_named(tmp_path: Path) -> None:
    for type_ in ("Microsoft.Compute/virtualMachines", "Microsoft.Storage/storageAccounts"):
        lost = {"type": type_, "name": "x", "copy": LOOP}
        assert refusals(tmp_path, network(), lost) == []


def test_nested_deployments_with_network_resources(tmp_path: Path) -> None:
    def nested(**properties: Any) -> dict[str, Any]:
        return {"type": "Microsoft.Resources/deployments", "name": "d", "properties": properties}

    says = ["in.json: deployments/d: a nested deployment; give its template as a file of its own"]
    assert refusals(tmp_path, network(), nested(template=template(group()))) == says
    assert refusals(tmp_path, network(), nested(templateLink={"uri": "https://x"})) == says
    assert refusals(tmp_path, network(), nested(template=template())) == []


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("[variables('rule')]", "resources[2]: must be a mapping"),
        (
            alone(name="n/deny/more"),
            f"networkSecurityGroups/n/securityRules/deny: {NSG}/securityRules has a name of another length",
        ),
        (
            alone(condition="yes"),
            "networkSecurityGroups/n/securityRules/deny: condition: must be true or false",
        ),
        (
            resource("networkSecurityGroups", "m", flushConnection="[equals(1, 1)]"),
            "networkSecurityGroups/m: flushConnection: [equals(1, 1)]: function equals is not carried over",
        ),
    ],
)
def test_what_is_written_wrongly(tmp_path: Path, lost: Any, says: str) -> None:
    assert refusals(tmp_path, network(), group(rule()), lost) == [f"in.json: {says}"]


def test_an_interface_in_a_subnet_that_is_not_there(tmp_path: Path) -> None:
    subnet = identity("virtualNetworks/v/subnets/gone")
    (says,) = refusals(tmp_path, network(), interface("i", "10.0.1.4", subnet=subnet))
    assert says == (
        "in.json: networkInterfaces/i: ipConfigurations[main].subnet: "
        "virtualNetworks/v/subnets/gone is not in the files, nor what its security group denies"
    )


def test_once_every_line_is_taken_away_the_file_loads(tmp_path: Path) -> None:
    result = run(tmp_path, template(network(), group(rule()), alone(condition=UNKNOWN)))
    assert load_text(result.stdout, "result").configuration is None
    head, key, _ = result.stdout.partition("notCarriedOver:\n")
    assert key
    for rest in ("", key, "notCarriedOver: []\n"):
        assert load_text(head + rest, "result").configuration is not None


def test_an_unknown_part_of_the_address_space(tmp_path: Path) -> None:
    vnet = network()
    vnet["properties"]["addressSpace"]["addressPrefixes"].append("[parameters('more')]")
    assert refusals(tmp_path, vnet) == [
        "in.json: virtualNetworks/v: addressSpace.addressPrefixes[1]: there is no parameter more"
    ]


@pytest.mark.parametrize("key", ["subnets", "addressSpace"])
def test_a_networks_lists(tmp_path: Path, key: str) -> None:
    vnet = network()
    vnet["properties"][key] = "[variables('none')]"
    assert len(refusals(tmp_path, vnet)) == 1
    vnet = network()
    vnet["properties"]["copy"] = [{"name": key, "count": 2, "input": {}}]
    assert refusals(tmp_path, vnet) == ["in.json: virtualNetworks/v: copy: not carried over"]


def test_a_security_group_that_a_subnet_may_have(tmp_path: Path) -> None:
    vnet = network()
    vnet["properties"]["subnets"][0]["properties"]["networkSecurityGroup"] = UNKNOWN
    assert len(refusals(tmp_path, vnet)) >= 1
    inner = interface("i", "10.0.1.4")
    inner["properties"]["networkSecurityGroup"] = {"id": UNKNOWN}
    assert len(refusals(tmp_path, network(), inner)) >= 1
