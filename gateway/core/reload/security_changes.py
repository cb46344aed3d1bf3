"""What a reload changed about network security groups, as sentences for an operator.

Compares two configurations; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.model.configuration import Configuration, NetworkSecurityGroup


def security_changes(before: Configuration, after: Configuration) -> Iterator[str]:
    """A sentence for each difference in groups, their rules, places, members and tags."""
    old = {group.name: group for group in before.network_security_groups}
    new = {group.name: group for group in after.network_security_groups}
    for name in old | new:
        if name not in new:
            yield f"network security group {name} removed"
        elif name not in old:
            rules = _counted(len(new[name].security_rules), "rule")
            yield f"network security group {name} added: {rules} besides the default ones"
        elif old[name] != new[name]:
            yield from _group(old[name], new[name])
    places = _places(before), _places(after)
    for place, stands in places[1].items():
        stood = places[0].get(place, stands)
        if stood != stands:
            yield f"{place}: {stood} -> {stands}"
    tags = {tag.name: tag for tag in before.service_tags.values}
    for tag in after.service_tags.values:
        if tags.get(tag.name, tag) != tag:
            yield f"service tag {tag.name}: other prefixes, now {len(tag.address_prefixes)}"


def _group(old: NetworkSecurityGroup, new: NetworkSecurityGroup) -> Iterator[str]:
    head = f"network security group {new.name}:"
    rules_before = {rule.name: rule for rule in old.security_rules}
    rules_after = {rule.name: rule for rule in new.security_rules}
    for name in rules_before | rules_after:
        if name not in rules_after:
            yield f"{head} rule {name} removed"
        elif name not in rules_before:
            yield f"{head} rule {name} added"
        elif rules_before[name] != rules_after[name]:
            yield f"{head} rule {name} changed"
    if old.flush_connection != new.flush_connection:
        yield f"{head} flushConnection {str(new.flush_connection).lower()}"


def _places(configuration: Configuration) -> dict[str, str]:
    """What stands at each place that can have a group, and each VM's membership."""
    places = {
        f"network security group of subnet {subnet.name}": subnet.network_security_group or "none"
        for subnet in configuration.virtual_network.subnets
    }
    for machine in configuration.virtual_machines:
        group = machine.network_security_group or "none"
        places[f"network security group of {machine.name}'s interface"] = group
        members = ", ".join(sorted(machine.application_security_groups)) or "none"
        places[f"application security groups of {machine.name}"] = members
    return places


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
