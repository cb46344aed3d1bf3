"""Listings and change reports: what an operator reads about ports and about a reload.

Nothing here decides anything. Long listings are generators that yield None now and then, so that
their reader can handle packets in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import NamedTuple

from gateway.core.flow import ICMP
from gateway.core.nsg import INTERFACE, SUBNET, Policy
from gateway.core.outbound import PROTOCOL_NAMES, Outbound
from gateway.core.plan import MachinePlan, plan
from gateway.core.ports import SLICE, PortPool, PortRecord, bounds, destination_endpoint
from gateway.core.security_changes import security_changes
from gateway.model.configuration import Configuration
from gateway.model.profile import Method, Profile


class LivePool(NamedTuple):
    """A port pool with whose it is. ``retired``: its flows end on it, and it gets no new ones."""

    vm: str
    address: bytes
    protocol: int
    method: Method
    retired: bool
    pool: PortPool


def live_pools(outbound: Outbound) -> Iterator[LivePool]:
    """Each VM's pool on each public IP, for each protocol; ICMP only where used."""
    for public in list(outbound.addresses.values()):
        current = len(public.allotments)
        for position, allotment in enumerate([*public.allotments, *public.retired]):
            for protocol in PROTOCOL_NAMES:
                pool = allotment.pools[protocol]
                if protocol != ICMP or pool.high_water:
                    vm, method = allotment.machine.name, allotment.method
                    yield LivePool(vm, public.address, protocol, method, position >= current, pool)


def port_records(outbound: Outbound) -> Iterator[PortRecord | None]:
    """One record for each of ``live_pools``; None where a caller may pause."""
    looked_at = 0
    for vm, address, protocol, method, _, pool in live_pools(outbound):
        busiest: tuple[tuple[bytes, int], ...] = ()
        looked_at += pool.destinations
        for step in pool.busiest():
            if step is None:
                yield None
            else:
                busiest = step
        if looked_at >= SLICE:  # many small pools are as long as a large one
            looked_at = 0
            yield None
        yield PortRecord(
            vm=vm,
            public_ip=str(IPv4Address(address)),
            protocol=PROTOCOL_NAMES[protocol],
            method=method.value,
            allocated=pool.count,
            used=pool.used,
            free=pool.count - pool.used,
            high_water=pool.high_water,
            failed=pool.failed,
            destinations=tuple(
                (*destination_endpoint(destination), used) for destination, used in busiest
            ),
            cooling=pool.cooling,
            ranges=bounds(pool.ranges),
            reserved=outbound.addresses[address].inventory.reserved,
        )


def changes_between(before: Configuration, after: Configuration, profile: Profile) -> list[str]:
    """A sentence for each difference that matters to traffic."""
    old, new = plan(before, profile), plan(after, profile)
    changes = []
    machines_before = {machine.name: machine for machine in old.machines}
    machines_after = {machine.name: machine for machine in new.machines}
    for name, machine in machines_after.items():
        was = machines_before.get(name)
        if was is None:
            changes.append(f"virtual machine {name} added: {_way(machine)}")
        elif was != machine:
            changes.append(f"virtual machine {name}: {_way(was)} -> {_way(machine)}")
    changes += [
        f"virtual machine {name} removed" for name in machines_before if name not in machines_after
    ]
    sizes_before = {f.address: (len(f.members), f.ports) for f in old.frontends}
    sizes_after = {f.address: (len(f.members), f.ports) for f in new.frontends}
    for address in sizes_before | sizes_after:
        was_size, size = sizes_before.get(address), sizes_after.get(address)
        if was_size == size:
            continue
        dotted = IPv4Address(address)
        if size is None:
            changes.append(f"frontend {dotted} no longer serves outbound flows")
        elif was_size is None:
            changes.append(f"frontend {dotted} serves {size[0]} VMs, {size[1]} SNAT ports each")
        else:
            changes.append(
                f"frontend {dotted}: {was_size[0]} -> {size[0]} VMs, "
                f"{was_size[1]} -> {size[1]} SNAT ports each"
            )
    changes += [
        f"public IP {IPv4Address(address)} {what}"
        for address in old.addresses.keys() ^ new.addresses.keys()
        for what in ("added" if address in new.addresses else "removed",)
    ]
    changes += [
        f"gateway.{field}: {getattr(before.gateway, attribute)} -> "
        f"{getattr(after.gateway, attribute)}"
        for field, attribute in (
            ("maximumFlows", "maximum_flows"),
            ("icmpEcho", "icmp_echo"),
            ("flowLogs", "flow_logs"),
            ("internetAddressPrefixes", "internet_address_prefixes"),
        )
        if getattr(before.gateway, attribute) != getattr(after.gateway, attribute)
    ]
    return [*changes, *security_changes(before, after)]


def _way(machine: MachinePlan) -> str:
    method = "no way out" if machine.method is None else machine.method.value
    address = IPv4Address(machine.address)
    if machine.instance is not None:
        return f"{address} by {method} ({IPv4Address(machine.instance)})"
    return f"{address} by {method}"


class SecurityRuleRecord(NamedTuple):
    """A rule of a network security group as a listing has it, with how often it decided."""

    group: str
    associations: tuple[tuple[str, str], ...]  # ("Subnet" | "NetworkInterface", name)
    name: str
    default: bool
    priority: int
    direction: str
    access: str
    protocol: str
    sources: tuple[str, ...]
    source_ports: tuple[str, ...]
    destinations: tuple[str, ...]
    destination_ports: tuple[str, ...]
    expanded_sources: tuple[str, ...] | None
    expanded_destinations: tuple[str, ...] | None
    hits: int


def security_records(policy: Policy, configuration: Configuration) -> list[SecurityRuleRecord]:
    """Every rule of every group, by group, direction and priority."""
    places: dict[str, list[tuple[str, str]]] = {name: [] for name in policy.groups}
    for subnet in configuration.virtual_network.subnets:
        if subnet.network_security_group is not None:
            places[subnet.network_security_group].append((SUBNET, subnet.name))
    for machine in configuration.virtual_machines:
        if machine.network_security_group is not None:
            places[machine.network_security_group].append((INTERFACE, machine.name))
    return [
        SecurityRuleRecord(
            group=name,
            associations=tuple(places[name]),
            name=rule.name,
            default=rule.default,
            priority=rule.priority,
            direction=rule.direction,
            access=rule.access,
            protocol=rule.protocol,
            sources=rule.source_text,
            source_ports=rule.source_port_text,
            destinations=rule.destination_text,
            destination_ports=rule.destination_port_text,
            expanded_sources=rule.expanded.source if rule.expanded else None,
            expanded_destinations=rule.expanded.destination if rule.expanded else None,
            hits=hits,
        )
        for name, group in policy.groups.items()
        for rules in (group.inbound, group.outbound)
        for rule, hits in zip(rules.rules, rules.hits, strict=True)
    ]
