"""Addresses that overlap, collide or lie outside of what they must be in: the line of each."""

from __future__ import annotations

import pytest

from tests.unit.model.files import changed, messages

MISTAKES = {
    "overlapping subnets": (
        "10.0.1.0/24}", "10.0.1.0/24}\n    - {name: db, addressPrefix: 10.0.1.128/25}",
        ("virtualNetwork.subnets[1].addressPrefix = 10.0.1.128/25: overlaps "
        "virtualNetwork.subnets[0].addressPrefix (10.0.1.0/24)"),
    ),
    "subnet outside the network": (
        "10.0.1.0/24}", "10.0.1.0/24}\n    - {name: db, addressPrefix: 10.1.1.0/24}",
        ("virtualNetwork.subnets[1].addressPrefix = 10.1.1.0/24: subnet db is outside the virtual "
        "network; allowed: within 10.0.0.0/16"),
    ),
    "subnet too small": (
        "10.0.1.0/24}", "10.0.1.0/24}\n    - {name: db, addressPrefix: 10.0.2.0/30}",
        ("virtualNetwork.subnets[1].addressPrefix = 10.0.2.0/30: too small for a subnet; "
        "allowed: /29 or larger"),
    ),
    "special prefix": (
        "[10.0.0.0/16]", "[10.0.0.0/16, 127.0.0.0/16]",
        ("virtualNetwork.addressPrefixes[1] = 127.0.0.0/16: Azure takes no part of 127.0.0.0/8 "
        "into a virtual network"),
    ),
    "VM outside every subnet": (
        "10.0.1.6", "10.0.2.6",
        ("virtualMachines[2].privateIPAddress = 10.0.2.6: VM vm3 is outside every subnet; "
        "allowed: within 10.0.1.0/24 (web)"),
    ),
    "reserved address": (
        "10.0.1.6", "10.0.1.3",
        ("virtualMachines[2].privateIPAddress = 10.0.1.3: Azure reserves the first 4 addresses of "
        "a subnet and the last; allowed in web: 10.0.1.4 to 10.0.1.254"),
    ),
    "private address used twice": (
        "10.0.1.6", "10.0.1.4",
        "virtualMachines[2].privateIPAddress = 10.0.1.4: private address already used by VM vm1",
    ),
    "VM named by another's address": (
        "name: vm3", "name: 10.0.1.9",
        ("virtualMachines[2].name = 10.0.1.9: a VM can be named by its own address (10.0.1.6) "
        "but not by another's"),
    ),
    "public address used twice": (
        "203.0.113.13", "203.0.113.10",
        "publicIPAddresses[3].ipAddress = 203.0.113.10: address already used by pip-a",
    ),
    "public address in the network": (
        "203.0.113.10", "10.0.7.1",
        ("publicIPAddresses[0].ipAddress = 10.0.7.1: a public IP cannot be within the virtual "
        "network (10.0.0.0/16)"),
    ),
    "public address that no host has": (
        "203.0.113.10", "224.0.0.1",
        "publicIPAddresses[0].ipAddress = 224.0.0.1: not an address that a host can have",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES.values(), ids=MISTAKES)
def test_the_one_mistake_is_named_and_nothing_else(old: str, new: str, message: str) -> None:
    assert messages(changed(old, new)) == [message]
