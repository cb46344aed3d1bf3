"""What azure-2017 does not have, by the line that refuses it."""

from __future__ import annotations

import pytest

from tests.unit.model.files import changed, messages

RULE = "loadBalancers[0].loadBalancingRules[0]"
LATER = "needs gateway.profile: azure-current"
MISTAKES = {
    "no such profile": (
        "outside: wan0", "outside: wan0\n  profile: azure-2016",
        ("gateway.profile = azure-2016: no such profile; allowed: azure-2017, azure-current; "
        "did you mean azure-2017?"),
    ),
    "Standard": (
        "name: lb\n", "name: lb\n    sku: Standard\n",
        f"loadBalancers[0].sku = Standard: {LATER}; allowed in azure-2017: Basic",
    ),
    "outbound rule": (
        "name: lb\n",
        ("name: lb\n    outboundRules: [{name: out, frontendIPConfigurations: [fe1], "
        "backendAddressPool: pool, protocol: All}]\n"),
        f"loadBalancers[0].outboundRules: an outbound rule {LATER}",
    ),
    "disableOutboundSnat": (
        "frontendPort: 80,", "frontendPort: 80, disableOutboundSnat: true,",
        f"{RULE}.disableOutboundSnat = true: {LATER}",
    ),
    "enableTcpReset": (
        "frontendPort: 80,", "frontendPort: 80, enableTcpReset: true,",
        f"{RULE}.enableTcpReset = true: {LATER}",
    ),
    "Https probe": (
        "protocol: Http,", "protocol: Https,",
        (f"loadBalancers[0].probes[0].protocol = Https: an Https probe {LATER}; "
        "allowed in azure-2017: Tcp, Http"),
    ),
    "subnet without default outbound access": (
        "10.0.1.0/24}", "10.0.1.0/24, defaultOutboundAccess: false}",
        (f"virtualNetwork.subnets[0].defaultOutboundAccess: a subnet's switch {LATER}; "
        "or leave it out"),
    ),
    "NAT gateway": (
        "defaultOutbound",
        ("  - {name: n, ipAddress: 203.0.113.14}\n"
        "natGateways: [{name: n, publicIPAddresses: [n]}]\ndefaultOutbound"),
        f"natGateways: a NAT gateway {LATER}",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES.values(), ids=MISTAKES)
def test_the_one_mistake_is_named_and_nothing_else(old: str, new: str, message: str) -> None:
    assert messages(changed(old, new)) == [message]
