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
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.model.configuration import Configuration
from gateway.model.resolved.intervals import EVERY_PORT, Interval
from gateway.model.resolved.security_rules import ResolvedGroup, ResolvedRule, resolve_groups
from gateway.schema.protocols import AH, ESP, ICMP, PROTOCOL_NAMES, TCP, UDP

_PROTOCOLS = (TCP, UDP, ICMP, ESP, AH)
"""What a rule can be about."""


class _Field:
    """One field's intervals: which rules match a value, as bits."""

    __slots__ = ("_masks", "_starts")

    def __init__(self, matches: Sequence[Iterable[Interval]]) -> None:
        """``matches[i]``: the disjoint intervals in which rule i matches."""
        toggles: dict[int, int] = {0: 0}
        for bit, intervals in enumerate(matches):
            for low, high in intervals:
                toggles[low] = toggles.get(low, 0) ^ 1 << bit
                toggles[high + 1] = toggles.get(high + 1, 0) ^ 1 << bit
        self._starts = sorted(toggles)
        self._masks = []
        mask = 0
        for start in self._starts:
            mask ^= toggles[start]
            self._masks.append(mask)

    def rules(self, value: int) -> int:
        return self._masks[bisect_right(self._starts, value) - 1]


def _bits(flags: Iterable[bool]) -> int:
    mask = 0
    for bit, flag in enumerate(flags):
        if flag:
            mask |= 1 << bit
    return mask


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

    def __init__(self, rules: Iterable[ResolvedRule]) -> None:
        self.rules = tuple(sorted(rules, key=lambda rule: rule.priority))
        self.hits = [0] * len(self.rules)
        self._any = _bits(rule.protocol == "*" for rule in self.rules)
        self._protocols = {
            number: self._any
            | _bits(rule.protocol == PROTOCOL_NAMES[number] for rule in self.rules)
            for number in _PROTOCOLS
        }
        self._portless = _bits(
            rule.source_ports == rule.destination_ports == EVERY_PORT for rule in self.rules
        )
        self._sources = _Field([rule.sources for rule in self.rules])
        self._destinations = _Field([rule.destinations for rule in self.rules])
        self._source_ports = _Field([rule.source_ports for rule in self.rules])
        self._destination_ports = _Field([rule.destination_ports for rule in self.rules])

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

    def take_over_hits(self, before: RuleSet) -> None:
        """Continue counting where the same rule of an earlier set stopped."""
        counted = dict(zip(before.rules, before.hits, strict=True))
        self.hits = [counted.get(rule, 0) for rule in self.rules]


class Group:
    """A network security group, ready to be evaluated."""

    __slots__ = ("flush_connection", "inbound", "name", "outbound")

    def __init__(self, group: ResolvedGroup) -> None:
        self.name = group.name
        self.flush_connection = group.flush_connection
        self.inbound = RuleSet(rule for rule in group.rules if rule.direction == "Inbound")
        self.outbound = RuleSet(rule for rule in group.rules if rule.direction == "Outbound")


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

    def __init__(self, configuration: Configuration) -> None:
        self.groups = {name: Group(group) for name, group in resolve_groups(configuration).items()}
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

    def take_over_hits(self, before: Policy) -> None:
        """Keep the hit counts of rules that a reload did not change."""
        for name, group in self.groups.items():
            old = before.groups.get(name)
            if old is not None:
                group.inbound.take_over_hits(old.inbound)
                group.outbound.take_over_hits(old.outbound)


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
