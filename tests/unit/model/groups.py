"""A configuration with security groups for the tests, and rules to put into it."""

from __future__ import annotations

import copy
from typing import Any

import yaml

GROUPED: dict[str, Any] = yaml.safe_load("""
gateway: {inside: [lan0], outside: wan0}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16, 172.20.0.0/24]
  subnets:
    - {name: web, addressPrefix: 10.0.1.0/24, networkSecurityGroup: n}
    - {name: data, addressPrefix: 10.0.2.0/24, networkSecurityGroup: n}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4, applicationSecurityGroups: [web, all]}
  - {name: vm2, privateIPAddress: 10.0.1.5, applicationSecurityGroups: [web, all]}
  - {name: vm3, privateIPAddress: 10.0.2.9, applicationSecurityGroups: [all]}
  - {name: vm4, privateIPAddress: 10.0.2.10, networkSecurityGroup: n}
networkSecurityGroups:
  - {name: n, securityRules: []}
applicationSecurityGroups: [{name: web}, {name: all}, {name: empty}]
serviceTags: {values: [{name: Partner, addressPrefixes: [198.51.100.0/25, 198.51.100.128/25]}]}
""")

RULE: dict[str, Any] = {
    "name": "r",
    "priority": 100,
    "direction": "Outbound",
    "access": "Deny",
    "protocol": "Tcp",
    "sourceAddressPrefix": "*",
    "sourcePortRange": "*",
    "destinationAddressPrefix": "Internet",
    "destinationPortRange": "25",
}


def rule(**changes: Any) -> dict[str, Any]:
    """The good rule with some keys changed; None removes one."""
    changed = RULE | changes
    return {key: value for key, value in changed.items() if value is not None}


def grouped(*rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The good configuration with these rules in its one group, and some keys changed."""
    data = copy.deepcopy(GROUPED)
    data["networkSecurityGroups"][0]["securityRules"] = list(rules)
    return data | copy.deepcopy(changes)
