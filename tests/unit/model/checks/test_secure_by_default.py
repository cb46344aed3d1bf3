"""Warnings of Standard addresses at VMs that no group judges: whose, where, and when there is none."""

from __future__ import annotations

import pytest

from gateway.model import load_text
from tests.unit.model.files import LOAD_BALANCED, changed

STANDARD = changed(
    "name: lb\n", "name: lb\n    sku: Standard\n",
    changed("outside: wan0", "outside: wan0\n  profile: azure-current"),
)  # fmt: skip
GROUP = "networkSecurityGroups: [{name: n, securityRules: []}]\n"
LB = "loadBalancers[0]"
RULE, NAT, OWN = (
    f"{LB}.loadBalancingRules[0]", f"{LB}.inboundNatRules[0]", "virtualMachines[1].publicIPAddress",
)  # fmt: skip


def warned(text: str) -> dict[str, str]:
    """Field and whose it is, of the warnings about addresses that admit nothing."""
    problems = load_text(text, "test.yaml").problems
    assert not [p for p in problems if p.severity == "error"]
    lines = [str(p).split(": ", 1)[1] for p in problems if "admits nothing" in p.message]
    return {line.split(" = ")[0]: line.split("warning: ")[1].split(" ha")[0] for line in lines}


def test_each_rule_and_the_vms_own_addresses_have_a_line() -> None:
    assert warned(STANDARD) == {RULE: "VMs vm1, vm2", NAT: "VM vm1", OWN: "VM vm2"}


@pytest.mark.parametrize(
    "text",
    [LOAD_BALANCED, changed("name: lb\n", "name: lb\n", LOAD_BALANCED)],
    ids=["2017", "Basic"],
)
def test_what_is_not_standard_is_open(text: str) -> None:
    assert warned(text) == {}


def test_a_basic_load_balancer_is_open_and_a_vms_own_address_is_not() -> None:
    basic = changed("outside: wan0", "outside: wan0\n  profile: azure-current")
    assert warned(basic) == {OWN: "VM vm2"}


def test_a_group_of_the_subnet_is_one_for_all() -> None:
    text = changed("10.0.1.0/24}", "10.0.1.0/24, networkSecurityGroup: n}", STANDARD) + GROUP
    assert warned(text) == {}


def test_a_group_of_an_interface_is_one_for_its_vm() -> None:
    text = changed("10.0.1.4}", "10.0.1.4, networkSecurityGroup: n}", STANDARD) + GROUP
    assert warned(text) == {RULE: "VM vm2", OWN: "VM vm2"}


def test_many_vms_are_named_by_the_first_three() -> None:
    more = "".join(f"  - {{name: w{n}, privateIPAddress: 10.0.1.{20 + n}}}\n" for n in range(4))
    text = changed("loadBalancers:", f"{more}loadBalancers:", STANDARD)
    text = changed("[vm1, vm2]", "[w0, w1, w2, w3]", text)
    assert warned(text)[RULE] == "VMs w0, w1, w2 and 1 more"
