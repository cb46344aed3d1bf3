"""Which method takes a VM's flows out: a table, in the profile's order, and the facts behind it.

``AVAILABLE`` says for each method whether a VM has it for a protocol; the first that it has in the
profile's ``method_order`` is the one (docs/fidelity.md A1). The checks of a file, the core's plan
and so ``explain`` read this same table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from gateway.model.configuration import Configuration, Subnet
from gateway.model.profile import Method, Profile

PROTOCOLS = ("Tcp", "Udp")


@dataclass(frozen=True, slots=True)
class OutboundMethods:
    """What a VM could go out by; names are the configuration's."""

    nat_gateway: str | None = None
    instance: str | None = None
    outbound_rules: frozenset[str] = frozenset()
    """The protocols for which an outbound rule has one of its pools."""
    frontends: frozenset[str] = frozenset()
    """The protocols for which a load balancing rule gives it SNAT through a frontend."""
    default: bool = False


AVAILABLE: dict[Method, Callable[[OutboundMethods, str], bool]] = {
    Method.NAT_GATEWAY: lambda methods, protocol: methods.nat_gateway is not None,
    Method.INSTANCE_LEVEL_PUBLIC_IP: lambda methods, protocol: methods.instance is not None,
    Method.OUTBOUND_RULE: lambda methods, protocol: protocol in methods.outbound_rules,
    Method.LOAD_BALANCER: lambda methods, protocol: protocol in methods.frontends,
    Method.DEFAULT_OUTBOUND_ACCESS: lambda methods, protocol: methods.default,
}


def method_of(profile: Profile, methods: OutboundMethods, protocol: str) -> Method | None:
    """The method for a protocol (``Tcp``, ``Udp``); None: there is none for it."""
    return next((m for m in profile.method_order if AVAILABLE[m](methods, protocol)), None)


def rule_protocols(protocol: str) -> tuple[str, ...]:
    """The protocols of a rule: ``All`` is both."""
    return PROTOCOLS if protocol == "All" else (protocol,)


def programmed(profile: Profile, protocol: str) -> tuple[str, ...]:
    """The protocols that a load balancing rule of ``protocol`` gives outbound SNAT for."""
    return PROTOCOLS if profile.programs_all_protocols else rule_protocols(protocol)


def subnet_methods(
    configuration: Configuration, profile: Profile, subnet: Subnet | None
) -> OutboundMethods:
    """What every VM of a subnet has, named in the file or not."""
    gateways = (
        gateway.name
        for gateway in configuration.nat_gateways
        if subnet is not None and subnet.name in gateway.subnets
    )
    default = bool(configuration.default_outbound_access.public_ip_addresses)
    if profile.default_outbound_by_subnet:
        default = default and subnet is not None and subnet.default_outbound_access is True
    return OutboundMethods(nat_gateway=next(gateways, None), default=default)


def outbound_methods(configuration: Configuration, profile: Profile) -> dict[str, OutboundMethods]:
    """What each VM of the file has, by its name."""
    ruled: dict[str, set[str]] = {}
    linked: dict[str, set[str]] = {}
    in_standard: set[str] = set()
    for balancer in configuration.load_balancers:
        pools = {pool.name: pool.virtual_machines for pool in balancer.backend_address_pools}
        if balancer.sku == "Standard":
            in_standard.update(*pools.values())
        for outbound in balancer.outbound_rules:
            for name in pools.get(outbound.backend_address_pool, ()):
                ruled.setdefault(name, set()).update(rule_protocols(outbound.protocol))
        for rule in balancer.load_balancing_rules:
            if rule.disable_outbound_snat:
                continue
            for name in pools.get(rule.backend_address_pool, ()):
                linked.setdefault(name, set()).update(programmed(profile, rule.protocol))
    of_subnet = _Subnets(configuration, profile)
    found = {}
    for machine in configuration.virtual_machines:
        methods = replace(
            of_subnet.at(machine.private_ip_address),
            instance=machine.public_ip_address,
            outbound_rules=frozenset(ruled.get(machine.name, ())),
            frontends=frozenset(linked.get(machine.name, ())),
        )
        if profile.default_outbound_by_subnet and machine.name in in_standard:
            methods = replace(methods, default=False)
        found[machine.name] = methods
    return found


class _Subnets:
    """The methods of subnets, each asked once."""

    def __init__(self, configuration: Configuration, profile: Profile) -> None:
        self._all: Iterable[tuple[Subnet, OutboundMethods]] = [
            (subnet, subnet_methods(configuration, profile, subnet))
            for subnet in configuration.virtual_network.subnets
        ]
        self._none = subnet_methods(configuration, profile, None)

    def at(self, address: IPv4Address) -> OutboundMethods:
        return next((w for s, w in self._all if address in s.address_prefix), self._none)
