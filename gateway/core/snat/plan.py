"""What a configuration means for outbound traffic, as pure data: which method, which ports.

The choice of method is a table in ``model/resolved/outbound_methods.py``, the arithmetic of ports
is ``model/resolved/port_grants.py``; here names become addresses. ``allocation_manager.py`` carries
a plan out; a reload is the difference between two plans.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from gateway.model.configuration import Configuration, VirtualMachine
from gateway.model.profile import Method, Profile
from gateway.model.resolved.outbound_methods import (
    OutboundMethods,
    method_of,
    outbound_methods,
    subnet_methods,
)
from gateway.model.resolved.port_grants import frontend_ports, granted
from gateway.schema.protocols import PROTOCOL_NUMBERS


@dataclass(frozen=True, slots=True)
class FlowPolicy:
    """How the flows of an allocation are kept: for its rule's method, with its timeout."""

    method: Method
    idle_timeout: float
    owner: str  # what gives the ports: loadBalancers/lb, natGateways/nat, …
    tcp_reset: bool = False


@dataclass(frozen=True, slots=True)
class AddressGrant:
    """SNAT ports of a public IP for some VMs, for one protocol."""

    address: bytes
    protocol: int
    flow_policy: FlowPolicy
    size: int  # members of the pool, also those that go out another way
    ports: dict[str, int] = field(hash=False)  # by VM, in pool order


@dataclass(frozen=True, slots=True)
class VmPlan:
    """How one VM goes out. A method that is None: there is none for that protocol."""

    name: str
    address: bytes
    tcp: Method | None
    udp: Method | None
    instance: bytes | None  # its instance-level public IP
    idle_timeout: float  # of flows by that address
    nat_gateway: str | None = None  # None, too, where another method comes first


@dataclass(frozen=True, slots=True)
class SubnetPlan:
    """How a VM that the file does not name goes out of a subnet."""

    prefix: IPv4Network
    tcp: Method | None
    udp: Method | None
    nat_gateway: str | None


@dataclass(frozen=True, slots=True)
class NatGatewayPlan:
    """A NAT gateway: VMs that name it go out by these addresses."""

    name: str
    addresses: tuple[bytes, ...]
    idle_timeout: float  # of TCP flows


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole of a configuration, resolved: addresses are 4 bytes."""

    machines: tuple[VmPlan, ...]
    grants: tuple[AddressGrant, ...]  # where a VM has several, in the order of their use
    addresses: dict[bytes, frozenset[int]]  # public IP: frontend ports of rules on it
    default_addresses: tuple[bytes, ...]
    subnets: tuple[SubnetPlan, ...]
    nat_gateways: tuple[NatGatewayPlan, ...]


def plan(configuration: Configuration, profile: Profile) -> Plan:
    """Resolve a validated configuration. Pure: equal input, equal output."""
    publics = {public.name: public for public in configuration.public_ip_addresses}
    packed = {name: public.ip_address.packed for name, public in publics.items()}
    public_of = {
        (index, frontend.name): packed[frontend.public_ip_address]
        for index, balancer in enumerate(configuration.load_balancers)
        for frontend in balancer.frontend_ip_configurations
    }
    listening = dict.fromkeys(packed.values(), frozenset[int]())
    for (index, name), address in public_of.items():
        listening[address] |= frontend_ports(configuration, index, name)
    methods = outbound_methods(configuration, profile)

    def uses(name: str, protocol: str, method: Method) -> bool:
        return method_of(profile, methods[name], protocol) is method

    def of(machine: VirtualMachine) -> VmPlan:
        mine = methods[machine.name]
        instance = None if mine.instance is None else publics[mine.instance]
        tcp, udp = _methods(profile, mine)
        return VmPlan(
            machine.name,
            machine.private_ip_address.packed,
            tcp,
            udp,
            None if instance is None else instance.ip_address.packed,
            profile.idle_timeout if instance is None else instance.idle_timeout,
            mine.nat_gateway if Method.NAT_GATEWAY in (tcp, udp) else None,
        )

    return Plan(
        tuple(of(machine) for machine in configuration.virtual_machines),
        tuple(
            AddressGrant(
                public_of[grant.balancer, grant.frontend],
                PROTOCOL_NUMBERS[grant.protocol],
                FlowPolicy(
                    grant.method,
                    grant.idle_timeout,
                    f"loadBalancers/{configuration.load_balancers[grant.balancer].name}",
                    grant.tcp_reset,
                ),
                grant.size,
                grant.ports,
            )
            for grant in granted(configuration, profile, uses).grants
        ),
        listening,
        tuple(packed[n] for n in configuration.default_outbound_access.public_ip_addresses),
        tuple(_subnets(configuration, profile)),
        tuple(
            NatGatewayPlan(
                gateway.name,
                tuple(packed[name] for name in gateway.public_ip_addresses),
                gateway.idle_timeout,
            )
            for gateway in configuration.nat_gateways
        ),
    )


def _subnets(configuration: Configuration, profile: Profile) -> Iterator[SubnetPlan]:
    for subnet in configuration.virtual_network.subnets:
        methods = subnet_methods(configuration, profile, subnet)
        tcp, udp = _methods(profile, methods)
        nat_gateway = methods.nat_gateway if Method.NAT_GATEWAY in (tcp, udp) else None
        yield SubnetPlan(subnet.address_prefix, tcp, udp, nat_gateway)


def _methods(profile: Profile, methods: OutboundMethods) -> tuple[Method | None, Method | None]:
    return method_of(profile, methods, "Tcp"), method_of(profile, methods, "Udp")
