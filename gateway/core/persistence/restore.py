"""Continues where another process stopped: an engine with its state and flows restored.

The engine is one of the same configuration and profile, and has handled no packet. First the
state (``resume_state``), then flow by flow (``resume_flow``), then ``hand_back``. What is
contradictory is rejected, never half restored: a flow needs its keys, its VM and its port to be
free and to be there. Two flows never get one public 5-tuple, whatever the records say.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from gateway.core.engine import Engine
from gateway.core.flows.flow import Flow
from gateway.core.flows.offload import is_busy
from gateway.core.flows.tcp import ENDED, State
from gateway.core.persistence.flow_record import MOST, SavedFlow, Seen
from gateway.core.persistence.snapshot import SavedAllocation, SavedState, target
from gateway.core.reload.flow_eviction import is_in_place
from gateway.core.snat.allocation_manager import AllocationManager
from gateway.core.snat.allocations import CARRIED, PortAllocation, PublicAddress, Vm
from gateway.core.snat.nat_gateway_pool import VmNatUsage
from gateway.core.snat.plan import FlowPolicy
from gateway.core.snat.port_pool import Ports
from gateway.core.snat.port_ranges import joined
from gateway.model.profile import Method
from gateway.schema.protocols import TCP, UDP

Adopt = Callable[[Flow, Seen], bool]
"""Whether an offloaded flow is still forwarded in the kernel, and continues from what was seen."""

_Key = tuple[bytes, bytes, int]  # VM, public IP, protocol


class ContradictionError(Exception):
    """The state cannot have been this configuration's."""


def resume_state(engine: Engine, saved: SavedState) -> None:
    """Deal the ports as they were dealt. Raises ContradictionError; the engine is spoilt then."""
    if not 0 <= saved.opened < MOST:
        raise ContradictionError(f"{saved.opened} flows have been opened")
    _deal(engine.outbound, saved.allocations)
    engine.balancer.recall(
        engine.configuration,
        {target(health): health.up for health in saved.health},
        {(nat.balancer, nat.rule): nat.ports for nat in saved.nat_ports},
    )
    engine.flows.go_on_from(saved.opened)


def resume_flow(
    engine: Engine, slot: int, saved: SavedFlow, adopt: Adopt, now: float
) -> Flow | None:
    """Put a flow back into its slot; None: it cannot be, and nothing changed."""
    lifecycle, outbound, table = engine.lifecycle, engine.outbound, engine.flows
    private, public = saved.original[0:4], saved.reply[4:8]
    if private not in engine.admission.scope.subnets or not _is_whole(saved):
        return None
    index = table.index_of(saved.method)
    if saved.has_original and saved.original in index.originals(saved.protocol):
        return None
    if saved.has_reply and saved.reply in index.replies(saved.protocol):
        return None
    machine = outbound.peek(private)
    lateral = saved.method is Method.VIRTUAL_NETWORK
    flow = Flow(
        saved.protocol,
        saved.original,
        saved.reply,
        machine,
        machine.address if lateral else public,
        saved.method,
        None,
        saved.timeout,
        saved.created,
        inbound=saved.inbound,
    )
    flow.resume(saved.state)
    flow.last_seen = min(saved.last_seen, now)
    flow.packets_out, flow.bytes_out, flow.packets_in, flow.bytes_in = saved.counters
    flow.awaiting_removal = saved.reclaimed
    if saved.holds_port:
        pool = _held_again(engine, flow)
        if pool is None:
            return None
        flow.pool = pool
    elif not is_in_place(outbound, flow):
        return None
    if saved.to_be_reset:
        table.to_be_reset.add(flow)
    decision = engine.admission.still_allowed(flow)
    flow.rule_matches = decision.rule_matches if decision.allowed else ()
    table.put_back(flow, slot, original=saved.has_original, reply=saved.has_reply)
    table.numbers.resume(slot, saved.opening, saved.acknowledged)
    flow.id = saved.id
    table.go_on_from(saved.id)  # flows are written down more often than how many there were
    flow.machine.flows += 1
    lifecycle.expiry.arm(flow, flow.last_seen + flow.timeout)
    if lifecycle.log is not None and flow.state not in ENDED:
        lifecycle.log.resumed(flow, now)
    flow.offloaded = saved.offloaded and adopt(flow, saved.seen)
    if saved.offloaded and not flow.offloaded and flow.state is not State.OPENING:
        # Recorded is what was known when it was offloaded.
        table.numbers.resume(slot, saved.opening, (0, 0))
    return flow


def hand_back(engine: Engine, *, time_scale_changed: bool) -> None:
    """Offload flows again that were not carried on meanwhile; ``time_scale_changed``: also the
    others, whose times are other ones now."""
    for flow in engine.flows:
        if time_scale_changed:
            engine.lifecycle.take_back(flow)
        if not flow.awaiting_removal and flow.state not in ENDED and is_busy(flow):
            engine.lifecycle.hand_over(flow)


def _is_whole(saved: SavedFlow) -> bool:
    """Whether its two keys are about one conversation."""
    original, reply = saved.original, saved.reply
    if saved.method is Method.VIRTUAL_NETWORK:
        mirrored = original[4:8] + original[0:4] + original[10:12] + original[8:10]
        return reply[:12] == mirrored and not saved.holds_port
    if saved.protocol not in (TCP, UDP) and not original[12] == reply[12] == saved.protocol:
        return False
    return reply[0:4] == original[4:8] and reply[8:10] == original[10:12]


# -- ports


def _deal(outbound: AllocationManager, saved: tuple[SavedAllocation, ...]) -> None:
    """Put the fresh deal aside, then give everybody what he had."""
    fresh: dict[_Key, FlowPolicy] = {}
    for public in outbound.addresses.values():
        for allocation in list(public.allocations):
            fresh[allocation.machine.address, public.address, allocation.protocol] = (
                allocation.flow_policy
            )
            public.allocations.remove(allocation)
            allocation.machine.allocations.remove(allocation)
            public.port_ranges[allocation.protocol].release(allocation.ranges)
    for item in saved:
        _deal_again(outbound, item, fresh)
    outbound.complete_default()
    for (private, address, protocol), flow_policy in fresh.items():
        if flow_policy.method is not Method.DEFAULT_OUTBOUND_ACCESS:
            raise ContradictionError(
                f"no ports of {IPv4Address(private)} on {IPv4Address(address)} for protocol "
                f"{protocol}"
            )


def _deal_again(
    outbound: AllocationManager, item: SavedAllocation, fresh: dict[_Key, FlowPolicy]
) -> None:
    try:
        private, address = IPv4Address(item.vm).packed, IPv4Address(item.public).packed
        method = Method(item.method)
    except ValueError as error:
        raise ContradictionError(str(error)) from None
    public = outbound.addresses.get(address)
    if public is None or item.protocol not in CARRIED:
        raise ContradictionError(f"ports on {item.public}, which has none")
    machine = outbound.machines.get(private) or outbound.peek(private)
    if method is Method.NAT_GATEWAY:
        _remember_share(outbound, machine, public, item)
        return
    if any(first < 0 or last > 0xFFFF for first, last in item.ranges):
        raise ContradictionError(f"ports of {item.vm} on {item.public} that do not exist")
    ranges = joined(range(first, last + 1) for first, last in item.ranges)
    if not ranges or joined(public.port_ranges[item.protocol].claim(ranges)) != ranges:
        raise ContradictionError(f"ports of {item.vm} on {item.public} that are not free")
    flow_policy = None if item.retired else fresh.pop((private, address, item.protocol), None)
    stays = flow_policy is not None
    if flow_policy is None and not item.retired:
        flow_policy = outbound.default_terms(machine, public, item.protocol)
        stays = flow_policy is not None
    if flow_policy is None:
        flow_policy = FlowPolicy(method, item.idle_timeout, item.owner)
    allocation = PortAllocation.own(machine, address, item.protocol, flow_policy, ranges)
    if stays:
        outbound.machines.setdefault(private, machine)
        public.allocations.append(allocation)
        machine.allocations.append(allocation)
    else:
        public.retired.append(allocation)
    _remember_use(allocation, item)


def _remember_share(
    outbound: AllocationManager, machine: Vm, public: PublicAddress, item: SavedAllocation
) -> None:
    if machine.nat_gateway is None or not public.shared:
        return
    outbound.share(machine)
    allocation = public.allocation(machine, item.protocol)
    if allocation is not None:
        _remember_use(allocation, item)


def _remember_use(allocation: PortAllocation, item: SavedAllocation) -> None:
    for saved in item.pools:
        pool = allocation.pools.get(saved.protocol)
        if pool is not None:
            pool.high_water = max(pool.high_water, saved.high_water)
            pool.failed = saved.failed


def _held_again(engine: Engine, flow: Flow) -> Ports | None:
    """The pool of a flow's port, which it holds now; None: no pool has it."""
    outbound, protocol = engine.outbound, flow.protocol
    public = outbound.addresses.get(flow.public)
    if public is None or flow.snat_port == 0:
        return None
    machine, number = flow.machine, TCP if protocol not in CARRIED else protocol
    allocations = [a for a in machine.allocations if a.address == flow.public]
    allocations += [a for a in public.retired if a.machine.address == machine.address]
    if flow.method is Method.NAT_GATEWAY and public.shared:
        if machine.nat_gateway is not None and not allocations:
            outbound.share(machine)
            allocations = [a for a in machine.allocations if a.address == flow.public]
        if not any(_is_shared(a, protocol) for a in allocations):
            allocations.append(_retired_share(public, machine, number, flow))
    for allocation in allocations:
        pool = allocation.pools.get(protocol)
        if pool is not None and engine.lifecycle.allocator.hold_again(flow, pool):
            flow.machine = allocation.machine
            return pool
    return None


def _is_shared(allocation: PortAllocation, protocol: int) -> bool:
    return isinstance(allocation.pools.get(protocol), VmNatUsage)


def _retired_share(public: PublicAddress, machine: Vm, protocol: int, flow: Flow) -> PortAllocation:
    """What a VM still holds of a NAT gateway that is no longer its subnet's."""
    flow_policy = FlowPolicy(Method.NAT_GATEWAY, flow.timeout, "natGateways")
    pools = {
        n: VmNatUsage(public.address, public.shared[n], flow.timeout) for n in CARRIED[protocol]
    }
    allocation = PortAllocation(machine, public.address, protocol, flow_policy, pools)
    public.retired.append(allocation)
    return allocation
