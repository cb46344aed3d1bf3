"""Listings and change reports: what an operator reads about ports and about a reload.

Nothing here decides anything. Long listings are generators that yield None now and then, so that
their reader can handle packets in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from typing import NamedTuple

from gateway.core.policy.nsg import INTERFACE, SUBNET, Policy
from gateway.core.snat.allocation_manager import AllocationManager
from gateway.core.snat.allocations import Vm
from gateway.core.snat.port_pool import SLICE, Ports, destination_endpoint
from gateway.core.snat.port_ranges import bounds
from gateway.model.configuration import Configuration
from gateway.model.profile import Method
from gateway.model.resolved.port_grants import frontends_behind
from gateway.schema.protocols import ICMP, PROTOCOL_NAMES, TCP, UDP
from gateway.schema.records import MachineRecord, PortRecord, SecurityRuleRecord


class LivePool(NamedTuple):
    """A port pool with whose it is. ``retired``: its flows end on it, and it gets no new ones."""

    vm: str
    address: bytes
    protocol: int
    method: Method
    retired: bool
    pool: Ports


def live_pools(outbound: AllocationManager) -> Iterator[LivePool]:
    """Each VM's pool on each public IP, for each protocol; ICMP only where used."""
    for public in list(outbound.addresses.values()):
        current = public.current
        for position, allocation in enumerate([*current, *public.retired]):
            for protocol, pool in allocation.pools.items():
                if protocol != ICMP or pool.high_water:
                    vm, method = allocation.machine.name, allocation.method
                    retired = position >= len(current)
                    yield LivePool(vm, public.address, protocol, method, retired, pool)


def port_records(outbound: AllocationManager) -> Iterator[PortRecord | None]:
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
            free=pool.free,
            high_water=pool.high_water,
            failed=pool.failed,
            destinations=tuple(
                (*destination_endpoint(destination), used) for destination, used in busiest
            ),
            cooling=pool.cooling,
            ranges=bounds(pool.ranges),
            reserved=outbound.addresses[address].port_ranges[TCP].reserved,
        )


def machine_records(
    configuration: Configuration, machines: Iterable[Vm]
) -> Iterator[MachineRecord]:
    """A record for each of these VMs."""
    behind = frontends_behind(configuration, configuration.profile)
    ruled: dict[str, list[tuple[str, int, int]]] = {}
    for balancer in configuration.load_balancers:
        pools = {pool.name: pool.virtual_machines for pool in balancer.backend_address_pools}
        for rule in balancer.outbound_rules:
            frontends = len(rule.frontend_ip_configurations)
            for name in pools[rule.backend_address_pool]:
                entry = rule.name, frontends, rule.allocated_outbound_ports
                ruled.setdefault(name, []).append(entry)
    nat_timeouts = {
        nat.name: 60.0 * nat.idle_timeout_in_minutes for nat in configuration.nat_gateways
    }
    for machine in machines:
        instance = machine.instance
        ports: dict[str, int] = {}
        for allocation in machine.allocations:  # one for each protocol
            address = str(IPv4Address(allocation.address))
            ports[address] = max(ports.get(address, 0), allocation.count)
        yield MachineRecord(
            machine.name,
            str(IPv4Address(machine.address)),
            None if machine.tcp is None else machine.tcp.value,
            None if machine.udp is None else machine.udp.value,
            tuple(ports.items()),
            None if instance is None else str(IPv4Address(instance)),
            tuple(behind.get(machine.name, ())),
            tuple(ruled.get(machine.name, ())),
            machine.nat_gateway,
            _tcp_idle_timeouts(
                machine,
                nat_timeouts.get(machine.nat_gateway or "")
                if machine.tcp is Method.NAT_GATEWAY
                else None,
            ),
            max(_idle_timeouts(machine, UDP)),
        )


def _tcp_idle_timeouts(machine: Vm, by_nat_gateway: float | None) -> tuple[float, float]:
    found = _idle_timeouts(machine, TCP) if by_nat_gateway is None else [by_nat_gateway]
    # What comes in by its own public IP has that one's, whatever it goes out by.
    own = found if machine.instance is None else [*found, machine.idle_timeout]
    return min(own), max(found)


def _idle_timeouts(machine: Vm, protocol: int) -> list[float]:
    found = [a.flow_policy.idle_timeout for a in machine.allocations if a.protocol == protocol]
    return found or [machine.idle_timeout]


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
