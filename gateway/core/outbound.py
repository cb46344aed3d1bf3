"""Who goes out how, at run time: machines, public addresses, and the ports allotted to each.

``Outbound`` carries a ``Plan`` out and keeps it through changes: what a reload does not change
stays untouched, and where ports must move, flows are broken as Azure breaks them and no more
(docs/fidelity.md A6). It looks at no packet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from gateway.core.flow import ICMP, TCP, UDP
from gateway.core.plan import Frontend, MachinePlan, Plan
from gateway.core.ports import Inventory, PortPool, joined, lowest
from gateway.model.profile import Method, Profile

PROTOCOL_NAMES = {TCP: "Tcp", UDP: "Udp", ICMP: "Icmp"}


class Machine:
    """A VM. One that the configuration does not name is named by its address."""

    __slots__ = (
        "address",
        "allotments",
        "flows",
        "idle_timeout",
        "instance",
        "method",
        "name",
        "named",
    )

    def __init__(self, plan: MachinePlan, *, named: bool) -> None:
        self.address = plan.address
        self.named = named
        self.flows = 0
        self.allotments: list[Allotment] = []
        self.adopt(plan)

    def adopt(self, plan: MachinePlan) -> None:
        """Take the plan's decisions; flows that live keep what they have."""
        self.name = plan.name
        self.method = plan.method
        self.instance = plan.instance
        self.idle_timeout = plan.idle_timeout


class Allotment:
    """The SNAT ports of one machine on one public IP: the same ones for each protocol."""

    __slots__ = ("address", "machine", "method", "pools")

    def __init__(
        self, machine: Machine, address: bytes, method: Method, ranges: Iterable[range]
    ) -> None:
        self.machine = machine
        self.address = address
        self.method = method
        ports = joined(ranges)
        self.pools = {protocol: PortPool(address, ports) for protocol in PROTOCOL_NAMES}

    @property
    def ranges(self) -> tuple[range, ...]:
        return self.pools[TCP].ranges

    @property
    def count(self) -> int:
        """Ports allotted for each protocol."""
        return self.pools[TCP].count

    @property
    def in_use(self) -> bool:
        return any(pool.used for pool in self.pools.values())


@dataclass
class PublicAddress:
    """A public IP of the configuration: an inventory of ports, or one machine's own address."""

    address: bytes
    inventory: Inventory
    frontend_ports: frozenset[int]
    instance_of: Machine | None = None
    allotments: list[Allotment] = field(default_factory=list)
    retired: list[Allotment] = field(default_factory=list)  # hold ports until their flows end

    def __str__(self) -> str:
        return str(IPv4Address(self.address))


@dataclass(frozen=True)
class Resized:
    """An allotment whose ports changed, or that has none any more: its flows must be looked at."""

    allotment: Allotment
    before: int
    ranges: tuple[range, ...]


Resizings = dict[Allotment, Resized]


class Outbound:
    """The machines by private address and the public addresses, both 4 bytes."""

    def __init__(self, plan: Plan, profile: Profile) -> None:
        self.profile = profile
        self.machines: dict[bytes, Machine] = {}
        self.addresses: dict[bytes, PublicAddress] = {}
        self._default_addresses: tuple[bytes, ...] = ()
        self.apply(plan)

    def machine(self, address: bytes, *, keep: bool = True) -> Machine | None:
        """The machine with a private address; a standalone one is made for one that sends first.

        None: every port of the default outbound addresses is allotted to machines that use them.
        The caller has made sure that the address is in a subnet. Without ``keep`` nothing is
        allotted and nobody remembered: an answer to "what if".
        """
        machine = self.peek(address)
        if machine.method is not Method.DEFAULT_OUTBOUND_ACCESS or machine.allotments or not keep:
            return machine
        if not self._allot_default(machine, {}):
            return None
        self.machines[address] = machine
        return machine

    def peek(self, address: bytes) -> Machine:
        """The machine with a private address, or what it would be if it sent."""
        known = self.machines.get(address)
        if known is not None:
            return known
        standalone = MachinePlan(
            str(IPv4Address(address)),
            address,
            Method.DEFAULT_OUTBOUND_ACCESS if self._default_addresses else None,
            None,
            self.profile.idle_timeout,
        )
        return Machine(standalone, named=False)

    def owners(self) -> dict[bytes, Machine | None]:
        """Each public address and whose own it is (None: its ports are shared)."""
        return {address: public.instance_of for address, public in self.addresses.items()}

    def default_offers(self) -> list[tuple[bytes, int]]:
        """What a standalone machine without ports could be dealt: address and ports, or 0."""
        ports = self._default_ports
        return [
            (address, ports if self.addresses[address].inventory.free >= ports else 0)
            for address in self._default_addresses
        ]

    def apply(self, plan: Plan) -> list[Resized]:
        """Carry a plan out. Returns the allotments whose flows the caller must look at.

        In this order: what is no longer wanted retires, shrinks or is lost; then what is new or
        grows takes from what became free.
        """
        resized: Resizings = {}
        self._apply_addresses(plan, resized)
        self._apply_machines(plan, resized)
        self._default_addresses = plan.default_addresses
        wanted = {
            (self._by_name[name].address, frontend.address): frontend.ports
            for frontend in plan.frontends
            for name in frontend.members
        }
        self._retire_and_shrink(wanted, resized)
        for frontend in plan.frontends:
            self._allot_frontend(frontend, resized)
        for machine in self._by_name.values():
            if machine.method is Method.DEFAULT_OUTBOUND_ACCESS and not machine.allotments:
                self._allot_default(machine, resized)
        return list(resized.values())

    # -- applying a plan, step by step

    def _apply_addresses(self, plan: Plan, resized: Resizings) -> None:
        profile = self.profile
        for address in self.addresses.keys() - plan.addresses.keys():
            lost = self.addresses[address]
            for allotment in (*lost.allotments, *lost.retired):
                self._drop(allotment, resized)
            del self.addresses[address]
        for address, frontend_ports in plan.addresses.items():
            public = self.addresses.get(address)
            if public is not None and public.frontend_ports == frontend_ports:
                continue
            inventory = Inventory(
                profile.first_snat_port, profile.last_snat_port, profile.port_unit, frontend_ports
            )
            if public is None:
                self.addresses[address] = PublicAddress(address, inventory, frontend_ports)
                continue
            public.inventory, public.frontend_ports = inventory, frontend_ports
            for allotment in (*public.allotments, *public.retired):
                kept = tuple(joined(inventory.claim(allotment.ranges)))
                if kept != allotment.ranges:
                    resized[allotment] = Resized(allotment, allotment.count, kept)

    def _apply_machines(self, plan: Plan, resized: Resizings) -> None:
        by_address = {machine.address: machine for machine in plan.machines}
        for address, machine in list(self.machines.items()):
            if machine.named and address not in by_address:
                for allotment in list(machine.allotments):
                    self._retire(allotment, resized)
                del self.machines[address]
        for planned in plan.machines:
            existing = self.machines.get(planned.address)
            if existing is None:
                self.machines[planned.address] = Machine(planned, named=True)
            else:
                existing.adopt(planned)
                existing.named = True
        self._by_name = {m.name: m for m in self.machines.values() if m.named}
        for public in self.addresses.values():
            public.instance_of = None
        for planned in plan.machines:
            if planned.instance is not None:
                own = self.addresses[planned.instance]
                own.instance_of = self.machines[planned.address]

    def _retire_and_shrink(
        self, wanted: dict[tuple[bytes, bytes], int], resized: Resizings
    ) -> None:
        for public in self.addresses.values():
            for allotment in list(public.allotments):
                machine = allotment.machine
                if allotment.method is Method.DEFAULT_OUTBOUND_ACCESS:
                    stays = (
                        machine.method is Method.DEFAULT_OUTBOUND_ACCESS
                        and public.address in self._default_addresses
                    )
                    target = self._default_ports
                else:
                    target = wanted.get((machine.address, public.address), 0)
                    stays = target > 0
                if not stays:
                    self._retire(allotment, resized)
                    continue
                kept, rest = lowest(_ranges_after(allotment, resized), target)
                if rest:
                    public.inventory.release(rest)
                    _resize(allotment, kept, resized)

    def _allot_frontend(self, frontend: Frontend, resized: Resizings) -> None:
        public = self.addresses[frontend.address]
        present = {allotment.machine.name: allotment for allotment in public.allotments}
        for name in frontend.members:
            allotment = present.get(name)
            if allotment is None:
                ranges = self._deal(public, frontend.ports, resized)
                if ranges is not None:
                    machine = self._by_name[name]
                    self._add(Allotment(machine, public.address, Method.LOAD_BALANCER, ranges))
                continue
            current = _ranges_after(allotment, resized)
            missing = frontend.ports - sum(map(len, current))
            if missing > 0:
                extra = self._deal(public, missing, resized)
                if extra is not None:
                    _resize(allotment, [*current, *extra], resized)

    # -- dealing, retiring, dropping

    @property
    def _default_ports(self) -> int:
        return self.profile.ports_per_vm(self.profile.default_outbound_pool_size)

    def _allot_default(self, machine: Machine, resized: Resizings) -> bool:
        """Associate a standalone machine with an address that has room, evicting idle strangers."""
        for evict in (False, True):
            for address in self._default_addresses:
                public = self.addresses[address]
                if evict:
                    self._evict_idle(public, resized)
                self._reap_retired(public, resized)
                ranges = public.inventory.allot(self._default_ports)
                if ranges is not None:
                    self._add(Allotment(machine, address, Method.DEFAULT_OUTBOUND_ACCESS, ranges))
                    return True
        return False

    def _deal(self, public: PublicAddress, count: int, resized: Resizings) -> list[range] | None:
        ranges = public.inventory.allot(count)
        if ranges is None:
            self._reap_retired(public, resized)
            ranges = public.inventory.allot(count)
        while ranges is None and public.retired:
            # The flows of a member that left live on its ports only while nobody needs these.
            self._drop(public.retired[0], resized)
            ranges = public.inventory.allot(count)
        return ranges

    def _add(self, allotment: Allotment) -> None:
        self.addresses[allotment.address].allotments.append(allotment)
        allotment.machine.allotments.append(allotment)

    def _retire(self, allotment: Allotment, resized: Resizings) -> None:
        """No new flows; those that live keep their ports until they end."""
        public = self.addresses[allotment.address]
        public.allotments.remove(allotment)
        allotment.machine.allotments.remove(allotment)
        public.retired.append(allotment)
        self._reap_retired(public, resized)

    def _reap_retired(self, public: PublicAddress, resized: Resizings) -> None:
        for allotment in list(public.retired):
            if not allotment.in_use:
                public.retired.remove(allotment)
                public.inventory.release(_ranges_after(allotment, resized))

    def _evict_idle(self, public: PublicAddress, resized: Resizings) -> None:
        for allotment in list(public.allotments):
            machine = allotment.machine
            if not machine.named and not machine.flows and not allotment.in_use:
                public.allotments.remove(allotment)
                public.inventory.release(_ranges_after(allotment, resized))
                machine.allotments.clear()  # a cycle would outlive it: the collector is off
                del self.machines[machine.address]

    def _drop(self, allotment: Allotment, resized: Resizings) -> None:
        """Take all ports back at once: the flows on them break."""
        public = self.addresses[allotment.address]
        if allotment in public.allotments:
            public.allotments.remove(allotment)
            allotment.machine.allotments.remove(allotment)
        else:
            public.retired.remove(allotment)
        public.inventory.release(_ranges_after(allotment, resized))
        _resize(allotment, (), resized)


def _resize(allotment: Allotment, ranges: Iterable[range], resized: Resizings) -> None:
    resized[allotment] = Resized(allotment, allotment.count, tuple(joined(ranges)))


def _ranges_after(allotment: Allotment, resized: Resizings) -> tuple[range, ...]:
    """The ports that an allotment will have, as far as is known."""
    item = resized.get(allotment)
    return allotment.ranges if item is None else item.ranges
