"""What a changed configuration does to flows that live: to those whose port or place is gone.

All other flows continue untouched. ``resize`` and the ``end_…`` visit every flow, so a reload does
them only where something changed that they are about.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from gateway.core.flow_lifecycle import FlowLifecycle
from gateway.core.flows.flow import Flow
from gateway.core.flows.tcp import ENDED
from gateway.core.inbound.load_balancer import INBOUND_RULES
from gateway.core.policy.address_scope import AddressScope
from gateway.core.snat.allocation_manager import AllocationManager, Resized
from gateway.core.snat.port_pool import Ports
from gateway.model.profile import Method


def resize(lifecycle: FlowLifecycle, resized: list[Resized]) -> dict[int, int]:
    """Move pools to their new ports. Flows on ports that are gone break, silently (A6).

    Returns how many live flows broke, by position in ``resized``.
    """
    if not resized:
        return {}
    holders: dict[Ports, list[Flow]] = defaultdict(list)
    for flow in lifecycle.table:
        if flow.pool is not None:
            holders[flow.pool].append(flow)
    broken: dict[int, int] = defaultdict(int)
    for position, change in enumerate(resized):
        change.allocation.relocate(change.ranges)
        for pool in change.allocation.pools.values():
            for flow in holders.get(pool, ()):
                destination = lifecycle.allocator.destination(flow.protocol, flow.original)
                if pool.take_exactly(destination, flow.snat_port):
                    continue
                broken[position] += flow.state not in ENDED
                lifecycle.break_off(flow, pool)
    return broken


def end_misplaced(lifecycle: FlowLifecycle, gone: Collection[tuple[int, bytes]]) -> int:
    """End the flows whose instance-level public IP is no longer their VM's, or whose inbound rule
    is ``gone`` (keys of listeners), or the VM behind it; returns how many.

    Another VM may have the address now, or the port: two flows must not share a public tuple.
    """
    outbound = lifecycle.outbound
    misplaced = [flow for flow in lifecycle.table if not is_in_place(outbound, flow, gone)]
    for flow in misplaced:
        lifecycle.end(flow)
    return len(misplaced)


def end_outside(lifecycle: FlowLifecycle, scope: AddressScope) -> int:
    """End the flows of private addresses that are in no subnet, and those between VMs of which one
    is out of the virtual network; returns how many.

    Nothing can be sent to such an address any more: they would continue in one direction only.
    """
    outside = [flow for flow in lifecycle.table if not _is_inside(flow, scope)]
    for flow in outside:
        lifecycle.end(flow)
    return sum(flow.state not in ENDED for flow in outside)


def is_in_place(
    outbound: AllocationManager, flow: Flow, gone: Collection[tuple[int, bytes]] = ()
) -> bool:
    """Whether a flow's public IP, or its inbound rule, is still its VM's."""
    if flow.awaiting_removal or flow.method is Method.VIRTUAL_NETWORK:
        return True
    if flow.method in INBOUND_RULES:
        if (flow.protocol, flow.reply[4:8] + flow.reply[10:12]) in gone:
            return False
        return outbound.machines.get(flow.machine.address) is flow.machine
    public = outbound.addresses.get(flow.reply[4:8])
    if public is None:
        return False
    if flow.pool is not None:
        return public.instance_of is None
    return public.instance_of is flow.machine


def _is_inside(flow: Flow, scope: AddressScope) -> bool:
    if flow.original[0:4] not in scope.subnets:
        return False
    return flow.method is not Method.VIRTUAL_NETWORK or flow.original[4:8] in scope.virtual_network
