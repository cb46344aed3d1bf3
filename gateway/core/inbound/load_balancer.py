"""Inbound: which rule a packet to a frontend belongs to, and which backend gets the flow.

A ``Listener`` is a rule's frontend port. Its flows are dealt to the healthy members of its pool by
a hash of the five-tuple, or of less (``loadDistribution``). The hash picks one of ``SLOTS`` slots;
a slot belongs to the healthy member that scores highest in it (rendezvous hashing). So a member
that goes takes only its own slots with it, one that comes back gets exactly these again, and two
rules over one pool send a client to the same member where they hash the same. The seed keys all
of it. Only a flow's first packet comes here: the flow table has the rest.

Health is reported from outside (``report``), not found out here. The core sends no probes. Which
flows outlive a member's going down is ``keeps`` (docs/fidelity.md A13).
"""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator, Mapping
from hashlib import blake2b
from random import Random

from gateway.core.flows.flow import Flow
from gateway.core.inbound.listeners import (
    SLICE,
    Listener,
    ListenerMaker,
    Member,
    Tables,
    Target,
)
from gateway.core.snat.allocation_manager import AllocationManager
from gateway.core.snat.allocations import Vm
from gateway.model.configuration import (
    Configuration,
)
from gateway.model.profile import Method
from gateway.schema.protocols import UDP

INBOUND_RULES = frozenset({Method.LOAD_BALANCING_RULE, Method.INBOUND_NAT_RULE})
SLOTS = 1 << 14
_NOT_YET = 0xFFFF
_WORD = (1 << 64) - 1


class Balancer:
    """Every listener of a configuration, and the health of what is behind them."""

    def __init__(self, outbound: AllocationManager, seed: int | None, *, probed: bool) -> None:
        """``probed``: health will be reported; a probed member is not up before it is."""
        self._outbound = outbound
        self._key = Random(seed).randbytes(16)  # noqa: S311 - it deals, and hides nothing
        self._unknown = None if probed else True
        self._tables = Tables()
        self._reported: list[tuple[Target, bool]] | None = None  # while others are prepared

    # -- packets

    def match(self, protocol: int, reply: bytes) -> Listener | None:
        """The listener that a packet with this (reply) key is for."""
        return self._tables.listeners.get((protocol, reply[4:8] + reply[10:12]))

    def choose(self, listener: Listener, reply: bytes) -> Member | None:
        """The backend of a new flow; None: there is no healthy one."""
        healthy = listener.healthy
        if len(healthy) < 2:
            return healthy[0] if healthy else None
        if listener.distribution == "Default":
            hashed = reply + bytes((listener.protocol,))
        elif listener.distribution == "SourceIP":
            hashed = reply[0:8]
        else:
            hashed = reply[0:8] + bytes((listener.protocol,))
        slot = self._hashed(hashed) % SLOTS
        slots = listener.slots
        if slots is None:
            slots = listener.slots = array("H", [_NOT_YET]) * SLOTS
        number = slots[slot]
        if number == _NOT_YET:
            # Multiply-shift hashing: the high bits of a product with a random odd number.
            factor = self._hashed(slot.to_bytes(2, "big")) | 1
            scores = [member.salt * factor & _WORD for member in healthy]
            number = slots[slot] = scores.index(max(scores))
        return healthy[number]

    def keeps(self, flow: Flow) -> bool:
        """Whether an inbound flow of a rule continues, as things are now (A13)."""
        listener = self.match(flow.protocol, flow.reply)
        if listener is None:
            return False
        if flow.method is Method.INBOUND_NAT_RULE or listener.takes(flow.machine):
            return True
        if flow.protocol == UDP:
            return False
        return bool(listener.healthy) or listener.keeps_tcp_when_all_down

    # -- health

    def report(self, target: Target, up: bool) -> list[Listener]:
        """A target's health changed: the listeners whose member it is; none if it is the same."""
        if self._reported is not None:
            self._reported.append((target, up))
        tables = self._tables
        if target not in tables.behind or tables.health.get(target) is up:
            return []
        tables.health[target] = up
        listeners = tables.behind[target]
        for listener in listeners:
            listener.members[target.vm].up = up
            listener.settle()
        return listeners

    def health_of(self, target: Target) -> bool | None:
        """What is known of a target's health; None: nothing, or there is no such target."""
        return self._tables.health.get(target)

    def targets(self) -> dict[Target, bool | None]:
        """What is to be probed, with what is known of its health."""
        return dict(self._tables.health)

    def listeners(self) -> Iterator[Listener]:
        """All of them, load balancers and rules in their order."""
        return iter(list(self._tables.listeners.values()))

    # -- the configuration

    @property
    def nat_ports(self) -> dict[tuple[str, str], dict[str, int]]:
        """The frontend ports of pools' members, by load balancer and inbound NAT rule."""
        return self._tables.nat_ports

    def recall(
        self,
        configuration: Configuration,
        health: dict[Target, bool],
        nat_ports: dict[tuple[str, str], dict[str, int]],
    ) -> None:
        """Go on with what another process knew under the same configuration."""
        self._tables.health, self._tables.nat_ports = dict(health), nat_ports
        self.apply(configuration)

    def apply(self, configuration: Configuration) -> None:
        """Listen as ``configuration`` says, at once.

        To be called after ``AllocationManager.apply``: members are its VMs.
        """
        machines = {m.name: m for m in self._outbound.machines.values() if m.named}
        steps = self.prepare(configuration, machines)
        try:
            while True:
                next(steps)
        except StopIteration as finished:
            self.swap(finished.value)

    def prepare(
        self, configuration: Configuration, machines: Mapping[str, Vm]
    ) -> Generator[None, None, Tables]:
        """What ``swap`` is to put in place, made in slices; None after each.

        What is known of targets that stay, and the ports of NAT rules' members, are kept.
        ``machines`` by the names that they have in this configuration.
        """
        self._reported = []
        tables = Tables()
        publics = {p.name: p.ip_address.packed for p in configuration.public_ip_addresses}
        for balancer in configuration.load_balancers:
            frontends = {
                frontend.name: publics[frontend.public_ip_address]
                for frontend in balancer.frontend_ip_configurations
            }
            pools = {pool.name: pool.virtual_machines for pool in balancer.backend_address_pools}
            maker = ListenerMaker(
                self._member,
                self.nat_ports,
                tables,
                configuration,
                balancer,
                frontends,
                pools,
                machines,
            )
            for rule in balancer.load_balancing_rules:
                yield from maker.add_rule(rule)
            for nat in balancer.inbound_nat_rules:
                yield from maker.add_nat_rule(nat)
        for number, target in enumerate(tables.behind, 1):
            tables.health[target] = self._known_health(target)
            if not number % SLICE:
                yield
        return tables

    def gone(self, tables: Tables) -> set[tuple[int, bytes]]:
        """The keys of listeners that are not in ``tables``."""
        return self._tables.listeners.keys() - tables.listeners.keys()

    def swap(self, tables: Tables) -> None:
        """Listen as the tables say, which were prepared last."""
        reported, self._reported = self._reported or (), None
        self._tables = tables
        for target, up in reported:  # after it was made a member, perhaps
            for listener in tables.behind.get(target, ()):
                tables.health[target] = listener.members[target.vm].up = up
                listener.settle()

    def _known_health(self, target: Target) -> bool | None:
        """What is known of a target that may be new."""
        return self._tables.health.get(target, self._unknown)

    def _member(self, machine: Vm, target: Target | None) -> Member:
        """A member of a pool, with the health that is known of it."""
        known = True if target is None else self._known_health(target)
        return Member(machine, self._hashed(machine.address), known)

    def _hashed(self, data: bytes) -> int:
        """64 bits that only who knows the key can foretell."""
        return int.from_bytes(blake2b(data, digest_size=8, key=self._key).digest(), "big")
