"""Network security groups resolved: every rule as intervals, the six default rules in their place.

What the core compiles and listings show. A service tag or an application security group becomes
the addresses that it stands for; what was written stays beside it, in Azure's spelling. Knows no
packets and decides nothing: in which order groups are asked, and what an absent one means, is the
core's business.

Sources: "Network security groups" (default rules, tags, priorities), the REST API's
DefaultSecurityRuleList example (exact names).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.model.configuration import Configuration, NetworkSecurityGroup, SecurityRule
from gateway.model.resolved.intervals import (
    EVERY_ADDRESS,
    EVERY_PORT,
    Interval,
    Intervals,
    of_ports,
    of_prefix,
    prefixes,
    union,
)
from gateway.model.resolved.tags import (
    AZURE_LOAD_BALANCER,
    INTERNET,
    VIRTUAL_NETWORK,
    built_in,
    by_folded,
)


@dataclass(frozen=True, slots=True)
class Expanded:
    """The prefixes that a rule's tag or application security groups stand for.

    None for a side that has neither; empty for groups without members.
    """

    source: tuple[str, ...] | None
    destination: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class ResolvedRule:
    """A rule as sets. Ports of a protocol without ports match only if they are EVERY_PORT."""

    name: str
    priority: int
    direction: str
    """Inbound or Outbound."""
    access: str
    """Allow or Deny."""
    protocol: str
    """Tcp, Udp, Icmp, Esp, Ah or ``*``."""
    sources: tuple[Interval, ...]
    """IPv4 addresses as numbers; disjoint, ascending. Empty: nothing matches."""
    source_ports: tuple[Interval, ...]
    destinations: tuple[Interval, ...]
    destination_ports: tuple[Interval, ...]
    default: bool
    """Whether it is one of the six that every group has."""
    source_text: tuple[str, ...]
    """As written: ``*``, ``Internet``, ``10.0.0.0/8``, an application security group's name."""
    destination_text: tuple[str, ...]
    source_port_text: tuple[str, ...]
    destination_port_text: tuple[str, ...]
    expanded: Expanded | None
    """None where neither side has a tag or an application security group."""


@dataclass(frozen=True, slots=True)
class ResolvedGroup:
    """A network security group with all its rules."""

    name: str
    rules: tuple[ResolvedRule, ...]
    """Inbound, then outbound, each by priority; the default rules are last of each."""
    flush_connection: bool


DEFAULT_RULES = (
    ("AllowVnetInBound", 65000, "Inbound", VIRTUAL_NETWORK, VIRTUAL_NETWORK, "Allow"),
    ("AllowAzureLoadBalancerInBound", 65001, "Inbound", AZURE_LOAD_BALANCER, "*", "Allow"),
    ("DenyAllInBound", 65500, "Inbound", "*", "*", "Deny"),
    ("AllowVnetOutBound", 65000, "Outbound", VIRTUAL_NETWORK, VIRTUAL_NETWORK, "Allow"),
    ("AllowInternetOutBound", 65001, "Outbound", "*", INTERNET, "Allow"),
    ("DenyAllOutBound", 65500, "Outbound", "*", "*", "Deny"),
)
"""Name, priority, direction, source, destination, access; any protocol, any ports."""


def resolve_groups(configuration: Configuration) -> dict[str, ResolvedGroup]:
    """Every network security group of a loaded configuration, by its name.

    Raises ValueError for a tag that the configuration has no prefixes of: one that was not loaded
    (``gateway.model.load`` reports such tags and puts those of the tags' file into it).
    """
    resolver = _Resolver(configuration)
    return {group.name: resolver.group(group) for group in configuration.network_security_groups}


@dataclass(frozen=True, slots=True)
class _Side:
    text: tuple[str, ...]
    addresses: Intervals
    expanded: tuple[str, ...] | None


class _Resolver:
    """Works each side out once, however many rules have it."""

    def __init__(self, configuration: Configuration) -> None:
        self._tags = {
            tag.name: union(map(of_prefix, tag.address_prefixes))
            for tag in configuration.service_tags.values
        }
        self._tags |= built_in(configuration)
        self._spelling = by_folded(self._tags)
        members: dict[str, list[Interval]] = {}
        for machine in configuration.virtual_machines:
            address = int(machine.private_ip_address)
            for name in machine.application_security_groups:
                members.setdefault(name, []).append((address, address))
        self._members = {name: union(addresses) for name, addresses in members.items()}
        self._sides: dict[tuple[tuple[str, ...], tuple[str, ...]], _Side] = {}
        self._ports: dict[tuple[str, ...], Intervals] = {}
        self._defaults = [self._default(*row) for row in DEFAULT_RULES]

    def group(self, group: NetworkSecurityGroup) -> ResolvedGroup:
        rules = [*map(self._rule, group.security_rules), *self._defaults]
        rules.sort(key=lambda rule: (rule.direction, rule.priority))
        return ResolvedGroup(group.name, tuple(rules), group.flush_connection)

    def _rule(self, rule: SecurityRule) -> ResolvedRule:
        source = self._side(
            either(rule.source_address_prefix, rule.source_address_prefixes),
            rule.source_application_security_groups,
        )
        destination = self._side(
            either(rule.destination_address_prefix, rule.destination_address_prefixes),
            rule.destination_application_security_groups,
        )
        source_ports = either(rule.source_port_range, rule.source_port_ranges)
        destination_ports = either(rule.destination_port_range, rule.destination_port_ranges)
        return ResolvedRule(
            name=rule.name,
            priority=rule.priority,
            direction=rule.direction,
            access=rule.access,
            protocol=rule.protocol,
            sources=source.addresses,
            source_ports=self._port_set(source_ports),
            destinations=destination.addresses,
            destination_ports=self._port_set(destination_ports),
            default=False,
            source_text=source.text,
            destination_text=destination.text,
            source_port_text=source_ports,
            destination_port_text=destination_ports,
            expanded=_expanded(source, destination),
        )

    def _default(
        self, name: str, priority: int, direction: str, source: str, destination: str, access: str
    ) -> ResolvedRule:
        source_side, destination_side = self._side((source,), ()), self._side((destination,), ())
        return ResolvedRule(
            name=name,
            priority=priority,
            direction=direction,
            access=access,
            protocol="*",
            sources=source_side.addresses,
            source_ports=EVERY_PORT,
            destinations=destination_side.addresses,
            destination_ports=EVERY_PORT,
            default=True,
            source_text=source_side.text,
            destination_text=destination_side.text,
            source_port_text=("*",),
            destination_port_text=("*",),
            expanded=_expanded(source_side, destination_side),
        )

    def _port_set(self, ranges: tuple[str, ...]) -> Intervals:
        if ranges not in self._ports:
            self._ports[ranges] = union(map(of_ports, ranges))
        return self._ports[ranges]

    def _side(self, written: tuple[str, ...], groups: tuple[str, ...]) -> _Side:
        key = written, groups
        if key not in self._sides:
            self._sides[key] = self._work_out(written, groups)
        return self._sides[key]

    def _work_out(self, written: Iterable[str], groups: tuple[str, ...]) -> _Side:
        text: list[str] = []
        addresses: list[Interval] = []
        named: list[Interval] = []
        for item in written:
            if item == "*":
                addresses += EVERY_ADDRESS
            elif item[0].isdigit():
                addresses.append(of_prefix(item))
            else:
                if item.casefold() not in self._spelling:
                    raise ValueError(f"service tag {item} has no prefixes in this configuration")
                item = self._spelling[item.casefold()]
                named += self._tags[item]
            text.append(item)
        has_names = bool(groups) or any(item in self._tags for item in text)
        for name in groups:
            named += self._members.get(name, ())
        text += groups
        return _Side(
            tuple(text),
            union([*addresses, *named]),
            prefixes(union(named)) if has_names else None,
        )


def either(single: str | None, several: tuple[str, ...]) -> tuple[str, ...]:
    """What a rule has under the single or the plural form of a property."""
    return several if single is None else (single, *several)


def _expanded(source: _Side, destination: _Side) -> Expanded | None:
    if source.expanded is None and destination.expanded is None:
        return None
    return Expanded(source.expanded, destination.expanded)
