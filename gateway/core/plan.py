"""What a configuration means for outbound traffic, as pure data: which method, which ports.

The choice of method is a table: ``AVAILABLE`` says for each method whether a VM has it, and the
profile gives the order (docs/fidelity.md A1). ``outbound.py`` carries a plan out; a reload is the
difference between two plans.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.model.configuration import Configuration, VirtualMachine
from gateway.model.inventory import frontend_ports, linked_members
from gateway.model.profile import Method, Profile


@dataclass(frozen=True, slots=True)
class Frontend:
    """A public IP that load balancing rules link to VMs: each is allotted ``ports`` on it."""

    address: bytes
    ports: int  # for each VM and protocol
    members: tuple[str, ...]  # in pool order, only those that go out through it


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """How one VM goes out. ``method`` None: it has no way out."""

    name: str
    address: bytes
    method: Method | None
    instance: bytes | None  # its instance-level public IP
    idle_timeout: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole of a configuration, resolved: addresses are 4 bytes."""

    machines: tuple[MachinePlan, ...]
    frontends: tuple[Frontend, ...]
    addresses: dict[bytes, frozenset[int]]  # public IP: frontend ports of rules on it
    default_addresses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the order of methods is decided from."""

    instance: bytes | None
    has_frontend: bool
    default_addresses: tuple[bytes, ...]


AVAILABLE: dict[Method, Callable[[_Facts], bool]] = {
    Method.INSTANCE_LEVEL_PUBLIC_IP: lambda facts: facts.instance is not None,
    Method.LOAD_BALANCER: lambda facts: facts.has_frontend,
    Method.DEFAULT_OUTBOUND_ACCESS: lambda facts: bool(facts.default_addresses),
}


def plan(configuration: Configuration, profile: Profile) -> Plan:
    """Resolve a validated configuration. Pure: equal input, equal output.

    A load balancing rule links a pool to a frontend, an inbound NAT rule does not; a pool without a
    rule behaves as without a load balancer (docs/fidelity.md D5).
    """
    packed = {public.name: public.ip_address.packed for public in configuration.public_ip_addresses}
    idle = {public.name: public.idle_timeout for public in configuration.public_ip_addresses}
    default_addresses = tuple(
        packed[name] for name in configuration.default_outbound_access.public_ip_addresses
    )
    behind = linked_members(configuration)
    balanced = {name for names in behind.values() for name in names}
    public_of = {
        (index, frontend.name): packed[frontend.public_ip_address]
        for index, balancer in enumerate(configuration.load_balancers)
        for frontend in balancer.frontend_ip_configurations
    }
    listening = dict.fromkeys(packed.values(), frozenset[int]())
    for (index, name), address in public_of.items():
        listening[address] |= frontend_ports(configuration, index, name)

    def of(machine: VirtualMachine) -> MachinePlan:
        public = machine.public_ip_address
        facts = _Facts(
            packed[public] if public is not None else None,
            machine.name in balanced,
            default_addresses,
        )
        method = first_method(profile, facts)
        return MachinePlan(
            machine.name,
            machine.private_ip_address.packed,
            method,
            facts.instance,
            idle[public]
            if public is not None and method is Method.INSTANCE_LEVEL_PUBLIC_IP
            else profile.idle_timeout,
        )

    machines = tuple(of(machine) for machine in configuration.virtual_machines)
    through = {machine.name for machine in machines if machine.method is Method.LOAD_BALANCER}
    # The pool's size counts every member, also one that has an instance-level public IP.
    frontends = tuple(
        Frontend(
            public_of[frontend],
            profile.ports_per_vm(len(names)),
            tuple(name for name in names if name in through),
        )
        for frontend, names in behind.items()
    )
    return Plan(
        machines,
        frontends,
        listening,
        default_addresses,
    )


def first_method(profile: Profile, facts: _Facts) -> Method | None:
    """The first method of the profile's order that the facts allow."""
    return next((m for m in profile.method_order if AVAILABLE[m](facts)), None)
