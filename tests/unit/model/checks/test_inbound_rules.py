"""What is wrong with inbound rules and probes, in the line that a user reads."""

from __future__ import annotations

import pytest

from gateway.model import load_text
from gateway.model.checks.inbound_rules import threshold
from gateway.model.profile import AZURE_2017
from tests.unit.model.files import LOAD_BALANCED, changed, configuration, errors, messages

LB = "loadBalancers[0]"
NAT = f"{LB}.inboundNatRules[0]"
SSH = "frontendPort: 50001,\n         virtualMachine: vm1"
RANGE = (
    "frontendPortRangeStart: 50000, frontendPortRangeEnd: 50003,\n         backendAddressPool: pool"
)
RULES = {
    "frontend port of both kinds of rule": (
        "50001", "80",
        f"{NAT}.frontendPort = 80: Tcp port of fe1 already used by {LB}.loadBalancingRules[0]",
    ),
    "frontend port of two load balancing rules": (
        "    inboundNatRules:",
        """      - {name: again, frontendIPConfiguration: fe1, backendAddressPool: pool,
         protocol: Tcp, frontendPort: 80, backendPort: 81}
    inboundNatRules:""",
        f"{LB}.loadBalancingRules[1].frontendPort = 80: Tcp port of fe1 already used by {LB}.loadBalancingRules[0]",
    ),
    "frontend port of a range and a rule": (
        SSH,
        RANGE.replace("50000", "70").replace("50003", "90"),
        f"{NAT}.frontendPortRangeStart = 80: Tcp port of fe1 already used by {LB}.loadBalancingRules[0]",
    ),
    "backend port of two rules": (
        "backendPort: 22", "backendPort: 80",
        (f"{NAT}.backendPort = 80: Tcp port 80 of VM vm1 is already the backend of "
        f"{LB}.loadBalancingRules[0]; Azure allows that with floating IP alone, which is not "
        "available in this version: give this rule a backend port of its own"),
    ),
    "floating IP": (
        "frontendPort: 80, backendPort: 80", "frontendPort: 80, backendPort: 80, enableFloatingIP: true",
        (f"{LB}.loadBalancingRules[0].enableFloatingIP = true: floating IP is not available in "
        "this version: the backend gets packets for its own address; allowed: false"),
    ),
    "neither form of a NAT rule": (
        ",\n         virtualMachine: vm1", "",
        (f"{NAT}: a rule for one VM or for a pool has exactly one set of: frontendPort, "
        "virtualMachine or frontendPortRangeStart, frontendPortRangeEnd, backendAddressPool"),
    ),
    "both forms of a NAT rule": (
        SSH, f"{SSH}, {RANGE}",
        (f"{NAT}: a rule for one VM or for a pool has exactly one set of: frontendPort, "
        "virtualMachine or frontendPortRangeStart, frontendPortRangeEnd, backendAddressPool"),
    ),
    "range out of order": (
        SSH, RANGE.replace("50000", "50009"),
        f"{NAT}: frontend ports out of order; did you mean 50003 to 50009?",
    ),
    "more members than ports": (
        SSH, RANGE.replace("50003", "50000"),
        (f"{NAT}.frontendPortRangeEnd = 50000: 2 VMs in pool and 1 frontend ports; "
        "allowed: a range of 2 or more"),
    ),
    "pool of a NAT rule": (
        SSH, RANGE.replace("Pool: pool", "Pool: poool"),
        (f"{NAT}.backendAddressPool = poool: no such name in backendAddressPools; "
        "did you mean pool?"),
    ),
    "request path": (
        "requestPath: /health", 'requestPath: "/a b"',
        (f"{LB}.probes[0]: requestPath goes into a request line: at most 2048 ASCII characters, "
        "no space; write others as %20"),
    ),
    "probes too often": (
        "probeThreshold: 2", "intervalInSeconds: 4",
        f"{LB}.probes[0].intervalInSeconds = 4: out of range; allowed: 5 to 86400",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_a_mistake_and_its_line(name: str) -> None:
    old, new, line = RULES[name]
    assert messages(changed(old, new)) == [line]


def test_a_nat_rule_for_a_pool_is_a_port_for_each() -> None:
    text = changed(SSH, RANGE)
    assert errors(text) == []
    (nat,) = configuration(text).load_balancers[0].inbound_nat_rules
    assert nat.frontend_ports == range(50000, 50004)


def test_one_frontend_port_serves_two_protocols_and_another_frontend() -> None:
    text = changed(
        "    inboundNatRules:",
        """      - {name: udp, frontendIPConfiguration: fe1, backendAddressPool: pool,
         protocol: Udp, frontendPort: 80, backendPort: 80}
      - {name: other, frontendIPConfiguration: fe2, backendAddressPool: pool,
         protocol: Tcp, frontendPort: 80, backendPort: 81}
    inboundNatRules:""",
    )
    assert errors(text) == []


def test_number_of_probes_is_a_threshold_in_2017_and_too_much_of_it_is_named() -> None:
    text = changed("probeThreshold: 2", "numberOfProbes: 9")
    assert threshold(configuration(text).load_balancers[0].probes[0], AZURE_2017) == 9
    assert str(load_text(text, "f").problems[-1]).split("warning: ")[1] == (
        "135 s pass before a result counts (interval times threshold); Azure then took at most 120 s"
    )
    assert threshold(configuration(LOAD_BALANCED).load_balancers[0].probes[0], AZURE_2017) == 2


def test_a_vm_of_two_load_balancers_is_warned_of() -> None:
    second = """\
  - name: other
    frontendIPConfigurations: [{name: fe3, publicIPAddress: pip-c}]
    backendAddressPools:
      - {name: a, virtualMachines: [vm3, vm1]}
      - {name: b, virtualMachines: [vm2]}
"""
    text = changed(
        "  - {name: pip-d,", "  - {name: pip-c, ipAddress: 203.0.113.14}\n  - {name: pip-d,"
    )
    loaded = load_text(text + second, "test.yaml")
    said = [str(p) for p in loaded.problems if "one public load balancer" in p.message]
    assert [p.severity for p in loaded.problems if "one public" in p.message] == ["warning"]
    (line,) = said
    assert "loadBalancers[1].backendAddressPools[0].virtualMachines[1] = vm1" in line
    assert "is in a pool of lb, too" in line
