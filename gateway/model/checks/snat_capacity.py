"""Whether the SNAT ports that VMs are to have fit on their public IPs.

Pure arithmetic on the profile, so that a file that cannot fit is rejected before anything runs. Of
outbound rules, as Azure rejects them; its error codes stand in the messages.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.model.configuration import Configuration, LoadBalancer, OutboundRule
from gateway.model.problems import Location
from gateway.model.profile import PROFILES, Method, Profile
from gateway.model.reading.validate import Mistake, RemovedParts
from gateway.model.resolved.outbound_methods import (
    PROTOCOLS,
    OutboundMethods,
    method_of,
    outbound_methods,
)
from gateway.model.resolved.port_grants import PortGrant, capacity, frontend_ports, granted

TOO_MANY_FOR_RULE = (
    "SpecifiedAllocatedOutboundPortsForOutboundRuleExceedsTotalNumberOfAllowedPortsPerRule"
)
TOO_MANY_FOR_FRONTENDS = (
    "SpecifiedAllocatedOutboundPortsForOutboundRuleExceedsTotalNumberOfAvailablePorts"
)


def check(configuration: Configuration, cuts: RemovedParts) -> Iterator[Mistake]:
    """Allocations that cannot fit, on load balancers' frontends and for standalone VMs."""
    profile = PROFILES.get(configuration.gateway.profile)
    if profile is None:
        return
    methods = outbound_methods(configuration, profile)

    def uses(name: str, protocol: str, method: Method) -> bool:
        return name in methods and method_of(profile, methods[name], protocol) is method

    given, lacking = granted(configuration, profile, uses)
    yield from _frontends(configuration, profile, given)
    for index, balancer in enumerate(configuration.load_balancers):
        for number, rule in enumerate(balancer.outbound_rules):
            missing = {p: n for (b, r, p), n in lacking.items() if (b, r) == (index, number)}
            place: Location = ("loadBalancers", index, "outboundRules", number)
            yield from _outbound_rule(profile, balancer, rule, missing, place)
    # What is cut from these can make a VM look standalone that is not.
    if not cuts.words & {
        "virtualMachines",
        "publicIPAddress",
        "loadBalancers",
        "backendAddressPools",
        "loadBalancingRules",
        "outboundRules",
        "natGateways",
        "subnets",
        "defaultOutboundAccess",
        "publicIPAddresses",
    }:
        yield from _standalone(configuration, profile, methods)


def _frontends(
    configuration: Configuration, profile: Profile, given: list[PortGrant]
) -> Iterator[Mistake]:
    """By the table: more VMs than a frontend has ports for."""
    reported = set()
    for grant in given:
        place = (grant.balancer, grant.frontend)
        if grant.method is not Method.LOAD_BALANCER or place in reported or not grant.ports:
            continue
        # Members with an instance-level public IP count for the pool's size, but need no ports.
        users, ports = len(grant.ports), max(grant.ports.values())
        available = capacity(profile, frontend_ports(configuration, *place))
        if sum(grant.ports.values()) <= available:
            continue
        reported.add(place)
        frontends = configuration.load_balancers[grant.balancer].frontend_ip_configurations
        number = next(n for n, f in enumerate(frontends) if f.name == grant.frontend)
        message = (
            f"{users} VMs with {ports} SNAT ports each need {users * ports}, but this frontend "
            f"has {available} (in units of {profile.port_unit}, without rules' frontend ports)"
            f"; allowed: at most {available // ports} VMs"
        )
        where = ("loadBalancers", grant.balancer, "frontendIPConfigurations", number, "name")
        yield Mistake(where, message, grant.frontend)


def _outbound_rule(
    profile: Profile,
    balancer: LoadBalancer,
    rule: OutboundRule,
    missing: dict[str, int],
    place: Location,
) -> Iterator[Mistake]:
    """More ports than Azure's arithmetic allows, or than is left of the frontends."""
    pools = {pool.name: pool.virtual_machines for pool in balancer.backend_address_pools}
    instances = len(pools.get(rule.backend_address_pool, ()))
    addresses = len(set(rule.frontend_ip_configurations))
    ports, most = rule.allocated_outbound_ports, profile.snat_port_count * addresses
    unit, where = profile.port_unit, (*place, "allocatedOutboundPorts")
    if ports * instances > most:
        message = (
            f"{ports} ports for each of {instances} VMs are {ports * instances}, but {addresses} "
            f"public IP address{'' if addresses == 1 else 'es'} can give {most}; allowed: at most "
            f"{most // instances // unit * unit} ({TOO_MANY_FOR_RULE})"
        )
        yield Mistake(where, message, ports)
    elif missing:
        protocol, count = next(iter(missing.items()))
        message = (
            f"{count} {protocol} ports more than the frontends have left, in units of {unit}, "
            "without rules' frontend ports and what earlier outbound rules take; allowed: fewer "
            f"ports or VMs, or more frontends ({TOO_MANY_FOR_FRONTENDS})"
        )
        yield Mistake(where, message, ports)


def _standalone(
    configuration: Configuration, profile: Profile, methods: dict[str, OutboundMethods]
) -> Iterator[Mistake]:
    addresses = len(configuration.default_outbound_access.public_ip_addresses)
    ports = profile.ports_per_vm(profile.default_outbound_pool_size)
    most = addresses * (capacity(profile, ()) // ports)
    default = Method.DEFAULT_OUTBOUND_ACCESS
    machines = sum(
        any(method_of(profile, of, protocol) is default for protocol in PROTOCOLS)
        for of in methods.values()
    )
    if addresses and machines > most:
        message = (
            f"{machines} standalone VMs with {ports} SNAT ports each do not fit on {addresses} "
            f"public IP addresses; allowed: at most {most} VMs, or more addresses"
        )
        yield Mistake(("defaultOutboundAccess", "publicIPAddresses"), message)
