"""How many SNAT ports each VM has on which frontend: pure arithmetic on a file and its profile.

A ``PortGrant`` is what one rule, or the load balancing rules of one frontend, give to VMs on one
frontend for one protocol. Where a VM has ports on several frontends, the grants stand in the order
in which these are used up (``FrontendChoice.FILL_FIRST``).

By the table of pool sizes each frontend gives its row, up to the profile's total. What an outbound
rule allocates explicitly is for all its frontends together: a VM has it on the first that has room
left, and the rest on the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.model.configuration import Configuration, LoadBalancer, OutboundRule
from gateway.model.profile import Method, Profile
from gateway.model.resolved.outbound_methods import PROTOCOLS, programmed, rule_protocols

Uses = Callable[[str, str, Method], bool]
"""Whether a VM goes out by a method for a protocol."""
Place = tuple[int, str]
"""A load balancer's index and the name of one of its frontends."""


@dataclass(frozen=True, slots=True)
class PortGrant:
    """SNAT ports on one frontend for one protocol (``Tcp``, ``Udp``)."""

    balancer: int
    frontend: str
    protocol: str
    method: Method
    rule: int | None
    """The index of the outbound rule; None: load balancing rules give it."""
    size: int
    """Members of the pool, also those that need no ports."""
    ports: dict[str, int] = field(hash=False)
    """By VM, in pool order."""
    idle_timeout: float
    tcp_reset: bool


class Granted(NamedTuple):
    """All grants: outbound rules', then those of load balancing rules, in the file's order."""

    grants: list[PortGrant]
    lacking: dict[tuple[int, int, str], int]
    """Load balancer, outbound rule, protocol → ports that its frontends have too few."""


def granted(configuration: Configuration, profile: Profile, uses: Uses) -> Granted:
    """Who gets what. Names that the file does not have are left out: cross-checks report these."""
    lacking: dict[tuple[int, int, str], int] = {}
    found = [
        *_of_outbound_rules(configuration, profile, uses, lacking),
        *_by_links(configuration, profile, uses),
    ]
    return Granted(found, lacking)


def capacity(profile: Profile, frontend_ports: Iterable[int]) -> int:
    """SNAT ports of one public IP, per protocol, once the units of rules' ports are out (A3)."""
    first, last, unit = profile.first_snat_port, profile.last_snat_port, profile.port_unit
    units = {profile.unit_of(port) for port in frontend_ports}
    return profile.snat_port_count - sum(
        max(0, min(start + unit - 1, last) - max(start, first) + 1) for start in units
    )


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


def linked_members(
    configuration: Configuration, profile: Profile
) -> dict[tuple[int, str, str], Collection[str]]:
    """(load balancer's index, frontend, protocol) → VMs that load balancing rules link to it.

    In pool order, each once; frontends in their load balancer's order. Inbound NAT rules link
    nothing.
    """
    members: dict[tuple[int, str, str], dict[str, None]] = {}
    for index, balancer in enumerate(configuration.load_balancers):
        pools = _pools(balancer)
        places = [frontend.name for frontend in balancer.frontend_ip_configurations]
        for frontend in places:
            for rule in balancer.load_balancing_rules:
                if rule.frontend_ip_configuration != frontend or rule.disable_outbound_snat:
                    continue
                for protocol in programmed(profile, rule.protocol):
                    behind = members.setdefault((index, frontend, protocol), {})
                    behind |= dict.fromkeys(pools.get(rule.backend_address_pool, ()))
    return dict(members)


def frontends_behind(
    configuration: Configuration, profile: Profile
) -> dict[str, list[tuple[str, str, int]]]:
    """VM → load balancer, frontend and size of the pool, of all rules that could give it ports."""
    behind: dict[tuple[int, str], dict[str, int]] = {}
    for (index, frontend, _), members in linked_members(configuration, profile).items():
        behind.setdefault((index, frontend), {}).update(dict.fromkeys(members, len(members)))
    for index, balancer in enumerate(configuration.load_balancers):
        pools = _pools(balancer)
        for rule in balancer.outbound_rules:
            names = pools.get(rule.backend_address_pool, ())
            for frontend in rule.frontend_ip_configurations:
                sizes = behind.setdefault((index, frontend), {})
                sizes.update(dict.fromkeys(names, len(names)))
    found: dict[str, list[tuple[str, str, int]]] = {}
    for (index, frontend), sizes in behind.items():
        name = configuration.load_balancers[index].name
        for vm, size in sizes.items():
            found.setdefault(vm, []).append((name, frontend, size))
    return found


def _by_links(configuration: Configuration, profile: Profile, uses: Uses) -> Iterator[PortGrant]:
    shares = _Shares(profile)
    for (index, frontend, protocol), members in linked_members(configuration, profile).items():
        method = Method.LOAD_BALANCER
        ports = {
            name: shares.of(name, protocol, len(members))
            for name in members
            if uses(name, protocol, method)
        }
        timeout = profile.idle_timeout
        yield PortGrant(
            index, frontend, protocol, method, None, len(members), _some(ports), timeout, False
        )


def _of_outbound_rules(
    configuration: Configuration,
    profile: Profile,
    uses: Uses,
    lacking: dict[tuple[int, int, str], int],
) -> Iterator[PortGrant]:
    for index, balancer in enumerate(configuration.load_balancers):
        pools = _pools(balancer)
        left = {
            (frontend.name, protocol): capacity(
                profile, frontend_ports(configuration, index, frontend.name)
            )
            for frontend in balancer.frontend_ip_configurations
            for protocol in PROTOCOLS
        }
        for number, rule in enumerate(balancer.outbound_rules):
            members = pools.get(rule.backend_address_pool, ())
            for protocol in rule_protocols(rule.protocol):
                users = [n for n in members if uses(n, protocol, Method.OUTBOUND_RULE)]
                dealt, missing = _dealt(profile, rule, protocol, users, len(members), left)
                if missing:
                    lacking[index, number, protocol] = missing
                for frontend, ports in dealt.items():
                    yield PortGrant(
                        index,
                        frontend,
                        protocol,
                        Method.OUTBOUND_RULE,
                        number,
                        len(members),
                        ports,
                        rule.idle_timeout if protocol == "Tcp" else profile.idle_timeout,
                        profile.tcp_reset_on_idle and rule.enable_tcp_reset,
                    )


def _dealt(
    profile: Profile,
    rule: OutboundRule,
    protocol: str,
    users: Iterable[str],
    size: int,
    left: dict[tuple[str, str], int],
) -> tuple[dict[str, dict[str, int]], int]:
    """Frontend → VM → ports, taken from what is ``left`` of each frontend; and how many lack."""
    frontends = [f for f in dict.fromkeys(rule.frontend_ip_configurations) if (f, protocol) in left]
    dealt: dict[str, dict[str, int]] = {frontend: {} for frontend in frontends}
    shares = _Shares(profile)
    known = len(frontends) == len(set(rule.frontend_ip_configurations))
    lacking = 0
    for name in users:
        explicit = rule.allocated_outbound_ports
        for frontend in frontends:
            wanted = explicit or shares.of(name, protocol, size)
            given = min(wanted, left[frontend, protocol])
            left[frontend, protocol] -= given
            if given:
                dealt[frontend][name] = given
            if not rule.allocated_outbound_ports:
                lacking += wanted - given
                continue
            explicit -= given
            if not explicit:
                break
        lacking += explicit
    return dealt, lacking if known else 0


class _Shares:
    """What the table of pool sizes gives a VM on one frontend after the other."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._given: dict[tuple[str, str], int] = {}

    def of(self, name: str, protocol: str, pool_size: int) -> int:
        ports = self._profile.ports_per_vm(pool_size)
        most = self._profile.ports_of_several_frontends
        given = self._given.get((name, protocol), 0)
        if most is not None:
            ports = max(0, min(ports, most - given))
        self._given[name, protocol] = given + ports
        return ports


def _pools(balancer: LoadBalancer) -> dict[str, tuple[str, ...]]:
    return {pool.name: pool.virtual_machines for pool in balancer.backend_address_pools}


def _some(ports: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in ports.items() if count}
