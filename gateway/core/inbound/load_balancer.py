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
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from random import Random
from typing import NamedTuple

from gateway.core.flows.flow import PORTS, Flow
from gateway.core.snat.allocation_manager import AllocationManager
from gateway.core.snat.allocations import Vm
from gateway.model.configuration import Configuration, InboundNatRule, LoadBalancer
from gateway.model.profile import Method
from gateway.schema.protocols import PROTOCOL_NUMBERS, TCP, UDP

INBOUND_RULES = frozenset({Method.LOAD_BALANCING_RULE, Method.INBOUND_NAT_RULE})
SLOTS = 1 << 14
_NOT_YET = 0xFFFF
_WORD = (1 << 64) - 1


class Target(NamedTuple):
    """What has a health of its own: a VM as a probe of a load balancer sees it."""

    balancer: str
    probe: str
    vm: str


class Member:
    """A VM behind a listener. ``up`` None: probed, and nothing known yet."""

    __slots__ = ("machine", "salt", "up")

    def __init__(self, machine: Vm, salt: int, up: bool | None) -> None:
        self.machine = machine
        self.salt = salt
        self.up = up


class Listener:
    """A frontend port of a load balancing rule or an inbound NAT rule."""

    __slots__ = (
        "address",
        "all_up_when_none",
        "backend_port",
        "balancer",
        "distribution",
        "healthy",
        "idle_timeout",
        "keeps_tcp_when_all_down",
        "members",
        "method",
        "port",
        "probe",
        "protocol",
        "rule",
        "slots",
        "standard",
        "tcp_reset",
    )

    def __init__(  # noqa: PLR0913
        self,
        balancer: LoadBalancer,
        rule: str,
        method: Method,
        address: bytes,
        protocol: int,
        port: int,
        backend_port: int,
        members: Iterable[Member],
        idle_timeout: float,
        *,
        distribution: str = "Default",
        probe: str | None = None,
        all_up_when_none: bool = False,
        tcp_reset: bool = False,
    ) -> None:
        self.balancer = balancer.name
        self.rule = rule
        self.method = method
        self.address = address
        self.protocol = protocol
        self.port = port
        self.backend_port = PORTS[backend_port]
        self.members = {member.machine.name: member for member in members}
        self.idle_timeout = idle_timeout
        self.distribution = distribution
        self.probe = probe
        self.all_up_when_none = all_up_when_none
        self.tcp_reset = tcp_reset
        # What the two SKUs do differently when the last member goes down ("Load Balancer probes").
        self.standard = balancer.sku == "Standard"
        self.keeps_tcp_when_all_down = self.standard and len(self.members) > 1
        self.healthy: tuple[Member, ...] = ()
        self.slots: array[int] | None = None
        self.settle()

    @property
    def key(self) -> tuple[int, bytes]:
        """Protocol, and address and port as they stand in a reply key."""
        return self.protocol, self.address + PORTS[self.port]

    @property
    def down(self) -> int:
        """How many members are not up."""
        return sum(not member.up for member in self.members.values())

    def settle(self) -> None:
        """Take account of its members' health."""
        members = tuple(self.members.values())
        healthy = tuple(member for member in members if member.up)
        if not healthy and self.all_up_when_none:
            healthy = members
        if healthy != self.healthy:
            self.healthy = healthy
            self.slots = None

    def takes(self, machine: Vm) -> bool:
        """Whether a new flow could go to the VM ``machine``."""
        member = self.members.get(machine.name)
        return member is not None and member.machine is machine and member in self.healthy


class Balancer:
    """Every listener of a configuration, and the health of what is behind them."""

    def __init__(self, outbound: AllocationManager, seed: int | None, *, probed: bool) -> None:
        """``probed``: health will be reported; a probed member is not up before it is."""
        self._outbound = outbound
        self._key = Random(seed).randbytes(16)  # noqa: S311 - it deals, and hides nothing
        self._unknown = None if probed else True
        self._listeners: dict[tuple[int, bytes], Listener] = {}
        self._behind: dict[Target, list[Listener]] = {}
        self._health: dict[Target, bool | None] = {}
        self._nat_ports: dict[tuple[str, str], dict[str, int]] = {}

    # -- packets

    def match(self, protocol: int, reply: bytes) -> Listener | None:
        """The listener that a packet with this (reply) key is for."""
        return self._listeners.get((protocol, reply[4:8] + reply[10:12]))

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
        if target not in self._behind or self._health.get(target) is up:
            return []
        self._health[target] = up
        listeners = self._behind[target]
        for listener in listeners:
            listener.members[target.vm].up = up
            listener.settle()
        return listeners

    def health_of(self, target: Target) -> bool | None:
        """What is known of a target's health; None: nothing, or there is no such target."""
        return self._health.get(target)

    def targets(self) -> dict[Target, bool | None]:
        """What is to be probed, with what is known of its health."""
        return dict(self._health)

    def listeners(self) -> Iterator[Listener]:
        """All of them, load balancers and rules in their order."""
        return iter(list(self._listeners.values()))

    # -- the configuration

    @property
    def nat_ports(self) -> dict[tuple[str, str], dict[str, int]]:
        """The frontend ports of pools' members, by load balancer and inbound NAT rule."""
        return self._nat_ports

    def recall(
        self,
        configuration: Configuration,
        health: dict[Target, bool],
        nat_ports: dict[tuple[str, str], dict[str, int]],
    ) -> None:
        """Continue with what another process knew under the same configuration."""
        self._health, self._nat_ports = dict(health), nat_ports
        self.apply(configuration)

    def apply(self, configuration: Configuration) -> set[tuple[int, bytes]]:
        """Listen as configured; returns the keys of listeners that no longer exist.

        What is known of targets that stay, and the ports of NAT rules' members, are kept. To be
        called after ``AllocationManager.apply``: members are its VMs.
        """
        machines = {m.name: m for m in self._outbound.machines.values() if m.named}
        publics = {p.name: p.ip_address.packed for p in configuration.public_ip_addresses}
        before = self._listeners.keys()
        self._listeners, self._behind = {}, {}
        for balancer in configuration.load_balancers:
            frontends = {
                frontend.name: publics[frontend.public_ip_address]
                for frontend in balancer.frontend_ip_configurations
            }
            pools = {pool.name: pool.virtual_machines for pool in balancer.backend_address_pools}
            self._add_rules(configuration, balancer, frontends, pools, machines)
            for nat in balancer.inbound_nat_rules:
                self._add_nat_rule(configuration, balancer, nat, frontends, pools, machines)
        self._health = {target: self._health.get(target, self._unknown) for target in self._behind}
        rules = {
            (b.name, n.name) for b in configuration.load_balancers for n in b.inbound_nat_rules
        }
        self._nat_ports = {key: ports for key, ports in self._nat_ports.items() if key in rules}
        return before - self._listeners.keys()

    def _add_rules(
        self,
        configuration: Configuration,
        balancer: LoadBalancer,
        frontends: dict[str, bytes],
        pools: dict[str, tuple[str, ...]],
        machines: dict[str, Vm],
    ) -> None:
        probes = {probe.name: probe for probe in balancer.probes}
        for rule in balancer.load_balancing_rules:
            probe = None if rule.probe is None else probes[rule.probe]
            targets = [
                None if probe is None else Target(balancer.name, probe.name, name)
                for name in pools[rule.backend_address_pool]
            ]
            members = [
                self._member(machines[name], target)
                for name, target in zip(pools[rule.backend_address_pool], targets, strict=True)
            ]
            protocol = PROTOCOL_NUMBERS[rule.protocol]
            listener = Listener(
                balancer,
                rule.name,
                Method.LOAD_BALANCING_RULE,
                frontends[rule.frontend_ip_configuration],
                protocol,
                rule.frontend_port,
                rule.backend_port,
                members,
                _idle_timeout(configuration, protocol, rule.idle_timeout),
                distribution=rule.load_distribution,
                probe=rule.probe,
                all_up_when_none=(
                    probe is not None and probe.no_healthy_backends_behavior == "AllProbedUp"
                ),
                tcp_reset=configuration.profile.tcp_reset_on_idle and rule.enable_tcp_reset,
            )
            self._listeners[listener.key] = listener
            for target in targets:
                if target is not None:
                    self._behind.setdefault(target, []).append(listener)

    def _add_nat_rule(
        self,
        configuration: Configuration,
        balancer: LoadBalancer,
        nat: InboundNatRule,
        frontends: dict[str, bytes],
        pools: dict[str, tuple[str, ...]],
        machines: dict[str, Vm],
    ) -> None:
        if nat.virtual_machine is not None:
            ports = {nat.virtual_machine: nat.frontend_ports.start}
        else:
            members = pools[nat.backend_address_pool or ""]
            key = (balancer.name, nat.name)
            ports = _dealt(nat.frontend_ports, members, self._nat_ports.get(key, {}))
            self._nat_ports[key] = ports
        protocol = PROTOCOL_NUMBERS[nat.protocol]
        for name, port in ports.items():
            listener = Listener(
                balancer,
                nat.name,
                Method.INBOUND_NAT_RULE,
                frontends[nat.frontend_ip_configuration],
                protocol,
                port,
                nat.backend_port,
                [self._member(machines[name], None)],
                _idle_timeout(configuration, protocol, nat.idle_timeout),
                tcp_reset=configuration.profile.tcp_reset_on_idle and nat.enable_tcp_reset,
            )
            self._listeners[listener.key] = listener

    def _member(self, machine: Vm, target: Target | None) -> Member:
        known = True if target is None else self._health.get(target, self._unknown)
        return Member(machine, self._hashed(machine.address), known)

    def _hashed(self, data: bytes) -> int:
        """64 bits that only who knows the key can foretell."""
        return int.from_bytes(blake2b(data, digest_size=8, key=self._key).digest(), "big")


def _idle_timeout(configuration: Configuration, protocol: int, own: float) -> float:
    """A rule's timeout is for TCP; UDP has the profile's ("Load Balancer TCP reset")."""
    return own if protocol == TCP else configuration.profile.idle_timeout


def _dealt(ports: range, members: Iterable[str], before: dict[str, int]) -> dict[str, int]:
    """A port for each member: the one it had, else the lowest that is left."""
    kept = {name: before[name] for name in members if before.get(name, -1) in ports}
    taken = set(kept.values())
    free = (port for port in ports if port not in taken)
    return {name: kept[name] if name in kept else next(free) for name in members}
