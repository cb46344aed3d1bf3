"""What is saved of an engine besides its flows: allocations, frontend ports, health."""

from __future__ import annotations

from gateway.core.persistence.snapshot import (
    ALLOCATIONS_PER_SLICE,
    SavedAllocation,
    SavedHealth,
    SavedNatPorts,
    SavedPool,
    SavedState,
    save,
    target,
)
from tests.scenario import Scenario

BALANCED = """
gateway: {inside: [lan0], outside: wan0}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{name: web, addressPrefix: 10.0.1.0/24}]
publicIPAddresses: [{name: a, ipAddress: 203.0.113.10}]
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.1.5}
loadBalancers:
  - name: lb
    frontendIPConfigurations: [{name: fe, publicIPAddress: a}]
    backendAddressPools: [{name: pool, virtualMachines: [vm1, vm2]}]
    probes: [{name: p, protocol: Tcp, port: 80}]
    loadBalancingRules:
      - {name: web, frontendIPConfiguration: fe, backendAddressPool: pool, protocol: Tcp,
         frontendPort: 80, backendPort: 80, probe: p}
    inboundNatRules:
      - {name: ssh, frontendIPConfiguration: fe, protocol: Tcp, frontendPortRangeStart: 50000,
         frontendPortRangeEnd: 50003, backendAddressPool: pool, backendPort: 22}
"""


def saved(run: Scenario) -> SavedState:
    *slices, state = save(run.engine)
    assert not any(slices)
    assert state is not None
    return state


def test_allocations_are_saved_with_their_ports_and_what_they_held() -> None:
    run = Scenario(BALANCED)
    run.play("""
        vm2 sends     tcp 10.0.1.5:40000 > 198.51.100.1:443 syn
        outside sees  tcp 203.0.113.10:2048 > 198.51.100.1:443 syn
    """)
    state = saved(run)
    assert state.opened == 1
    tcp, udp = (a for a in state.allocations if a.vm == "10.0.1.5")
    assert tcp == SavedAllocation(
        "10.0.1.5", "203.0.113.10", 6, "LoadBalancer", 240.0, "loadBalancers/lb", False,
        ((2048, 3071),), (SavedPool(6, 1, 0), SavedPool(1, 0, 0)),
    )  # fmt: skip
    assert (udp.protocol, udp.pools) == (17, (SavedPool(17, 0, 0),))
    assert len(state.allocations) == 4


def test_what_flows_still_hold_of_a_vm_that_left_its_pool_is_saved_as_retired() -> None:
    run = Scenario(BALANCED)
    run.play("vm2 sends udp 10.0.1.5:40000 > 198.51.100.1:53")
    run.reconfigure(BALANCED.replace("[vm1, vm2]", "[vm1]"))
    assert [(a.vm, a.protocol) for a in saved(run).allocations if a.retired] == [("10.0.1.5", 17)]


def test_members_keep_the_frontend_ports_of_an_inbound_nat_rule() -> None:
    assert saved(Scenario(BALANCED)).nat_ports == (
        SavedNatPorts("lb", "ssh", {"vm1": 50000, "vm2": 50001}),
    )


def test_only_health_that_is_known_is_saved() -> None:
    run = Scenario(BALANCED, probed=True)
    assert saved(run).health == ()
    run.play("probe lb/p vm1 up\nprobe lb/p vm2 down")
    health = saved(run).health
    assert health == (SavedHealth("lb", "p", "vm1", True), SavedHealth("lb", "p", "vm2", False))
    assert target(health[0]) in run.engine.balancer.targets()


def test_many_allocations_are_saved_in_slices() -> None:
    machines = "".join(f"  - {{name: v{n}, privateIPAddress: 10.0.1.{n}}}\n" for n in range(10, 60))
    run = Scenario(
        BALANCED.split("virtualMachines:")[0]
        + "defaultOutboundAccess: {publicIPAddresses: [a]}\nvirtualMachines:\n"
        + machines
    )
    *pauses, state = save(run.engine)
    assert state is not None
    assert len(state.allocations) == 100
    assert pauses == [None] * (100 // ALLOCATIONS_PER_SLICE)
