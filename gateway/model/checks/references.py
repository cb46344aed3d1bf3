"""Names: each resource's is its own, and each reference leads to a resource.

Also what may be referred to only once: a public IP address belongs to one VM, one frontend, one
NAT gateway or default outbound access.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

from gateway.model.configuration import Configuration, LoadBalancer
from gateway.model.problems import Location, did_you_mean, dotted
from gateway.model.reading.validate import Mistake, RemovedParts


class Named(Protocol):
    """Whatever others refer to by its name."""

    @property
    def name(self) -> str:
        """As others write it."""


def check(configuration: Configuration, cuts: RemovedParts) -> Iterator[Mistake]:
    """Duplicate names, unknown names, and things that are used twice."""
    yield from _interfaces(configuration)
    subnets = configuration.virtual_network.subnets
    yield from unique(subnets, ("virtualNetwork", "subnets"))
    yield from unique(configuration.public_ip_addresses, ("publicIPAddresses",))
    yield from unique(configuration.virtual_machines, ("virtualMachines",))
    yield from unique(configuration.load_balancers, ("loadBalancers",))
    yield from unique(configuration.nat_gateways, ("natGateways",))
    public_ips = named(configuration.public_ip_addresses)
    for place, name in _public_ip_uses(configuration):
        yield from known(name, public_ips, "publicIPAddresses", place, cuts)
    yield from _used_once(_public_ip_uses(configuration))
    for index, balancer in enumerate(configuration.load_balancers):
        yield from _balancer(configuration, balancer, ("loadBalancers", index), cuts)
    subnet_names = named(subnets)
    for index, gateway in enumerate(configuration.nat_gateways):
        for number, name in enumerate(gateway.subnets):
            place = ("natGateways", index, "subnets", number)
            yield from known(name, subnet_names, "subnets", place, cuts)


def unique(resources: Sequence[Named], place: Location) -> Iterator[Mistake]:
    """Names that occur twice in a list; as in Azure, capitals make no difference."""
    first: dict[str, int] = {}
    for index, resource in enumerate(resources):
        before = first.setdefault(resource.name.casefold(), index)
        if before != index:
            message = f"name already used by {dotted((*place, before))}"
            if resource.name != resources[before].name:
                message += f" ({resources[before].name}): capitals make no difference"
            yield Mistake((*place, index, "name"), message, resource.name)


def named(resources: Iterable[Named]) -> Collection[str]:
    """The names of a list, in its order, quick to look up."""
    return dict.fromkeys(resource.name for resource in resources)


def known(
    name: str, names: Collection[str], collection: str, place: Location, cuts: RemovedParts
) -> Iterator[Mistake]:
    """A reference that leads nowhere, unless to something that was cut for another error."""
    if name in names or name in cuts.names or collection in cuts.nameless:
        return
    hint = did_you_mean(name, names) or f"; known: {', '.join(list(names)[:10]) or 'none'}"
    yield Mistake(place, f"no such name in {collection}{hint}", name)


def _interfaces(configuration: Configuration) -> Iterator[Mistake]:
    gateway = configuration.gateway
    for index, name in enumerate(gateway.inside):
        place = ("gateway", "inside", index)
        if name in gateway.inside[:index]:
            yield Mistake(place, "interface named twice", name)
        if name == gateway.outside:
            message = "is also gateway.outside; allowed: an interface that faces the VNet"
            yield Mistake(place, message, name)


def _public_ip_uses(configuration: Configuration) -> Iterator[tuple[Location, str]]:
    """Where public IP addresses are referred to, in the order in which the first use counts."""
    for index, machine in enumerate(configuration.virtual_machines):
        if machine.public_ip_address is not None:
            yield ("virtualMachines", index, "publicIPAddress"), machine.public_ip_address
    for index, balancer in enumerate(configuration.load_balancers):
        for number, frontend in enumerate(balancer.frontend_ip_configurations):
            here = ("loadBalancers", index, "frontendIPConfigurations", number)
            yield (*here, "publicIPAddress"), frontend.public_ip_address
    for index, gateway in enumerate(configuration.nat_gateways):
        for number, name in enumerate(gateway.public_ip_addresses):
            yield ("natGateways", index, "publicIPAddresses", number), name
    default = configuration.default_outbound_access.public_ip_addresses
    for index, name in enumerate(default):
        yield ("defaultOutboundAccess", "publicIPAddresses", index), name


def _used_once(uses: Iterable[tuple[Location, str]]) -> Iterator[Mistake]:
    first: dict[str, Location] = {}
    for place, name in uses:
        before = first.setdefault(name, place)
        if before != place:
            message = f"public IP address already used by {dotted(before)}; allowed: one use"
            yield Mistake(place, message, name)


def _balancer(
    configuration: Configuration, balancer: LoadBalancer, place: Location, cuts: RemovedParts
) -> Iterator[Mistake]:
    yield from unique(balancer.frontend_ip_configurations, (*place, "frontendIPConfigurations"))
    yield from unique(balancer.backend_address_pools, (*place, "backendAddressPools"))
    yield from unique(balancer.probes, (*place, "probes"))
    yield from unique(balancer.load_balancing_rules, (*place, "loadBalancingRules"))
    yield from unique(balancer.inbound_nat_rules, (*place, "inboundNatRules"))
    yield from unique(balancer.outbound_rules, (*place, "outboundRules"))

    machines = named(configuration.virtual_machines)
    frontends = named(balancer.frontend_ip_configurations)
    pools = named(balancer.backend_address_pools)
    probes = named(balancer.probes)
    for index, pool in enumerate(balancer.backend_address_pools):
        here = (*place, "backendAddressPools", index, "virtualMachines")
        first: dict[str, int] = {}
        for number, name in enumerate(pool.virtual_machines):
            yield from known(name, machines, "virtualMachines", (*here, number), cuts)
            if first.setdefault(name, number) != number:
                yield Mistake((*here, number), "VM named twice in this pool", name)
    for index, rule in enumerate(balancer.load_balancing_rules):
        here = (*place, "loadBalancingRules", index)
        frontend, pool_name = rule.frontend_ip_configuration, rule.backend_address_pool
        where = (*here, "frontendIPConfiguration")
        yield from known(frontend, frontends, "frontendIPConfigurations", where, cuts)
        where = (*here, "backendAddressPool")
        yield from known(pool_name, pools, "backendAddressPools", where, cuts)
        if rule.probe is not None:
            yield from known(rule.probe, probes, "probes", (*here, "probe"), cuts)
    for index, nat in enumerate(balancer.inbound_nat_rules):
        here = (*place, "inboundNatRules", index)
        frontend, where = nat.frontend_ip_configuration, (*here, "frontendIPConfiguration")
        yield from known(frontend, frontends, "frontendIPConfigurations", where, cuts)
        if nat.virtual_machine is not None:
            where = (*here, "virtualMachine")
            yield from known(nat.virtual_machine, machines, "virtualMachines", where, cuts)
        if nat.backend_address_pool is not None:
            where = (*here, "backendAddressPool")
            yield from known(nat.backend_address_pool, pools, "backendAddressPools", where, cuts)
    for index, outbound in enumerate(balancer.outbound_rules):
        here = (*place, "outboundRules", index)
        for number, frontend in enumerate(outbound.frontend_ip_configurations):
            where = (*here, "frontendIPConfigurations", number)
            yield from known(frontend, frontends, "frontendIPConfigurations", where, cuts)
            if frontend in outbound.frontend_ip_configurations[:number]:
                yield Mistake(where, "frontend named twice in this rule", frontend)
        where = (*here, "backendAddressPool")
        yield from known(outbound.backend_address_pool, pools, "backendAddressPools", where, cuts)
