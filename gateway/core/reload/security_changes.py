"""What a reload changed about network security groups, as sentences for an operator.

Compares two configurations; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.model.configuration import Configuration, NetworkSecurityGroup

_SLICE = 128  # VMs compared between two chances to handle packets


def security_changes(before: Configuration, after: Configuration) -> Iterator[str | None]:
    """A sentence for each difference in groups, their rules, places, members and tags; None where
    a caller may pause."""
    old = {group.name: group for group in before.network_security_groups}
    new = {group.name: group for group in after.network_security_groups}
    for name in old | new:
        yield None
        if name not in new:
            yield f"network security group {name} removed"
        elif name not in old:
            rules = _counted(len(new[name].security_rules), "rule")
            yield f"network security group {name} added: {rules} besides the default ones"
        elif old[name] != new[name]:
            yield from _group(old[name], new[name])
    yield from _places(before, after)
    tags = {tag.name: tag for tag in before.service_tags.values}
    for tag in after.service_tags.values:
        yield None
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


def _places(before: Configuration, after: Configuration) -> Iterator[str | None]:
    """What stands elsewhere at a place that can have a group, and each VM's membership."""
    subnets = {subnet.name: subnet for subnet in before.virtual_network.subnets}
    for subnet in after.virtual_network.subnets:
        stood = subnets.get(subnet.name, subnet).network_security_group
        if stood != subnet.network_security_group:
            place = f"network security group of subnet {subnet.name}"
            yield f"{place}: {stood or 'none'} -> {subnet.network_security_group or 'none'}"
    machines = {machine.name: machine for machine in before.virtual_machines}
    for number, machine in enumerate(after.virtual_machines):
        was = machines.get(machine.name, machine)
        if was.network_security_group != machine.network_security_group:
            place = f"network security group of {machine.name}'s interface"
            group = machine.network_security_group or "none"
            yield f"{place}: {was.network_security_group or 'none'} -> {group}"
        memberships = [set(m.application_security_groups) for m in (was, machine)]
        if memberships[0] != memberships[1]:
            joined = [", ".join(sorted(groups)) or "none" for groups in memberships]
            yield f"application security groups of {machine.name}: {joined[0]} -> {joined[1]}"
        if not number % _SLICE:
            yield None


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
