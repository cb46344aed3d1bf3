"""What a reload says about VMs, frontends, public IPs, settings and allocations."""

from __future__ import annotations

import pytest

from gateway.core.reload.change_report import allocation_changes, changes_between
from gateway.core.snat.allocation_manager import Resized
from gateway.core.snat.allocations import PortAllocation
from gateway.core.snat.plan import FlowPolicy, plan
from gateway.model.profile import Method
from gateway.schema.protocols import TCP, UDP
from tests.scenario import configuration, sentences
from tests.unit.core.flows.making import PUBLIC, vm

TOWN = """
gateway: {inside: [lan0], outside: wan0}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{name: web, addressPrefix: 10.0.1.0/24}]
publicIPAddresses:
  - {name: pip-d, ipAddress: 203.0.113.10}
  - {name: pip-a, ipAddress: 203.0.113.20}
  - {name: pip-vm, ipAddress: 203.0.113.30}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.1.5}
loadBalancers:
  - name: lb
    frontendIPConfigurations: [{name: fe, publicIPAddress: pip-a}]
    backendAddressPools: [{name: pool, virtualMachines: [vm2]}]
    loadBalancingRules:
      - {name: web, frontendIPConfiguration: fe, backendAddressPool: pool, protocol: Tcp,
         frontendPort: 80, backendPort: 80}
"""
VM1 = "  - {name: vm1, privateIPAddress: 10.0.1.4}\n"
CHANGES = {
    "nothing": ("vm1", "vm1", []),
    "a VM comes": (
        VM1, VM1 + "  - {name: vm3, privateIPAddress: 10.0.1.6}\n",
        ["virtual machine vm3 added: 10.0.1.6 by DefaultOutboundAccess"],
    ),
    "a VM goes": (
        VM1, "",
        ["virtual machine vm1 removed"],
    ),
    "a VM gets its own public IP": (
        "10.0.1.4}", "10.0.1.4, publicIPAddress: pip-vm}",
        [("virtual machine vm1: 10.0.1.4 by DefaultOutboundAccess -> "
          "10.0.1.4 by InstanceLevelPublicIP (203.0.113.30)")],
    ),
    "a VM leaves its pool": (
        "[vm2]", "[]",
        ["virtual machine vm2: 10.0.1.5 by LoadBalancer -> 10.0.1.5 by DefaultOutboundAccess",
         "frontend 203.0.113.20: 1 -> 0 VMs, 1024 -> 0 SNAT ports each"],
    ),
    "a VM joins a pool": (
        "[vm2]", "[vm2, vm1]",
        ["virtual machine vm1: 10.0.1.4 by DefaultOutboundAccess -> 10.0.1.4 by LoadBalancer",
         "frontend 203.0.113.20: 1 -> 2 VMs, 1024 -> 1024 SNAT ports each"],
    ),
    "a load balancer goes": (
        TOWN[TOWN.index("loadBalancers:"):], "",
        ["virtual machine vm2: 10.0.1.5 by LoadBalancer -> 10.0.1.5 by DefaultOutboundAccess",
         "frontend 203.0.113.20 no longer serves outbound flows",
         "load balancer lb: rule web removed"],
    ),
    "nobody goes out by default any more": (
        "[pip-d]", "[]",
        [("virtual machine vm1: 10.0.1.4 by DefaultOutboundAccess -> "
          "10.0.1.4 by no outbound connectivity"),
         "default outbound access: 203.0.113.10 -> none"],
    ),
    "a public IP comes": (
        "defaultOutboundAccess", "  - {name: more, ipAddress: 203.0.113.40}\ndefaultOutboundAccess",
        ["public IP 203.0.113.40 added"],
    ),
    "settings": (
        "outside: wan0", "outside: wan0, maximumFlows: 1000, icmpEcho: translate",
        ["gateway.maximumFlows: 1000000 -> 1000", "gateway.icmpEcho: drop -> translate"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new", "expected"), CHANGES.values(), ids=CHANGES)
def test_each_difference_is_a_sentence(old: str, new: str, expected: list[str]) -> None:
    assert old in TOWN
    before, after = configuration(TOWN), configuration(TOWN.replace(old, new, 1))
    one, other = (plan(each, each.profile) for each in (before, after))
    said = sentences(changes_between(before, after, one, other))
    assert sorted(said) == sorted(expected)


def resized(before: int, after: range, protocol: int = TCP, name: str = "vm1") -> Resized:
    terms = FlowPolicy(Method.LOAD_BALANCER, 240.0, "loadBalancers/lb")
    allocation = PortAllocation.own(vm(name), PUBLIC, protocol, terms, [range(1024, 2048)])
    return Resized(allocation, before, (after,))


def test_both_protocols_alike_are_one_sentence_and_their_broken_flows_one_number() -> None:
    tcp, udp = resized(1024, range(1024, 1536)), resized(1024, range(1024, 1536), UDP)
    udp.allocation.machine = tcp.allocation.machine
    ((sentence, machine, address, reclaimed, broken),) = allocation_changes(
        [tcp, udp], {tcp.allocation: 1, udp.allocation: 2}
    )
    assert sentence == (
        "vm1 on 203.0.113.10: 1024 -> 512 SNAT ports for each protocol, 3 flows broken"
    )
    assert (machine, address, reclaimed, broken) == (
        tcp.allocation.machine, "203.0.113.10", 512, 3,
    )  # fmt: skip


def test_protocols_that_differ_are_told_apart_and_growth_takes_nothing_back() -> None:
    tcp, udp = resized(1024, range(1024, 1536)), resized(512, range(1024, 2048), UDP)
    udp.allocation.machine = tcp.allocation.machine
    first, second = allocation_changes([tcp, udp], {tcp.allocation: 1})
    assert first[0] == "vm1 on 203.0.113.10: 1024 -> 512 SNAT ports for Tcp, 1 flow broken"
    assert second[0] == "vm1 on 203.0.113.10: 512 -> 1024 SNAT ports for Udp, 0 flows broken"
    assert (first[3], second[3]) == (512, 0)
