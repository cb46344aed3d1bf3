"""What a changed configuration does to flows that live: to those whose port or place is gone.

All other flows continue untouched. ``Eviction`` visits every flow, in slices, before the
configuration takes effect: so that no port and no address is another's before the flows that were
on it are gone. Flows that open meanwhile are visited last, at the moment of the change. It is
needed only where something changes that it is about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from gateway.core.flow_lifecycle import FlowLifecycle
from gateway.core.flows.flow import Flow
from gateway.core.flows.tcp import ENDED
from gateway.core.inbound.load_balancer import INBOUND_RULES
from gateway.core.policy.address_scope import AddressScope
from gateway.core.snat.allocation_manager import AllocationManager, Resized
from gateway.core.snat.allocations import PortAllocation
from gateway.core.snat.plan import Plan
from gateway.core.snat.plan_comparison import Wanted, ports_kept
from gateway.core.snat.port_pool import Ports
from gateway.model.profile import Method

SLICE = 256  # flows visited between two chances to handle packets
LAST = 32  # flows that may be visited at the moment of the change
ROUNDS = 256  # of visits to flows that open meanwhile; after that, all at once


class Eviction:
    """Ends what cannot live under another plan. Counts the flows that it ended and broke."""

    def __init__(self, lifecycle: FlowLifecycle, plan: Plan, wanted: Wanted) -> None:
        self._lifecycle = lifecycle
        self._outbound = lifecycle.outbound
        self._plan = plan
        self._wanted = wanted
        self._kept: dict[Ports, tuple[range, ...]] = {}
        self._allocations: dict[Ports, PortAllocation] = {}
        self._machines = {machine.address for machine in plan.machines}
        self._instances = {m.instance: m.address for m in plan.machines if m.instance is not None}
        self._gone: Collection[tuple[int, bytes]] = ()
        self._scope: AddressScope | None = None
        self._is_needed = False
        self.broken: Counter[PortAllocation] = Counter()
        """Live flows that broke because their port went, by allocation."""
        self.misplaced = 0
        self.outside = 0

    def prepare(
        self,
        touched: Collection[bytes] | None,
        gone: Collection[tuple[int, bytes]],
        scope: AddressScope | None,
    ) -> Iterator[None]:
        """Find out which flows go; None after each slice.

        ``touched``: addresses of the VMs whose ports change (None: perhaps of any); ``gone``:
        keys of listeners that no longer exist; ``scope``: the new one, if it lacks prefixes.
        """
        self._gone, self._scope = gone, scope
        self._lifecycle.opened = []  # a VM without flows may get one while this is found out
        outbound, plan = self._outbound, self._plan
        shared = {address for gateway in plan.nat_gateways for address in gateway.addresses}
        self._is_needed = bool(gone) or scope is not None
        for public in list(outbound.addresses.values()):
            ports = plan.addresses.get(public.address)
            lost = ports is None or bool(public.shared) != (public.address in shared)
            owner = public.instance_of
            was = None if owner is None else owner.address
            if lost or self._instances.get(public.address) != was:
                self._is_needed = True
            everybody = lost or ports != public.frontend_ports or touched is None
            for allocation in (*public.current, *public.retired) if everybody else ():
                self._note(allocation, lost)
                if not len(self._kept) % 64:
                    yield
        for number, address in enumerate(touched or ()):
            machine = outbound.machines.get(address)
            for allocation in machine.allocations if machine is not None else ():
                self._note(allocation, False)
            if not number % 64:
                yield
        for number, machine in enumerate(list(outbound.machines.values())):
            if machine.named and machine.flows and machine.address not in self._machines:
                self._is_needed = True
            if not number % 256:
                yield

    def _note(self, allocation: PortAllocation, lost: bool) -> None:
        kept = () if lost else ports_kept(self._outbound, allocation, self._plan, self._wanted)
        if kept == allocation.ranges and not lost:
            return
        for pool in allocation.pools.values():
            self._kept.setdefault(pool, kept)
            self._allocations[pool] = allocation
            self._is_needed |= pool.used > 0

    def sweep(self) -> Iterator[None]:
        """Visit every flow; None after each slice. Afterwards ``finish`` has little to do."""
        lifecycle = self._lifecycle
        if self._is_needed:
            lifecycle.opened = []
            for _, flows in lifecycle.table.walk(SLICE):
                for flow in flows:
                    self._look(flow)
                yield
        opened = lifecycle.opened
        for _ in range(ROUNDS):
            if opened is None or len(opened) <= LAST:
                break
            some, opened[:SLICE] = opened[:SLICE], []
            for flow in some:
                self._look(flow)
            yield

    def finish(self) -> None:
        """Visit the flows that have opened since: nothing opens before the change is made."""
        opened, self._lifecycle.opened = self._lifecycle.opened, None
        for flow in opened or ():
            self._look(flow)

    def finish_resizing(self, resized: list[Resized]) -> None:
        """Move pools to their new ports. Flows on ports that are gone break, silently (A6).

        These have been broken by now, but for those of VMs that left and whose ports others
        needed: for them every flow is visited.
        """
        lost = [change.allocation for change in resized if not _relocated(change)]
        if not lost:
            return
        allocations = {pool: a for a in lost for pool in a.pools.values()}
        for flow in self._lifecycle.table:
            pool = flow.pool
            if pool is None or pool.has(flow.snat_port):
                continue
            allocation = allocations.get(pool)
            if allocation is not None:
                self.broken[allocation] += flow.state not in ENDED
                self._lifecycle.break_off(flow, pool)

    def _look(self, flow: Flow) -> None:
        if flow.slot < 0 or flow.awaiting_removal:
            return
        pool = flow.pool
        if pool is not None:
            kept = self._kept.get(pool)
            if kept is not None and not any(flow.snat_port in ports for ports in kept):
                self.broken[self._allocations[pool]] += flow.state not in ENDED
                self._lifecycle.allocator.give_back(flow, pool)
                self._lifecycle.break_off(flow, pool)
                return
        if not self._will_be_in_place(flow):
            self.misplaced += 1
            self._lifecycle.end(flow)
        elif self._scope is not None and not _is_inside(flow, self._scope):
            self.outside += flow.state not in ENDED
            self._lifecycle.end(flow)

    def _will_be_in_place(self, flow: Flow) -> bool:
        if flow.method is Method.VIRTUAL_NETWORK:
            return True
        machine = flow.machine
        if flow.method in INBOUND_RULES:
            if (flow.protocol, flow.reply[4:8] + flow.reply[10:12]) in self._gone:
                return False
            stays = machine.address in self._machines or not machine.named
            return stays and self._outbound.machines.get(machine.address) is machine
        public = flow.reply[4:8]
        if public not in self._plan.addresses:
            return False
        if flow.pool is not None:
            return public not in self._instances
        return self._instances.get(public) == machine.address


def is_in_place(outbound: AllocationManager, flow: Flow) -> bool:
    """Whether a flow's public IP, or its VM, is still its VM's."""
    if flow.awaiting_removal or flow.method is Method.VIRTUAL_NETWORK:
        return True
    if flow.method in INBOUND_RULES:
        return outbound.machines.get(flow.machine.address) is flow.machine
    public = outbound.addresses.get(flow.reply[4:8])
    if public is None:
        return False
    if flow.pool is not None:
        return public.instance_of is None
    return public.instance_of is flow.machine


def _relocated(change: Resized) -> bool:
    return change.allocation.relocate(change.ranges)


def _is_inside(flow: Flow, scope: AddressScope) -> bool:
    if flow.original[0:4] not in scope.subnets:
        return False
    return flow.method is not Method.VIRTUAL_NETWORK or flow.original[4:8] in scope.virtual_network
