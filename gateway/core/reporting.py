"""Listings and change reports: what an operator reads about ports and about a reload.

Nothing here decides anything. Long listings are generators that yield None now and then, so that
their reader can handle packets in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address
from typing import NamedTuple

from gateway.core.allotment import PROTOCOL_NAMES, Machine
from gateway.core.flow import ICMP, TCP, UDP
from gateway.core.inventory import bounds
from gateway.core.network_changes import network_changes
from gateway.core.nsg import INTERFACE, SUBNET, Policy
from gateway.core.outbound import Outbound, Resized
from gateway.core.plan import MachinePlan, Plan, plan
from gateway.core.ports import SLICE, PortRecord, Ports, destination_endpoint
from gateway.core.security_changes import security_changes
from gateway.model.configuration import Configuration
from gateway.model.grants import frontends_behind
from gateway.model.profile import Method, Profile


class LivePool(NamedTuple):
    """A port pool with whose it is. ``retired``: its flows end on it, and it gets no new ones."""

    vm: str
    address: bytes
    protocol: int
    method: Method
    retired: bool
    pool: Ports


def live_pools(outbound: Outbound) -> Iterator[LivePool]:
    """Each VM's pool on each public IP, for each protocol; ICMP only where used."""
    for public in list(outbound.addresses.values()):
        current = public.current
        for position, allotment in enumerate([*current, *public.retired]):
            for protocol, pool in allotment.pools.items():
                if protocol != ICMP or pool.high_water:
                    vm, method = allotment.machine.name, allotment.method
                    retired = position >= len(current)
                    yield LivePool(vm, public.address, protocol, method, retired, pool)


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
            free=pool.free,
            high_water=pool.high_water,
            failed=pool.failed,
            destinations=tuple(
                (*destination_endpoint(destination), used) for destination, used in busiest
            ),
            cooling=pool.cooling,
            ranges=bounds(pool.ranges),
            reserved=outbound.addresses[address].inventories[TCP].reserved,
        )


class MachineRecord(NamedTuple):
    """How one VM goes out. A method that is None: it has no way out for that protocol."""

    name: str
    private_ip: str
    tcp: str | None
    udp: str | None
    ports: tuple[tuple[str, int], ...]  # public IP, and SNAT ports on it for each protocol
    instance: str | None  # its instance-level public IP
    frontends: tuple[tuple[str, str, int], ...]  # load balancer, frontend, size of the pool behind
    outbound_rules: tuple[tuple[str, int, int], ...]  # name, frontends, allocatedOutboundPorts
    nat_gateway: str | None
    tcp_idle_timeouts: tuple[float, float]  # seconds; the shortest and the longest of its flows'
    udp_idle_timeout: float

    @property
    def method(self) -> str | None:
        """Of its flows, whatever their protocol; None: there is no way out."""
        return self.tcp or self.udp

    def method_of(self, protocol: str) -> str | None:
        """For a protocol's name; what is not UDP goes as TCP does."""
        return self.udp if protocol == "Udp" else self.tcp


def machine_records(
    configuration: Configuration, machines: Iterable[Machine]
) -> Iterator[MachineRecord]:
    """A record for each of these machines."""
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
        for allotment in machine.allotments:  # one for each protocol
            address = str(IPv4Address(allotment.address))
            ports[address] = max(ports.get(address, 0), allotment.count)
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
            _tcp_idle_timeouts(machine, nat_timeouts.get(machine.nat_gateway or "")),
            max(_idle_timeouts(machine, UDP)),
        )


def _tcp_idle_timeouts(machine: Machine, by_nat_gateway: float | None) -> tuple[float, float]:
    found = _idle_timeouts(machine, TCP) if by_nat_gateway is None else [by_nat_gateway]
    # What comes in by its own public IP has that one's, whatever it goes out by.
    own = found if machine.instance is None else [*found, machine.idle_timeout]
    return min(own), max(found)


def _idle_timeouts(machine: Machine, protocol: int) -> list[float]:
    found = [a.terms.idle_timeout for a in machine.allotments if a.protocol == protocol]
    return found or [machine.idle_timeout]


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
        elif _way(was) != _way(machine):
            changes.append(f"virtual machine {name}: {_way(was)} -> {_way(machine)}")
    changes += [
        f"virtual machine {name} removed" for name in machines_before if name not in machines_after
    ]
    changes += _frontend_changes(old, new)
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
    return [*changes, *network_changes(before, after), *security_changes(before, after)]


def _frontend_changes(old: Plan, new: Plan) -> Iterator[str]:
    """Who serves how many VMs with how many ports; said of a protocol where they differ in that."""
    before, after = _sizes(old), _sizes(new)
    for address in dict.fromkeys([*before, *after]):
        was, size = before.get(address, {}), after.get(address, {})
        alike = all(len(set(s.values())) < 2 and len(s) != 1 for s in (was, size))
        for protocol in (TCP,) if alike else (TCP, UDP):
            one, other = was.get(protocol), size.get(protocol)
            if one == other:
                continue
            frontend = f"frontend {IPv4Address(address)}"
            if not alike:
                frontend += f" ({PROTOCOL_NAMES[protocol]})"
            if other is None:
                yield f"{frontend} no longer serves outbound flows"
            elif one is None:
                yield f"{frontend} serves {other[0]} VMs, {other[1]} SNAT ports each"
            else:
                vms, ports = f"{one[0]} -> {other[0]}", f"{one[1]} -> {other[1]}"
                yield f"{frontend}: {vms} VMs, {ports} SNAT ports each"


def _sizes(plan_: Plan) -> dict[bytes, dict[int, tuple[int, int]]]:
    """Public IP → protocol → VMs that go out by it, and the most ports that one of them has."""
    sizes: dict[bytes, dict[int, tuple[int, int]]] = {}
    for grant in plan_.grants:
        of_address = sizes.setdefault(grant.address, {})
        vms, ports = of_address.get(grant.protocol, (0, 0))
        most = max(grant.ports.values(), default=0)
        of_address[grant.protocol] = vms + len(grant.ports), max(ports, most)
    return sizes


def _way(machine: MachinePlan) -> str:
    address = IPv4Address(machine.address)
    if machine.tcp is machine.udp:
        method = "no way out" if machine.tcp is None else machine.tcp.value
    else:
        method = ", ".join(
            f"{name} {'no way out' if way is None else way.value}"
            for name, way in (("Tcp", machine.tcp), ("Udp", machine.udp))
        )
    if machine.instance is not None:
        return f"{address} by {method} ({IPv4Address(machine.instance)})"
    if machine.nat_gateway is not None:
        return f"{address} by {method} ({machine.nat_gateway})"
    return f"{address} by {method}"


def allotment_changes(
    resized: list[Resized], broken: Mapping[int, int]
) -> Iterator[tuple[str, Machine, str, int, int]]:
    """Sentence, VM, public IP, ports taken back and flows broken, for each VM and public IP.

    ``broken``: live flows that broke, by position in ``resized``.
    """
    together: dict[tuple[int, bytes], list[int]] = {}
    for position, change in enumerate(resized):
        allotment = change.allotment
        together.setdefault((id(allotment.machine), allotment.address), []).append(position)
    for positions in together.values():
        counts = {(resized[n].before, sum(map(len, resized[n].ranges))) for n in positions}
        both = len(positions) == 2 and len(counts) == 1
        for number in positions[:1] if both else positions:
            change = resized[number]
            allotment = change.allotment
            before, after = change.before, sum(map(len, change.ranges))
            lost = sum(broken.get(n, 0) for n in (positions if both else (number,)))
            address = str(IPv4Address(allotment.address))
            of = "each protocol" if both else PROTOCOL_NAMES[allotment.protocol]
            sentence = (
                f"{allotment.machine.name} on {address}: {before} -> {after} SNAT ports for {of}, "
                f"{lost} flow{'' if lost == 1 else 's'} broken"
            )
            yield sentence, allotment.machine, address, max(before - after, 0), lost


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
