"""How many SNAT ports a public IP has for outbound flows, and whether its VMs' allotments fit.

Pure arithmetic on the profile, so that a file that cannot fit is refused before anything runs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from gateway.model.configuration import Configuration
from gateway.model.profile import PROFILES, Profile
from gateway.model.validation import Cuts, Mistake


def capacity(profile: Profile, frontend_ports: Iterable[int]) -> int:
    """SNAT ports of one public IP, per protocol, once the units of rules' ports are out (A3)."""
    first, last, unit = profile.first_snat_port, profile.last_snat_port, profile.port_unit
    units = {profile.unit_of(port) for port in frontend_ports}
    return profile.snat_port_count - sum(
        max(0, min(start + unit - 1, last) - max(start, first) + 1) for start in units
    )


def linked_members(configuration: Configuration) -> dict[tuple[int, str], Collection[str]]:
    """(load balancer's index, frontend) → VMs that its load balancing rules link to it.

    In pool order, each once. Inbound NAT rules link nothing. Names that the file does not
    have are left out: cross-checks report these.
    """
    members: dict[tuple[int, str], dict[str, None]] = {}
    for index, balancer in enumerate(configuration.load_balancers):
        pools = {pool.name: pool.virtual_machines for pool in balancer.backend_address_pools}
        for rule in balancer.load_balancing_rules:
            behind = members.setdefault((index, rule.frontend_ip_configuration), {})
            behind |= dict.fromkeys(pools.get(rule.backend_address_pool, ()))
    return dict(members)


def frontend_ports(configuration: Configuration, balancer: int, frontend: str) -> set[int]:
    """The ports that rules of a load balancer listen on at one of its frontends."""
    resource = configuration.load_balancers[balancer]
    ports = {
        rule.frontend_port
        for rule in resource.load_balancing_rules
        if rule.frontend_ip_configuration == frontend
    }
    for rule in resource.inbound_nat_rules:
        if rule.frontend_ip_configuration == frontend:
            ports |= set(rule.frontend_ports)
    return ports


def standalone_machines(configuration: Configuration) -> list[str]:
    """The VMs that have neither an instance-level public IP nor a linked frontend."""
    balanced = {name for names in linked_members(configuration).values() for name in names}
    return [
        machine.name
        for machine in configuration.virtual_machines
        if machine.public_ip_address is None and machine.name not in balanced
    ]


def check(configuration: Configuration, cuts: Cuts) -> Iterator[Mistake]:
    """Allotments that cannot fit, on load balancers' frontends and for standalone VMs."""
    profile = PROFILES.get(configuration.gateway.profile)
    if profile is None:
        return
    yield from _frontends(configuration, profile)
    # What is cut from these can make a VM look standalone that is not.
    if not cuts.words & {
        "virtualMachines",
        "publicIPAddress",
        "loadBalancers",
        "backendAddressPools",
        "loadBalancingRules",
        "defaultOutboundAccess",
        "publicIPAddresses",
    }:
        yield from _standalone(configuration, profile)


def _frontends(configuration: Configuration, profile: Profile) -> Iterator[Mistake]:
    direct = {m.name for m in configuration.virtual_machines if m.public_ip_address is not None}
    for (index, name), members in linked_members(configuration).items():
        frontends = configuration.load_balancers[index].frontend_ip_configurations
        number = next((n for n, f in enumerate(frontends) if f.name == name), None)
        if number is None:
            continue
        # Members with an instance-level public IP count for the pool's size, but need no ports.
        users = sum(member not in direct for member in members)
        ports = profile.ports_per_vm(len(members))
        available = capacity(profile, frontend_ports(configuration, index, name))
        if users * ports > available:
            place = ("loadBalancers", index, "frontendIPConfigurations", number)
            message = (
                f"{users} VMs with {ports} SNAT ports each need {users * ports}, but this frontend "
                f"has {available} (in units of {profile.port_unit}, without rules' frontend ports)"
                f"; allowed: at most {available // ports} VMs"
            )
            yield Mistake((*place, "name"), message, name)


def _standalone(configuration: Configuration, profile: Profile) -> Iterator[Mistake]:
    addresses = len(configuration.default_outbound_access.public_ip_addresses)
    ports = profile.ports_per_vm(profile.default_outbound_pool_size)
    most = addresses * (capacity(profile, ()) // ports)
    machines = len(standalone_machines(configuration))
    if addresses and machines > most:
        message = (
            f"{machines} standalone VMs with {ports} SNAT ports each do not fit on {addresses} "
            f"public IP addresses; allowed: at most {most} VMs, or more addresses"
        )
        yield Mistake(("defaultOutboundAccess", "publicIPAddresses"), message)
