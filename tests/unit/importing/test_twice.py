"""What the files have twice: silence where both say the same, one line where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.model import load_text
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

NSG = "networkSecurityGroups"
RULES = f"Microsoft.Network/{NSG}/securityRules"


def group(*rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**resource(NSG, "web", securityRules=list(rules)), **changes}


def from_az(name: str = "r", kind: str = "securityRules", **changes: Any) -> dict[str, Any]:
    """A rule of group web as ``az network nsg rule show`` prints it."""
    return {
        **identity(f"{NSG}/web/{kind}/{name}"),
        "etag": 'W/"1"',
        "name": name,
        "provisioningState": "Succeeded",
        "resourceGroup": "rg",
        "type": f"Microsoft.Network/{NSG}/{kind}",
        "sourceAddressPrefixes": [],
        **rule(name, **changes)["properties"],
    }


def ports(data: dict[str, Any]) -> list[str]:
    (only,) = data[NSG]
    return [entry["destinationPortRange"] for entry in only.get("securityRules", [])]


def lost(data: dict[str, Any]) -> list[str]:
    return [line.split("in.json: ")[-1] for line in data.get("notCarriedOver", [])]


def test_two_groups_of_one_id_that_differ_are_named_and_refused_by_check(tmp_path: Path) -> None:
    both = [network(), group(rule()), group(rule(destinationPortRange="443"))]
    data, lines = imported(tmp_path, both)
    says = "the same file has another version of it, which counts"
    assert lines == [f"{NSG}/web: not carried over: {says}"]
    assert lost(data) == [f"{NSG}/web: {says}"]
    assert ports(data) == ["80"]
    assert load_text(run(tmp_path, both).stdout, "result").configuration is None


def test_two_groups_of_one_name_in_two_resource_groups_are_not_mixed_up(tmp_path: Path) -> None:
    """A subnet that means the second one must not get the first one's rules unseen."""
    elsewhere = group(rule(access="Deny"))
    elsewhere["id"] = elsewhere["id"].replace("/rg/", "/other/")
    data, lines = imported(tmp_path, [network(), group(rule()), elsewhere])
    says = "the same file has one of this name already"
    assert lines == [f"{NSG}/web: not carried over: {says}"]
    assert lost(data) == [f"{NSG}/web: {says}"]


def test_two_groups_of_one_name_with_the_same_rules_may_stand_for_each_other(
    tmp_path: Path,
) -> None:
    elsewhere = group(rule())
    elsewhere["id"] = elsewhere["id"].replace("/rg/", "/other/")
    data, lines = imported(tmp_path, [network(), group(rule()), elsewhere])
    assert len(lines) == 1
    assert lost(data) == []


def test_the_same_group_in_another_shape_or_order_needs_no_word(tmp_path: Path) -> None:
    one, two = rule("a"), rule("b", priority=200)
    flat = {
        **identity(f"{NSG}/WEB"),
        "name": "WEB",
        "etag": 'W/"2"',
        "location": "westeurope",
        "defaultSecurityRules": [rule("AllowVnetInBound", priority=65000)],
        "flushConnection": False,
        "securityRules": [from_az("B", priority=200), from_az("a", protocol="TCP")],
    }
    data, lines = imported(tmp_path, [network(), group(one, two), flat])
    assert lines == []
    assert ports(data) == ["80", "80"]
    assert lost(data) == []


@pytest.mark.parametrize(
    "change",
    [
        {"priority": 101},
        {"access": "Deny"},
        {"sourceAddressPrefix": "10.0.0.0/8"},
        {"destinationPortRange": None, "destinationPortRanges": ["80", "81"]},
        {"sourceApplicationSecurityGroups": [identity("applicationSecurityGroups/a")]},
    ],
)
def test_any_difference_that_matters_is_one(tmp_path: Path, change: dict[str, Any]) -> None:
    _, lines = imported(tmp_path, [network(), group(rule()), group(rule(**change))])
    assert any("another version of it" in line for line in lines)


def test_two_versions_of_another_resource_are_named(tmp_path: Path) -> None:
    both = [network(), interface("n", "10.0.1.4"), interface("n", "10.0.1.5")]
    data, lines = imported(tmp_path, both)
    says = "the same file has another version of it, which counts"
    assert lines == [f"networkInterfaces/n: not carried over: {says}"]
    assert [vm["privateIPAddress"] for vm in data["virtualMachines"]] == ["10.0.1.4"]


def test_a_rule_that_its_group_lists_too_counts_and_is_one_line_if_it_differs(
    tmp_path: Path,
) -> None:
    same = from_az()
    data, lines = imported(tmp_path, [network(), group(rule()), same])
    assert (ports(data), lines) == (["80"], [])
    other = from_az(destinationPortRange="443")
    data, lines = imported(tmp_path, [network(), group(rule()), other])
    assert ports(data) == ["443"]
    (line,) = lines
    by_itself = f"has {NSG}/web/securityRules/r on its own, which counts"
    assert line.startswith(f"{NSG}/web: securityRules[r]: not carried over: ")
    assert line.endswith(by_itself)


def test_a_rule_beside_its_group_in_a_template_as_az_group_export_writes_it(
    tmp_path: Path,
) -> None:
    beside = {"type": RULES, **rule("web/r"), "dependsOn": ["[resourceId('a/b', 'c')]"]}
    data, lines = imported(tmp_path, template(network(), group(rule()), beside))
    assert (ports(data), lines) == (["80"], [])


def test_one_rule_twice_in_a_list(tmp_path: Path) -> None:
    data, lines = imported(tmp_path, [network(), from_az(), from_az(destinationPortRange="443")])
    says = "the same file has another version of it, which counts"
    assert lines == [f"{NSG}/web/securityRules/r: not carried over: {says}"]
    assert lost(data) == [f"{NSG}/web/securityRules/r: {says}"]


def test_a_single_rule_is_not_its_whole_group(tmp_path: Path) -> None:
    """``az network nsg rule show``: the group's other rules are not known."""
    data, lines = imported(tmp_path, from_az())
    says = "only rules of it are in the files; give az network nsg show, too"
    assert lines[0] == f"{NSG}/web: {says}"
    assert lost(data) == [f"{NSG}/web: {says}"]
    default = from_az("DenyAllInBound", "defaultSecurityRules", priority=65500)
    data, lines = imported(tmp_path, default)
    assert lost(data) == [f"{NSG}/web: {says}"]


def test_a_list_with_default_rules_is_the_whole_group_without_them(tmp_path: Path) -> None:
    """``az network nsg rule list --include-default``."""
    default = from_az("DenyAllInBound", "defaultSecurityRules", priority=65500)
    data, lines = imported(tmp_path, [network(), from_az(), default])
    assert (ports(data), lines) == (["80"], [])
    data, lines = imported(tmp_path, [network(), default])
    assert data[NSG] == [{"name": "web"}]
    assert lines == []


@pytest.mark.parametrize("removed", [("id",), ("id", "type")])
def test_a_rule_without_its_id_belongs_to_no_group(
    tmp_path: Path, removed: tuple[str, ...]
) -> None:
    orphan = {key: value for key, value in from_az().items() if key not in removed}
    says = f"without its id it is unknown which of the {NSG} has it"
    data, lines = imported(tmp_path, [network(), orphan])
    assert lines == [f"{NSG}/r: not carried over: {says}"]
    assert lost(data) == [f"{NSG}/r: {says}"]
    alone = run(tmp_path, orphan)
    assert alone.exit_code == 1
    assert says in alone.stderr
