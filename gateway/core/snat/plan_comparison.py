"""What a plan changes about who has which ports, asked before it is carried out.

So that carrying it out costs what it changes, and the flows on ports that go can be ended first.
Changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.core.snat.allocation_manager import AllocationManager
from gateway.core.snat.allocations import PortAllocation
from gateway.core.snat.plan import FlowPolicy, Plan, VmPlan
from gateway.core.snat.port_ranges import joined, lowest
from gateway.model.profile import Method

_DEFAULT = Method.DEFAULT_OUTBOUND_ACCESS


class Share(NamedTuple):
    """What a plan grants a VM on a public IP for a protocol."""

    address: bytes
    protocol: int
    flow_policy: FlowPolicy
    ports: int


Wanted = Mapping[bytes, Sequence[Share]]
"""Everything that a plan grants, by the VM's address, in the order of its use."""


def is_settled(outbound: AllocationManager, planned: VmPlan, wanted: Sequence[Share]) -> bool:
    """Whether a VM of a plan is and has already what the plan says.

    As far as ``stays_alike`` holds, and its public IPs have the same frontend ports as before.
    """
    machine = outbound.machines.get(planned.address)
    if machine is None or not machine.named or not machine.follows(planned):
        return False
    own = [a for a in machine.allocations if a.ranges and a.method is not _DEFAULT]
    if len(own) != len(wanted):
        return False
    return all(
        allocation.address == share.address
        and allocation.protocol == share.protocol
        and allocation.flow_policy == share.flow_policy
        and allocation.count == share.ports
        for allocation, share in zip(own, wanted, strict=True)
    )


def stays_alike(outbound: AllocationManager, plan: Plan) -> bool:
    """Whether what is not VMs' own stays as it is: subnets, NAT gateways, and the addresses of
    default outbound access."""
    return (
        outbound.subnets == plan.subnets
        and outbound.default_addresses == plan.default_addresses
        and outbound.nat_gateways == {gateway.name: gateway for gateway in plan.nat_gateways}
    )


def ports_kept(
    outbound: AllocationManager, allocation: PortAllocation, plan: Plan, wanted: Wanted
) -> tuple[range, ...]:
    """Those ports of an allocation that it will have under a plan.

    One that retires has them until its flows end, or others need them.
    """
    frontend_ports = plan.addresses.get(allocation.address)
    if frontend_ports is None:
        return ()
    ranges = tuple(joined(outbound.inventory(frontend_ports).claim(allocation.ranges)))
    target = 0
    for share in wanted.get(allocation.machine.address, ()):
        if share.address == allocation.address and share.protocol == allocation.protocol:
            target = share.ports
    if allocation.method is _DEFAULT or not target:
        return ranges
    return tuple(lowest(ranges, target)[0])
