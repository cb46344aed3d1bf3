"""Network security groups, compiled: a flow's first packet is evaluated at a nearly constant cost.

A group's rules of one direction become, for each of five fields (protocol, source and destination
address and port), a sorted list of interval starts with, for each interval, the set of rules whose
field matches there, as the bits of an integer; bit 0 is the rule of the lowest priority number. A
packet is five look-ups, four ANDs, and the lowest bit that is left: the first rule that matches
(docs/fidelity.md, N1). Rules × prefixes cost memory when compiled, not time when evaluated.

Groups stand at two levels, and both must allow: inbound the subnet's first, then the interface's;
outbound the other way round. No group at a level allows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterable, Sequence
from typing import Any, NamedTuple

from gateway.model.configuration import Configuration
from gateway.model.resolved.intervals import EVERY_PORT, Interval
from gateway.model.resolved.security_rules import ResolvedGroup, ResolvedRule, resolve_groups
from gateway.schema.protocols import AH, ESP, ICMP, PROTOCOL_NAMES, TCP, UDP

_PROTOCOLS = (TCP, UDP, ICMP, ESP, AH)
"""What a rule can be about."""


class _Field:
    """One field's intervals: which rules match a value, as bits."""

    __slots__ = ("_masks", "_starts")

    def __init__(self, starts: list[int], masks: list[int]) -> None:
        self._starts = starts
        self._masks = masks

    @classmethod
    def of(cls, matches: Sequence[Iterable[Interval]]) -> _Field:
        """``matches[i]``: the disjoint intervals in which rule i matches."""
        toggles: dict[int, int] = {0: 0}
        for bit, intervals in enumerate(matches):
            for low, high in intervals:
                toggles[low] = toggles.get(low, 0) ^ 1 << bit
                toggles[high + 1] = toggles.get(high + 1, 0) ^ 1 << bit
        starts, masks = sorted(toggles), []
        mask = 0
        for start in starts:
            mask ^= toggles[start]
            masks.append(mask)
        return cls(starts, masks)

    def parts(self) -> tuple[list[int], list[int]]:
        """What another one is made of."""
        return self._starts, self._masks

    def rules(self, value: int) -> int:
        return self._masks[bisect_right(self._starts, value) - 1]


def _bits(flags: Iterable[bool]) -> int:
    mask = 0
    for bit, flag in enumerate(flags):
        if flag:
            mask |= 1 << bit
    return mask


_Parts = list[tuple[Any, ...]]


class RuleSet:
    """The rules of one group in one direction, in order of priority."""

    __slots__ = (
        "_any",
        "_destination_ports",
        "_destinations",
        "_portless",
        "_protocols",
        "_source_ports",
        "_sources",
        "hits",
        "rules",
    )

    def __init__(self, rules: Iterable[ResolvedRule], parts: _Parts | None = None) -> None:
        """``parts``: an earlier set's of these rules, which were in order."""
        self.rules = tuple(sorted(rules, key=lambda rule: rule.priority))
        self.hits = [0] * len(self.rules)
        self._any: int
        self._portless: int
        self._protocols: dict[int, int]
        if parts is not None:
            (self._any, self._protocols, self._portless), *fields = parts
            sources, destinations, source_ports, destination_ports = fields
            self._sources = _Field(*sources)
            self._destinations = _Field(*destinations)
            self._source_ports = _Field(*source_ports)
            self._destination_ports = _Field(*destination_ports)
            return
        self._any = _bits(rule.protocol == "*" for rule in self.rules)
        self._protocols = {
            number: self._any
            | _bits(rule.protocol == PROTOCOL_NAMES[number] for rule in self.rules)
            for number in _PROTOCOLS
        }
        self._portless = _bits(
            rule.source_ports == rule.destination_ports == EVERY_PORT for rule in self.rules
        )
        self._sources = _Field.of([rule.sources for rule in self.rules])
        self._destinations = _Field.of([rule.destinations for rule in self.rules])
        self._source_ports = _Field.of([rule.source_ports for rule in self.rules])
        self._destination_ports = _Field.of([rule.destination_ports for rule in self.rules])

    def parts(self) -> _Parts:
        """What has been worked out, as plain data: another process may have done it."""
        return [
            (self._any, self._protocols, self._portless),
            self._sources.parts(),
            self._destinations.parts(),
            self._source_ports.parts(),
            self._destination_ports.parts(),
        ]

    def first_match(
        self, protocol: int, source: int, source_port: int, destination: int, destination_port: int
    ) -> int:  # the fields of a FiveTuple
        """The index of the first rule that matches; the default rules make sure of one."""
        matching = (
            self._protocols.get(protocol, self._any)
            & self._sources.rules(source)
            & self._destinations.rules(destination)
        )
        if protocol in (TCP, UDP):
            matching &= self._source_ports.rules(source_port)
            matching &= self._destination_ports.rules(destination_port)
        else:
            matching &= self._portless
        return (matching & -matching).bit_length() - 1

    def places_in(self, before: RuleSet) -> list[int]:
        """Where each rule stands in an earlier set; -1: there is none like it."""
        places = {rule: number for number, rule in enumerate(before.rules)}
        return [places.get(rule, -1) for rule in self.rules]

    def take_over_hits(self, before: RuleSet, places: Sequence[int]) -> None:
        """Go on counting where the same rule of an earlier set stopped."""
        self.hits = [before.hits[place] if place >= 0 else 0 for place in places]


class Group:
    """A network security group, ready to be evaluated."""

    __slots__ = ("flush_connection", "inbound", "name", "outbound")

    def __init__(
        self, name: str, flush_connection: bool, inbound: RuleSet, outbound: RuleSet
    ) -> None:
        self.name = name
        self.flush_connection = flush_connection
        self.inbound = inbound
        self.outbound = outbound

    @classmethod
    def of(cls, group: ResolvedGroup) -> Group:
        """Compile one."""
        inbound, outbound = (
            RuleSet(rule for rule in group.rules if rule.direction == direction)
            for direction in ("Inbound", "Outbound")
        )
        return cls(group.name, group.flush_connection, inbound, outbound)


class FiveTuple(NamedTuple):
    """A packet as a rule sees it: numbers; ports are 0 where the protocol has none."""

    protocol: int
    source: int
    source_port: int
    destination: int
    destination_port: int


class RuleMatch(NamedTuple):
    """What one level said: the rule that decided."""

    level: str  # "Subnet" or "NetworkInterface"
    group: str
    rule: ResolvedRule


class Decision(NamedTuple):
    """What all levels said, in the order asked; the last one is the one that decided."""

    allowed: bool
    rule_matches: tuple[RuleMatch, ...]


NOTHING_ASKED = Decision(True, ())

SUBNET, INTERFACE = "Subnet", "NetworkInterface"


class Policy:
    """Which groups stand where: by subnet, and by the private address of a VM's interface."""

    def __init__(
        self, configuration: Configuration, groups: dict[str, Group] | None = None
    ) -> None:
        """``groups``: its groups by name, compiled already."""
        self.groups = compiled(configuration) if groups is None else groups
        self._subnets = tuple(
            (
                int(subnet.address_prefix.network_address),
                int(subnet.address_prefix.netmask),
                self.groups[subnet.network_security_group],
            )
            for subnet in configuration.virtual_network.subnets
            if subnet.network_security_group is not None
        )
        self._interfaces = {
            int(machine.private_ip_address): self.groups[machine.network_security_group]
            for machine in configuration.virtual_machines
            if machine.network_security_group is not None
        }

    def levels(self, address: int) -> list[tuple[str, Group]]:
        """The groups in front of a private address, from the network inward."""
        found = [
            (SUBNET, group) for network, mask, group in self._subnets if address & mask == network
        ]
        own = self._interfaces.get(address)
        return found if own is None else [*found, (INTERFACE, own)]

    def outbound(self, packet: FiveTuple, *, count: bool = True) -> Decision:
        """May a flow leave its VM? The interface's group is asked before the subnet's."""
        if not self.groups:
            return NOTHING_ASKED
        levels = reversed(self.levels(packet.source))
        return _ask([(level, group, group.outbound) for level, group in levels], packet, count)

    def inbound(self, packet: FiveTuple, *, count: bool = True) -> Decision:
        """May a flow reach its VM? The subnet's group is asked before the interface's."""
        if not self.groups:
            return NOTHING_ASKED
        levels = self.levels(packet.destination)
        return _ask([(level, group, group.inbound) for level, group in levels], packet, count)

    def hits_of(self, before: Policy) -> Generator[None, None, HitsToTakeOver]:
        """What ``take_over_hits`` takes, for the rules that a reload did not change; None after
        each group."""
        found: HitsToTakeOver = []
        for name, group in self.groups.items():
            old = before.groups.get(name)
            for new, was in () if old is None else _directions(group, old):
                found.append((new, was, new.places_in(was)))
                yield
        return found


HitsToTakeOver = list[tuple[RuleSet, RuleSet, list[int]]]


def take_over_hits(found: HitsToTakeOver) -> None:
    """Keep the hit counts of rules that a reload did not change."""
    for new, before, places in found:
        new.take_over_hits(before, places)


def compiled(configuration: Configuration) -> dict[str, Group]:
    """Every group of a configuration, ready to be evaluated, by its name."""
    return {name: Group.of(group) for name, group in resolve_groups(configuration).items()}


def _directions(group: Group, old: Group) -> tuple[tuple[RuleSet, RuleSet], ...]:
    return (group.inbound, old.inbound), (group.outbound, old.outbound)


def _ask(levels: list[tuple[str, Group, RuleSet]], packet: FiveTuple, count: bool) -> Decision:
    """Ask level after level; the first Deny ends it."""
    if not levels:
        return NOTHING_ASKED
    rule_matches = []
    for level, group, rules in levels:
        index = rules.first_match(*packet)
        if count:
            rules.hits[index] += 1
        rule = rules.rules[index]
        rule_matches.append(RuleMatch(level, group.name, rule))
        if rule.access != "Allow":
            return Decision(False, tuple(rule_matches))
    return Decision(True, tuple(rule_matches))
