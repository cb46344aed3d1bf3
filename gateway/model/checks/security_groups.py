"""Network security groups: what is wrong with them beyond single fields.

Names and references, priorities, how a rule says its two sides, tags that exist, Azure's limits.
A rule that breaks several of these gets a line for each.

Sources: "Network security groups" (priorities, augmented rules, names), "Application security
groups", "Azure networking limits" (numbers).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from gateway.model.checks.references import known, named, unique
from gateway.model.configuration import (
    Configuration,
    NetworkSecurityGroup,
    SecurityRule,
    ServiceTag,
)
from gateway.model.problems import Location, did_you_mean
from gateway.model.reading.service_tag_file import is_tag
from gateway.model.reading.validate import Mistake, RemovedParts
from gateway.model.resolved.intervals import EVERY_PORT, of_ports, union
from gateway.model.resolved.security_rules import DEFAULT_RULES, either
from gateway.model.resolved.tags import BUILT_IN, by_folded

MOST_RULES = 1000
MOST_ADDRESSES = 4000
MOST_GROUPS_PER_SIDE = 10
MOST_GROUPS_PER_MACHINE = 20
MOST_HINTS = 20
WITHOUT_PORTS = ("Icmp", "Esp", "Ah")
DEFAULT_NAMES = by_folded(row[0] for row in DEFAULT_RULES)


@dataclass(frozen=True, slots=True)
class _Known:
    """What rules may name; ``tags`` is None where an error hides which there are."""

    groups: Collection[str]
    members: Collection[str]
    tags: dict[str, str] | None
    empty_tags: Collection[str]
    cuts: RemovedParts
    hints: dict[str, str] = field(default_factory=dict)
    """What unknown tags may have been meant for; among Azure's thousands it takes time to say."""


def check(
    configuration: Configuration,
    cuts: RemovedParts,
    tags: Collection[str],
    taken: Collection[ServiceTag] = (),
) -> Iterator[Mistake]:
    """Everything about security groups. ``tags``: those of the file that serviceTags names;
    ``taken``: of these, what rules use."""
    yield from unique(configuration.network_security_groups, ("networkSecurityGroups",))
    yield from unique(configuration.application_security_groups, ("applicationSecurityGroups",))
    yield from unique(configuration.service_tags.values, ("serviceTags", "values"))
    yield from _own_tags(configuration)
    yield from _references(configuration, cuts)

    members = {n for m in configuration.virtual_machines for n in m.application_security_groups}
    own = [tag.name for tag in configuration.service_tags.values]
    visible = not cuts.words & {"serviceTags", "values", "file"}
    available = _Known(
        groups=named(configuration.application_security_groups),
        members=members,
        tags=by_folded([*BUILT_IN, *own, *tags]) if visible else None,
        empty_tags={
            tag.name.casefold()
            for tag in (*configuration.service_tags.values, *taken)
            if not tag.address_prefixes
        },
        cuts=cuts,
    )
    for index, group in enumerate(configuration.network_security_groups):
        yield from _group(group, ("networkSecurityGroups", index), available)


def _own_tags(configuration: Configuration) -> Iterator[Mistake]:
    fixed = by_folded(BUILT_IN)
    for index, tag in enumerate(configuration.service_tags.values):
        place = ("serviceTags", "values", index, "name")
        if tag.name.casefold() in fixed:
            message = "Azure defines this tag by the virtual network; allowed: any other name"
            yield Mistake(place, message, tag.name)
        elif not is_tag(tag.name):
            yield Mistake(place, "a tag's name begins with a letter, as in Storage", tag.name)


def _references(configuration: Configuration, cuts: RemovedParts) -> Iterator[Mistake]:
    groups = named(configuration.network_security_groups)
    applications = named(configuration.application_security_groups)
    for index, subnet in enumerate(configuration.virtual_network.subnets):
        if subnet.network_security_group is not None:
            name, place = subnet.network_security_group, ("virtualNetwork", "subnets", index)
            where: Location = (*place, "networkSecurityGroup")
            yield from known(name, groups, "networkSecurityGroups", where, cuts)
    for index, machine in enumerate(configuration.virtual_machines):
        here = ("virtualMachines", index)
        if machine.network_security_group is not None:
            name, where = machine.network_security_group, (*here, "networkSecurityGroup")
            yield from known(name, groups, "networkSecurityGroups", where, cuts)
        yield from _listed(
            machine.application_security_groups,
            applications,
            (*here, "applicationSecurityGroups"),
            MOST_GROUPS_PER_MACHINE,
            cuts,
        )


def _listed(
    names: tuple[str, ...], groups: Collection[str], place: Location, most: int, cuts: RemovedParts
) -> Iterator[Mistake]:
    """References to application security groups."""
    if len(names) > most:
        message = f"{len(names)} application security groups; allowed: at most {most}"
        yield Mistake(place, message)
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        yield from known(name, groups, "applicationSecurityGroups", (*place, number), cuts)
        if first.setdefault(name, number) != number:
            yield Mistake((*place, number), "application security group named twice", name)


def _group(group: NetworkSecurityGroup, place: Location, available: _Known) -> Iterator[Mistake]:
    rules = (*place, "securityRules")
    yield from unique(group.security_rules, rules)
    if len(group.security_rules) > MOST_RULES:
        message = f"{len(group.security_rules)} rules; allowed: at most {MOST_RULES}"
        yield Mistake(rules, message)
    first: dict[tuple[str, int], int] = {}
    for index, rule in enumerate(group.security_rules):
        here = (*rules, index)
        if rule.name.casefold() in DEFAULT_NAMES:
            default = DEFAULT_NAMES[rule.name.casefold()]
            message = f"is the name of the default rule {default}; allowed: any other name"
            yield Mistake((*here, "name"), message, rule.name)
        before = first.setdefault((rule.direction, rule.priority), index)
        if before != index:
            other = group.security_rules[before].name
            message = (
                f"rules {other} and {rule.name} of {group.name} have the same priority; "
                f"allowed: each once among {rule.direction} rules"
            )
            yield Mistake((*here, "priority"), message, rule.priority)
        yield from _addresses(
            "source",
            rule.source_address_prefix,
            rule.source_address_prefixes,
            rule.source_application_security_groups,
            here,
            available,
        )
        yield from _addresses(
            "destination",
            rule.destination_address_prefix,
            rule.destination_address_prefixes,
            rule.destination_application_security_groups,
            here,
            available,
        )
        for side, single, several in (
            ("source", rule.source_port_range, rule.source_port_ranges),
            ("destination", rule.destination_port_range, rule.destination_port_ranges),
        ):
            yield from _ports(side, single, several, rule, here, available.cuts)


def _addresses(
    side: str,
    single: str | None,
    several: tuple[str, ...],
    groups: tuple[str, ...],
    place: Location,
    available: _Known,
) -> Iterator[Mistake]:
    one, more = f"{side}AddressPrefix", f"{side}AddressPrefixes"
    collective = f"{side}ApplicationSecurityGroups"
    given = [key for key, value in ((one, single), (more, several), (collective, groups)) if value]
    if len(given) > 1:
        yield Mistake(place, f"{' and '.join(given)} together; allowed: one of them")
    if not given and not available.cuts.within(place, (one, more, collective)):
        yield Mistake(place, f"says no {side}: needs {one}, {more} or {collective}")
    if len(several) > MOST_ADDRESSES:
        message = f"{len(several)} addresses; allowed: at most {MOST_ADDRESSES}"
        yield Mistake((*place, more), message)
    yield from _alone(several, (*place, more))

    tags = [(number, text) for number, text in enumerate(several) if is_tag(text)]
    for number, text in tags:
        yield from _tag(text, (*place, more, number), collective, available)
    if single is not None and is_tag(single):
        yield from _tag(single, (*place, one), collective, available)
    if len({text.casefold() for _, text in tags}) > 1:
        names = ", ".join(text for _, text in tags[:5]) + (", …" if len(tags) > 5 else "")
        yield Mistake((*place, more), f"several service tags ({names}); allowed: one on a side")
    elif tags or several == ("*",):
        number, text = tags[0] if tags else (0, "*")
        message = f"taken as meant, but Azure takes this as {one} only"
        yield Mistake((*place, more, number), message, text, warning=True)

    here = (*place, collective)
    yield from _listed(groups, available.groups, here, MOST_GROUPS_PER_SIDE, available.cuts)
    hidden = {"virtualMachines", "applicationSecurityGroups"} & available.cuts.words
    for number, name in enumerate(groups):
        if name in available.groups and name not in available.members and not hidden:
            message = "no VM is in this application security group: it matches nothing"
            yield Mistake((*here, number), message, name, warning=True)


def _alone(several: tuple[str, ...], place: Location) -> Iterator[Mistake]:
    if "*" in several and len(several) > 1:
        number = several.index("*")
        yield Mistake((*place, number), "* is everything; allowed: alone, or the others", "*")


def _tag(text: str, place: Location, collective: str, available: _Known) -> Iterator[Mistake]:
    if text.casefold() in available.empty_tags:
        message = "this service tag has no IPv4 prefixes: it matches nothing"
        yield Mistake(place, message, text, warning=True)
    if available.tags is None or text.casefold() in available.tags:
        return
    if text in available.groups:
        message = f"is an application security group; name it in {collective}"
    elif text.casefold() in ("any", "all"):
        message = "no such service tag; did you mean *?"
    else:
        if text not in available.hints and len(available.hints) < MOST_HINTS:
            available.hints[text] = did_you_mean(text, available.tags.values())
        message = "no such service tag" + (
            available.hints.get(text)
            or f"; allowed: {', '.join(BUILT_IN)} and those of the file in serviceTags"
        )
    yield Mistake(place, message, text)


def _ports(
    side: str,
    single: str | None,
    several: tuple[str, ...],
    rule: SecurityRule,
    place: Location,
    cuts: RemovedParts,
) -> Iterator[Mistake]:
    one, more = f"{side}PortRange", f"{side}PortRanges"
    if single is not None and several:
        yield Mistake(place, f"{one} and {more} together; allowed: one of them")
    ranges = either(single, several)
    if not ranges:
        if not cuts.within(place, (one, more)):
            yield Mistake(place, f"says no {side} ports: needs {one} or {more}")
        return
    yield from _alone(several, (*place, more))
    if rule.protocol in WITHOUT_PORTS and union(map(of_ports, ranges)) != EVERY_PORT:
        message = f"{rule.protocol} has no ports, so this rule matches nothing; meaningful: *"
        value = single if single is not None else list(several)
        key = one if single is not None else more
        yield Mistake((*place, key), message, value, warning=True)
