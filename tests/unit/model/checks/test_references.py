"""Names that lead nowhere, that two have, or that are used where one use is allowed: the line of each."""

from __future__ import annotations

import pytest

from tests.unit.model.files import changed, messages

RULE = "loadBalancers[0].loadBalancingRules[0]"
MISTAKES = {
    "unknown public IP": (
        "publicIPAddress: pip-vm2", "publicIPAddress: pip-vm",
        ("virtualMachines[1].publicIPAddress = pip-vm: no such name in publicIPAddresses; "
        "did you mean pip-vm2?"),
    ),
    "unknown VM": (
        "[vm1, vm2]", "[vm1, web7]",
        ("loadBalancers[0].backendAddressPools[0].virtualMachines[1] = web7: no such name in "
        "virtualMachines; known: vm1, vm2, vm3"),
    ),
    "unknown frontend": (
        "name: web, frontendIPConfiguration: fe1", "name: web, frontendIPConfiguration: fe",
        (f"{RULE}.frontendIPConfiguration = fe: no such name in frontendIPConfigurations; "
        "did you mean fe2?"),
    ),
    "unknown pool": (
        "backendAddressPool: pool", "backendAddressPool: poll",
        (f"{RULE}.backendAddressPool = poll: no such name in backendAddressPools; "
        "did you mean pool?"),
    ),
    "unknown probe": (
        "probe: p,", "probe: q,",
        f"{RULE}.probe = q: no such name in probes; known: p",
    ),
    "unknown VM of a NAT rule": (
        "virtualMachine: vm1", "virtualMachine: vm9",
        ("loadBalancers[0].inboundNatRules[0].virtualMachine = vm9: no such name in "
        "virtualMachines; did you mean vm3?"),
    ),
    "duplicate name": (
        "name: vm3", "name: VM1",
        ("virtualMachines[2].name = VM1: name already used by virtualMachines[0] (vm1): "
        "capitals make no difference"),
    ),
    "frontends that share a public IP": (
        "publicIPAddress: pip-b", "publicIPAddress: pip-a",
        ("loadBalancers[0].frontendIPConfigurations[1].publicIPAddress = pip-a: public IP address "
        "already used by loadBalancers[0].frontendIPConfigurations[0].publicIPAddress; "
        "allowed: one use"),
    ),
    "public IP of a VM and of default outbound access": (
        "publicIPAddresses: [pip-d]", "publicIPAddresses: [pip-d, pip-vm2]",
        ("defaultOutboundAccess.publicIPAddresses[1] = pip-vm2: public IP address already used by "
        "virtualMachines[1].publicIPAddress; allowed: one use"),
    ),
    "inside is outside": (
        "outside: wan0", "outside: lan0",
        ("gateway.inside[0] = lan0: is also gateway.outside; "
        "allowed: an interface that faces the VNet"),
    ),
    "inside twice": (
        "[lan0]", "[lan0, lan0]",
        "gateway.inside[1] = lan0: interface named twice",
    ),
    "VM twice in a pool": (
        "[vm1, vm2]", "[vm1, vm1]",
        ("loadBalancers[0].backendAddressPools[0].virtualMachines[1] = vm1: "
        "VM named twice in this pool"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES.values(), ids=MISTAKES)
def test_the_one_mistake_is_named_and_nothing_else(old: str, new: str, message: str) -> None:
    assert messages(changed(old, new)) == [message]
