"""What load balancers' rules listen on: a listener for each frontend port, with its members.

Made from a configuration in slices, and put in place as a whole by ``load_balancer.py``. Knows
neither packets nor flows.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from gateway.core.flows.flow import PORTS
from gateway.core.snat.allocations import Vm
from gateway.model.configuration import (
    Configuration,
    InboundNatRule,
    LoadBalancer,
    LoadBalancingRule,
)
from gateway.model.profile import Method
from gateway.schema.protocols import PROTOCOL_NUMBERS, TCP

SLICE = 64  # members made between two chances to handle packets


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
        members: dict[str, Member],
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
        self.members = members
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
        """Whether a new flow could go to ``machine``."""
        member = self.members.get(machine.name)
        return member is not None and member.machine is machine and member in self.healthy


class Tables:
    """Everything that a configuration's rules listen on, and what is known of it."""

    def __init__(self) -> None:
        self.listeners: dict[tuple[int, bytes], Listener] = {}
        self.behind: dict[Target, list[Listener]] = {}
        self.health: dict[Target, bool | None] = {}
        self.nat_ports: dict[tuple[str, str], dict[str, int]] = {}


class ListenerMaker:
    """Makes the listeners of a load balancer; None after each slice."""

    def __init__(
        self,
        member: Callable[[Vm, Target | None], Member],
        nat_ports: Mapping[tuple[str, str], dict[str, int]],
        tables: Tables,
        configuration: Configuration,
        balancer: LoadBalancer,
        frontends: dict[str, bytes],
        pools: dict[str, tuple[str, ...]],
        machines: Mapping[str, Vm],
    ) -> None:
        """``member`` makes one, with the health that is known of it; ``nat_ports``: the frontend
        ports that NAT rules' members have so far; ``machines`` by name."""
        self._member = member
        self._nat_ports = nat_ports
        self._tables = tables
        self._configuration = configuration
        self._balancer = balancer
        self._frontends = frontends
        self._pools = pools
        self._machines = machines
        self._probes = {probe.name: probe for probe in balancer.probes}
        self._made = 0

    def add_rule(self, rule: LoadBalancingRule) -> Iterator[None]:
        """Have a load balancing rule's frontend port listened on."""
        behind = self._tables.behind
        probe = None if rule.probe is None else self._probes[rule.probe]
        members = {}
        waiting = []
        for name in self._pools[rule.backend_address_pool]:
            target = None if probe is None else Target(self._balancer.name, probe.name, name)
            members[name] = self._member(self._machines[name], target)
            if target is not None:
                waiting.append(behind.setdefault(target, []))
            if self._is_slice():
                yield
        protocol = PROTOCOL_NUMBERS[rule.protocol]
        configuration = self._configuration
        listener = Listener(
            self._balancer,
            rule.name,
            Method.LOAD_BALANCING_RULE,
            self._frontends[rule.frontend_ip_configuration],
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
        self._tables.listeners[listener.key] = listener
        for listeners in waiting:
            listeners.append(listener)

    def add_nat_rule(self, nat: InboundNatRule) -> Iterator[None]:
        """Have an inbound NAT rule's frontend ports listened on."""
        configuration = self._configuration
        if nat.virtual_machine is not None:
            ports = {nat.virtual_machine: nat.frontend_ports.start}
        else:
            members = self._pools[nat.backend_address_pool or ""]
            key = (self._balancer.name, nat.name)
            ports = _dealt(nat.frontend_ports, members, self._nat_ports.get(key, {}))
            self._tables.nat_ports[key] = ports
        protocol = PROTOCOL_NUMBERS[nat.protocol]
        for name, port in ports.items():
            listener = Listener(
                self._balancer,
                nat.name,
                Method.INBOUND_NAT_RULE,
                self._frontends[nat.frontend_ip_configuration],
                protocol,
                port,
                nat.backend_port,
                {name: self._member(self._machines[name], None)},
                _idle_timeout(configuration, protocol, nat.idle_timeout),
                tcp_reset=configuration.profile.tcp_reset_on_idle and nat.enable_tcp_reset,
            )
            self._tables.listeners[listener.key] = listener
            if self._is_slice():
                yield

    def _is_slice(self) -> bool:
        self._made += 1
        return not self._made % SLICE


def _idle_timeout(configuration: Configuration, protocol: int, own: float) -> float:
    """A rule's timeout is for TCP; UDP has the profile's ("Load Balancer TCP reset")."""
    return own if protocol == TCP else configuration.profile.idle_timeout


def _dealt(ports: range, members: Iterable[str], before: dict[str, int]) -> dict[str, int]:
    """A port for each member: the one it had, else the lowest that is left."""
    kept = {name: before[name] for name in members if before.get(name, -1) in ports}
    taken = set(kept.values())
    free = (port for port in ports if port not in taken)
    return {name: kept[name] if name in kept else next(free) for name in members}
