"""Which outbound method each VM has at run time: VMs, public IPs, and the ports allocated to each.

``AllocationManager`` carries a ``Plan`` out and keeps it through changes: what a reload does not
change stays untouched, and where ports must move, only those flows break that break in Azure
(docs/fidelity.md A6). It sees no packet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import chain

from gateway.core.snat.allocations import (
    CARRIED,
    SNAT_PROTOCOLS,
    PortAllocation,
    PublicAddress,
    Vm,
)
from gateway.core.snat.nat_gateway_pool import NatGatewayPool, VmNatUsage
from gateway.core.snat.plan import (
    AddressGrant,
    FlowPolicy,
    NatGatewayPlan,
    Plan,
    SubnetPlan,
    VmPlan,
)
from gateway.core.snat.port_ranges import PortRanges, joined, lowest
from gateway.model.profile import Method, Profile
from gateway.schema.protocols import TCP, UDP


@dataclass(frozen=True)
class Resized:
    """An allocation whose ports changed, or that has none any more: its flows must be checked."""

    allocation: PortAllocation
    before: int
    ranges: tuple[range, ...]


Resizings = dict[PortAllocation, Resized]


class AllocationManager:
    """The VMs by private address and the public IPs, both 4 bytes."""

    def __init__(self, plan: Plan, profile: Profile) -> None:
        self.profile = profile
        self.machines: dict[bytes, Vm] = {}
        self.addresses: dict[bytes, PublicAddress] = {}
        self._by_name: dict[str, Vm] = {}
        self.subnets: tuple[SubnetPlan, ...] = ()
        self.nat_gateways: dict[str, NatGatewayPlan] = {}
        self.default_addresses: tuple[bytes, ...] = ()
        ports = profile.ports_per_vm(profile.default_outbound_pool_size)
        self._default_ports = ports
        self._default_terms = FlowPolicy(
            Method.DEFAULT_OUTBOUND_ACCESS, profile.idle_timeout, "defaultOutboundAccess"
        )
        self.apply(plan)

    def machine(self, address: bytes, *, keep: bool = True) -> Vm | None:
        """The VM with a private address; an implicit standalone one is created for one that sends
        first.

        None: every port of the default outbound addresses is allocated to VMs that use them.
        The caller has made sure that the address is in a subnet. Without ``keep`` nothing is
        allocated and no VM remembered: an answer to "what if".
        """
        machine = self.peek(address)
        if machine.allocations or not self._lacks_default(machine):
            return machine
        if not keep:
            return None if self._foreseen_default(machine) is None else machine
        if not self._allocate_default(machine, {}):
            return None
        self.machines[address] = machine
        return machine

    def peek(self, address: bytes) -> Vm:
        """The VM with a private address, or what it would be if it sent."""
        known = self.machines.get(address)
        return known if known is not None else Vm(self._stranger(address), named=False)

    def _stranger(self, address: bytes) -> VmPlan:
        """How a VM that the configuration does not name goes out."""
        ip, timeout = IPv4Address(address), self.profile.idle_timeout
        for subnet in self.subnets:
            if ip in subnet.prefix:
                methods = subnet.tcp, subnet.udp
                return VmPlan(str(ip), address, *methods, None, timeout, subnet.nat_gateway)
        return VmPlan(str(ip), address, None, None, None, timeout)

    def owners(self) -> dict[bytes, Vm | None]:
        """Each public address and whose own it is (None: its ports are shared)."""
        return {address: public.instance_of for address, public in self.addresses.items()}

    def forget(self, machine: Vm) -> None:
        """Forget one that the configuration does not name, if all it has are shares (of a NAT
        gateway's ports, so that it gives none back) and no flow is on them."""
        if machine.named or machine.flows:
            return
        shared = [self.addresses.get(allocation.address) for allocation in machine.allocations]
        if any(public is None or machine not in public.shares for public in shared):
            return
        for public in shared:
            if public is not None:
                public.shares.pop(machine, None)
        machine.allocations.clear()  # a cycle would outlive it: the collector is off
        if self.machines.get(machine.address) is machine:
            del self.machines[machine.address]

    def offers(self, machine: Vm, protocol: int, destination: bytes) -> list[tuple[bytes, int]]:
        """The public IPs that a new flow could get, with the ports free toward its destination."""
        allocations = [a for a in machine.allocations if protocol in a.pools]
        if allocations:
            return [(a.address, a.pools[protocol].free_toward(destination)) for a in allocations]
        if machine.nat_gateway is None:
            return self._default_offers()
        publics = (self.addresses[a] for a in self.nat_gateways[machine.nat_gateway].addresses)
        return [(p.address, p.shared[protocol].free_toward(destination)) for p in publics]

    def _default_offers(self) -> list[tuple[bytes, int]]:
        """What a standalone VM without ports could be allocated: address and ports, or 0."""
        ports = self._default_ports
        return [
            (address, ports if self._has_room(self.addresses[address], (TCP, UDP)) else 0)
            for address in self.default_addresses
        ]

    def apply(
        self,
        plan: Plan,
        touched: Collection[bytes] | None = None,
        made: Mapping[bytes, Vm] | None = None,
    ) -> list[Resized]:
        """Carry a plan out. Returns the allocations whose flows the caller must check.

        In this order: what is no longer wanted retires, shrinks or is lost; then what is new or
        grows takes from what became free.

        ``touched``: the addresses of the VMs that it changes anything for, as
        ``plan_comparison.py`` tells; None: of all. ``made``: VMs for those that are new.
        """
        resized: Resizings = {}
        self.subnets = plan.subnets
        changed = None if touched is None else set(touched)
        self._apply_addresses(plan, changed, resized)
        self._apply_machines(plan, changed, made or {}, resized)
        self.default_addresses = plan.default_addresses
        self._apply_nat_gateways(plan, changed)
        if changed != set():
            addresses = self._addresses_of(plan)
            wanted = {
                (addresses[name], grant.address, grant.protocol): (grant.flow_policy, ports)
                for grant in plan.grants
                for name, ports in grant.ports.items()
                if changed is None or addresses[name] in changed
            }
            self._retire_and_shrink(wanted, changed, resized)
            for grant in plan.grants:
                self._allocate(grant, changed, resized)
        self._complete_default(resized)
        return list(resized.values())

    def inventory(self, frontend_ports: Iterable[int]) -> PortRanges:
        """All ports of a public IP with these frontend ports, for one protocol."""
        profile = self.profile
        return PortRanges(
            profile.first_snat_port, profile.last_snat_port, profile.port_unit, frontend_ports
        )

    def _addresses_of(self, plan: Plan) -> dict[str, bytes]:
        return {machine.name: machine.address for machine in plan.machines}

    def complete_default(self) -> None:
        """Allocate ports to the VMs that should have default outbound access and have none."""
        self._complete_default({})

    def _complete_default(self, resized: Resizings) -> None:
        for machine in self._by_name.values():
            if self._lacks_default(machine):
                self._allocate_default(machine, resized)

    def default_terms(self, machine: Vm, public: PublicAddress, protocol: int) -> FlowPolicy | None:
        """Default outbound access on a public IP, if that is how the VM goes out; or None."""
        if public.address not in self.default_addresses:
            return None
        default = machine.method_of(protocol) is Method.DEFAULT_OUTBOUND_ACCESS
        return self._default_terms if default else None

    # -- applying a plan, step by step

    def _apply_addresses(self, plan: Plan, changed: set[bytes] | None, resized: Resizings) -> None:
        for address in self.addresses.keys() - plan.addresses.keys():
            self._drop_all(self.addresses[address], resized)
            del self.addresses[address]
        shared = {address for gateway in plan.nat_gateways for address in gateway.addresses}
        for address, frontend_ports in plan.addresses.items():
            public = self.addresses.get(address)
            if public is None:
                public = self.addresses[address] = PublicAddress(address)
                public.shared = self._shared_ports(address in shared)
            elif bool(public.shared) != (address in shared):
                self._drop_all(public, resized)  # its ports are dealt in another way from now on
                public.shared = self._shared_ports(address in shared)
            elif public.frontend_ports == frontend_ports:
                continue
            public.frontend_ports = frontend_ports
            for protocol in (TCP, UDP):
                public.port_ranges[protocol] = self.inventory(frontend_ports)
            for allocation in (*public.allocations, *public.retired):
                inventory = public.port_ranges[allocation.protocol]
                kept = tuple(joined(inventory.claim(allocation.ranges)))
                if kept != allocation.ranges:
                    resized[allocation] = Resized(allocation, allocation.count, kept)
        if changed is not None:
            changed.update(allocation.machine.address for allocation in resized)

    def _apply_machines(
        self,
        plan: Plan,
        changed: set[bytes] | None,
        made: Mapping[bytes, Vm],
        resized: Resizings,
    ) -> None:
        by_address = {machine.address: machine for machine in plan.machines}
        for address, machine in list(self.machines.items()):
            if machine.named and address not in by_address:
                for allocation in list(machine.allocations):
                    self._retire(allocation, resized)
                del self.machines[address]
        for planned in plan.machines:
            existing = self.machines.get(planned.address)
            if existing is None:
                existing = made.get(planned.address) or Vm(planned, named=True)
                self.machines[planned.address] = existing
            elif changed is not None and planned.address not in changed:
                continue
            existing.adopt(planned)
            existing.named = True
        self._by_name = {m.name: m for m in self.machines.values() if m.named}
        for machine in self.machines.values() if changed is None else ():
            if not machine.named:
                machine.adopt(self._stranger(machine.address))
        for public in self.addresses.values():
            public.instance_of = None
        for planned in plan.machines:
            if planned.instance is not None:
                own = self.addresses[planned.instance]
                own.instance_of = self.machines[planned.address]

    def _apply_nat_gateways(self, plan: Plan, changed: set[bytes] | None) -> None:
        """Give VMs their shares of the addresses of their subnets' NAT gateways."""
        self.nat_gateways = {gateway.name: gateway for gateway in plan.nat_gateways}
        for public in self.addresses.values():
            for machine, allocations in list(public.shares.items()):
                if changed is not None and machine.address not in changed:
                    continue
                gateway = self.nat_gateways.get(machine.nat_gateway or "")
                gone = gateway is None or public.address not in gateway.addresses
                for allocation in list(allocations):
                    if gone or machine.method_of(allocation.protocol) is not Method.NAT_GATEWAY:
                        machine.allocations.remove(allocation)
                        allocations.remove(allocation)
                        public.retired.append(allocation)
                if not allocations:
                    del public.shares[machine]
            if public.shared:
                self._reap_retired(public, {})
        for machine in self.machines.values():
            of_concern = changed is None or machine.address in changed
            if of_concern and machine.nat_gateway is not None:
                self.share(machine)

    def share(self, machine: Vm) -> None:
        """Give a VM its shares of its NAT gateway's addresses, as far as it lacks them.

        One that the configuration does not name is remembered until ``forget``: for its first flow.
        """
        self.machines.setdefault(machine.address, machine)
        gateway = self.nat_gateways[machine.nat_gateway or ""]
        for address in gateway.addresses:
            allocations = self.addresses[address].shares.setdefault(machine, [])
            lacking = _lacking_shares(machine, allocations)
            if lacking:
                made = list(self._shares(machine, gateway, address, lacking))
                allocations += made
                machine.allocations += made

    def _shares(
        self, machine: Vm, gateway: NatGatewayPlan, address: bytes, protocols: Iterable[int]
    ) -> Iterator[PortAllocation]:
        """What a VM has on an address of its NAT gateway, for these protocols."""
        shared = self.addresses[address].shared
        for protocol in protocols:
            timeout = gateway.idle_timeout if protocol == TCP else self.profile.idle_timeout
            pools = {
                number: VmNatUsage(address, shared[number], timeout) for number in CARRIED[protocol]
            }
            flow_policy = FlowPolicy(Method.NAT_GATEWAY, timeout, f"natGateways/{gateway.name}")
            yield PortAllocation(machine, address, protocol, flow_policy, pools)

    def foreseen_allocations(self, machine: Vm) -> list[PortAllocation]:
        """What a VM would take a port from, were it to send: nothing is allocated for it."""
        if machine.allocations:
            return list(machine.allocations)
        if machine.nat_gateway is not None:
            gateway = self.nat_gateways[machine.nat_gateway]
            lacking = _lacking_shares(machine, ())
            shares = (
                self._shares(machine, gateway, address, lacking) for address in gateway.addresses
            )
            return list(chain.from_iterable(shares))
        return (self._foreseen_default(machine) if self._lacks_default(machine) else None) or []

    def _shared_ports(self, is_shared: bool) -> dict[int, NatGatewayPool]:
        flow_policy = self.profile.nat_gateway
        if flow_policy is None or not is_shared:
            return {}
        count = flow_policy.port_count
        return {number: NatGatewayPool(flow_policy.first_port, count) for number in SNAT_PROTOCOLS}

    def _retire_and_shrink(
        self,
        wanted: dict[tuple[bytes, bytes, int], tuple[FlowPolicy, int]],
        changed: set[bytes] | None,
        resized: Resizings,
    ) -> None:
        default = Method.DEFAULT_OUTBOUND_ACCESS, self._default_ports
        for public in self.addresses.values():
            is_default = public.address in self.default_addresses
            for allocation in list(public.allocations):
                machine, protocol = allocation.machine, allocation.protocol
                if changed is not None and machine.address not in changed:
                    continue
                if allocation.method is Method.DEFAULT_OUTBOUND_ACCESS:
                    stays = is_default and machine.method_of(protocol) is default[0]
                    target = default[1] if stays else 0
                else:
                    key = machine.address, public.address, protocol
                    allocation.flow_policy, target = wanted.get(key, (allocation.flow_policy, 0))
                if not target:
                    self._retire(allocation, resized)
                    continue
                kept, rest = lowest(_ranges_after(allocation, resized), target)
                if rest:
                    public.port_ranges[protocol].release(rest)
                    _resize(allocation, kept, resized)

    def _allocate(
        self, grant: AddressGrant, changed: set[bytes] | None, resized: Resizings
    ) -> None:
        """Allocate what a grant says to those who have less; a VM's last grant is used last."""
        public, protocol = self.addresses[grant.address], grant.protocol
        for name, ports in grant.ports.items():
            machine = self._by_name[name]
            if changed is not None and machine.address not in changed:
                continue
            allocation = public.allocation(machine, protocol)
            if allocation is None:
                ranges = self._deal(public, protocol, ports, resized)
                if ranges is not None:
                    self._add(
                        PortAllocation.own(
                            machine, public.address, protocol, grant.flow_policy, ranges
                        )
                    )
                continue
            machine.allocations.remove(allocation)
            machine.allocations.append(allocation)
            current = _ranges_after(allocation, resized)
            missing = ports - sum(map(len, current))
            if missing > 0:
                extra = self._deal(public, protocol, missing, resized)
                if extra is not None:
                    _resize(allocation, [*current, *extra], resized)

    # -- default outbound access

    def _lacks_default(self, machine: Vm) -> bool:
        """Whether it goes out by default outbound access and has no ports for it."""
        default = Method.DEFAULT_OUTBOUND_ACCESS
        if machine.tcp is not default and machine.udp is not default:
            return False
        return not any(allocation.method is default for allocation in machine.allocations)

    def _has_room(self, public: PublicAddress, protocols: Iterable[int]) -> bool:
        return all(public.port_ranges[p].free >= self._default_ports for p in protocols)

    def _allocate_default(self, machine: Vm, resized: Resizings) -> bool:
        """Associate a standalone VM with an address that has room, evicting idle implicit VMs."""
        default = Method.DEFAULT_OUTBOUND_ACCESS
        protocols = [p for p in (TCP, UDP) if machine.method_of(p) is default]
        for evict in (False, True):
            for address in self.default_addresses:
                public = self.addresses[address]
                if evict:
                    self._evict_idle(public, resized)
                self._reap_retired(public, resized)
                if not self._has_room(public, protocols):
                    continue
                for protocol in protocols:
                    ranges = public.port_ranges[protocol].allocate(self._default_ports)
                    assert ranges is not None
                    flow_policy = self._default_terms
                    self._add(PortAllocation.own(machine, address, protocol, flow_policy, ranges))
                return True
        return False

    def _foreseen_default(self, machine: Vm) -> list[PortAllocation] | None:
        """What ``_allocate_default`` would give; None: nothing."""
        default, flow_policy = Method.DEFAULT_OUTBOUND_ACCESS, self._default_terms
        protocols = [p for p in (TCP, UDP) if machine.method_of(p) is default]
        for evict in (False, True):
            for address in self.default_addresses:
                public = self.addresses[address]
                free = [a for a in public.retired if not a.in_use]
                if evict:
                    free += [a for a in public.allocations if _is_idle_stranger(a.machine)]
                dealt = {
                    protocol: public.port_ranges[protocol].foreseen(
                        self._default_ports,
                        [ports for a in free if a.protocol == protocol for ports in a.ranges],
                    )
                    for protocol in protocols
                }
                allocations = [
                    PortAllocation.own(machine, address, protocol, flow_policy, ranges)
                    for protocol, ranges in dealt.items()
                    if ranges is not None
                ]
                if len(allocations) == len(protocols):
                    return allocations
        return None

    def _evict_idle(self, public: PublicAddress, resized: Resizings) -> None:
        for allocation in list(public.allocations):
            machine = allocation.machine
            if not _is_idle_stranger(machine):
                continue
            public.allocations.remove(allocation)
            public.port_ranges[allocation.protocol].release(_ranges_after(allocation, resized))
            machine.allocations.remove(allocation)  # a cycle would outlive it: the collector is off
            self.machines.pop(machine.address, None)

    # -- dealing, retiring, dropping

    def _deal(
        self, public: PublicAddress, protocol: int, count: int, resized: Resizings
    ) -> list[range] | None:
        inventory = public.port_ranges[protocol]
        ranges = inventory.allocate(count)
        if ranges is None:
            self._reap_retired(public, resized)
            ranges = inventory.allocate(count)
        retired = [allocation for allocation in public.retired if allocation.protocol == protocol]
        while ranges is None and retired:
            # The flows of a member that left live on its ports only while no other VM needs these.
            self._drop(retired.pop(0), resized)
            ranges = inventory.allocate(count)
        return ranges

    def _add(self, allocation: PortAllocation) -> None:
        self.addresses[allocation.address].allocations.append(allocation)
        allocation.machine.allocations.append(allocation)

    def _retire(self, allocation: PortAllocation, resized: Resizings) -> None:
        """No new flows; those that live keep their ports until they end."""
        public = self.addresses[allocation.address]
        public.allocations.remove(allocation)
        allocation.machine.allocations.remove(allocation)
        public.retired.append(allocation)
        self._reap_retired(public, resized)

    def _reap_retired(self, public: PublicAddress, resized: Resizings) -> None:
        for allocation in list(public.retired):
            if not allocation.in_use:
                public.retired.remove(allocation)
                public.port_ranges[allocation.protocol].release(_ranges_after(allocation, resized))

    def _drop_all(self, public: PublicAddress, resized: Resizings) -> None:
        """A public IP goes, or becomes another kind: all flows on its ports break."""
        for allocation in (*public.current, *public.retired):
            self._drop(allocation, resized)

    def _drop(self, allocation: PortAllocation, resized: Resizings) -> None:
        """Take all ports back at once: the flows on them break."""
        public = self.addresses[allocation.address]
        if allocation in public.retired:
            public.retired.remove(allocation)
        else:
            allocation.machine.allocations.remove(allocation)
            if allocation in public.allocations:
                public.allocations.remove(allocation)
            else:
                public.shares.pop(allocation.machine, None)
        public.port_ranges[allocation.protocol].release(_ranges_after(allocation, resized))
        _resize(allocation, (), resized)


def _lacking_shares(machine: Vm, present: Collection[PortAllocation]) -> list[int]:
    """The protocols that a VM goes out with by its NAT gateway, and has no ports for there."""
    have = [allocation.protocol for allocation in present]
    nat = Method.NAT_GATEWAY
    return [p for p in CARRIED if machine.method_of(p) is nat and p not in have]


def _is_idle_stranger(machine: Vm) -> bool:
    """Whether others may have the ports of a VM, which the configuration does not name."""
    return not (machine.named or machine.flows or any(a.in_use for a in machine.allocations))


def _resize(allocation: PortAllocation, ranges: Iterable[range], resized: Resizings) -> None:
    resized[allocation] = Resized(allocation, allocation.count, tuple(joined(ranges)))


def _ranges_after(allocation: PortAllocation, resized: Resizings) -> tuple[range, ...]:
    """The ports that an allocation will have, as far as is known."""
    item = resized.get(allocation)
    return allocation.ranges if item is None else item.ranges
