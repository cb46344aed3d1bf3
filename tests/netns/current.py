"""Configurations in azure-current for the usual topology: with and without a NAT gateway.

vm1 is behind an outbound rule, vm2 behind a load balancing rule for TCP alone, vm3 has a public IP
of its own; a NAT gateway takes all three.
"""

from __future__ import annotations

import copy
from typing import Any

from tests.netns.gateway import Gateway
from tests.netns.topology import Topology

RULE, LINK, INSTANCE, NAT = "203.0.113.10", "203.0.113.11", "203.0.113.30", "203.0.113.50"

WITHOUT: dict[str, Any] = {
    "virtualNetwork": {
        "addressPrefixes": ["10.0.0.0/16"],
        "subnets": [{"name": "web", "addressPrefix": "10.0.1.0/24"}],
    },
    "publicIPAddresses": [
        {"name": "pip-rule", "ipAddress": RULE},
        {"name": "pip-link", "ipAddress": LINK},
        {"name": "pip-vm3", "ipAddress": INSTANCE},
        {"name": "pip-nat", "ipAddress": NAT},
    ],
    "virtualMachines": [
        {"name": "vm1", "privateIPAddress": "10.0.1.4"},
        {"name": "vm2", "privateIPAddress": "10.0.1.5"},
        {"name": "vm3", "privateIPAddress": "10.0.1.6", "publicIPAddress": "pip-vm3"},
    ],
    "loadBalancers": [
        {
            "name": "lb",
            "sku": "Standard",
            "frontendIPConfigurations": [
                {"name": "fe-rule", "publicIPAddress": "pip-rule"},
                {"name": "fe-link", "publicIPAddress": "pip-link"},
            ],
            "backendAddressPools": [
                {"name": "ruled", "virtualMachines": ["vm1"]},
                {"name": "linked", "virtualMachines": ["vm2"]},
            ],
            "loadBalancingRules": [
                {
                    "name": "web",
                    "frontendIPConfiguration": "fe-link",
                    "backendAddressPool": "linked",
                    "protocol": "Tcp",
                    "frontendPort": 80,
                    "backendPort": 80,
                }
            ],
            "outboundRules": [
                {
                    "name": "out",
                    "frontendIPConfigurations": ["fe-rule"],
                    "backendAddressPool": "ruled",
                    "protocol": "All",
                    "allocatedOutboundPorts": 16,
                    "enableTcpReset": True,
                }
            ],
        }
    ],
}


def current(net: Topology, *, nat: bool = False, **settings: Any) -> Gateway:
    """A gateway, not yet started; change its ``configuration`` before, or reload."""
    gateway = Gateway(net, profile="azure-current", **settings)
    own = gateway.configuration["gateway"]
    gateway.configuration = {"gateway": own, **copy.deepcopy(WITHOUT)}
    if nat:
        attach(gateway)
    return gateway


def attach(gateway: Gateway, **settings: Any) -> None:
    """Put a NAT gateway into the configuration."""
    own = {"name": "nat", "publicIPAddresses": ["pip-nat"], "subnets": ["web"]}
    gateway.configuration["natGateways"] = [own | settings]
