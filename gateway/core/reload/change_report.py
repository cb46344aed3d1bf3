"""What a reload changed, as sentences for an operator: outbound methods, frontends, allocations,
settings.

Compares two configurations and what became of allocations; decides nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from ipaddress import IPv4Address

from gateway.core.reload.network_changes import network_changes
from gateway.core.reload.security_changes import security_changes
from gateway.core.snat.allocation_manager import Resized
from gateway.core.snat.allocations import PortAllocation, Vm
from gateway.core.snat.plan import Plan, VmPlan
from gateway.model.configuration import Configuration
from gateway.schema.protocols import PROTOCOL_NAMES, TCP, UDP

SLICE = 64  # things compared between two chances to handle packets


def changes_between(
    before: Configuration, after: Configuration, old: Plan, new: Plan
) -> Iterator[str | None]:
    """A sentence for each difference that matters to traffic; None where a caller may pause.

    ``old`` and ``new`` are what the two resolve to.
    """
    machines_before = {machine.name: machine for machine in old.machines}
    yield None
    machines_after = {machine.name: machine for machine in new.machines}
    yield None
    for number, (name, machine) in enumerate(machines_after.items(), 1):
        was = machines_before.get(name)
        if was is None:
            yield f"virtual machine {name} added: {_way(machine)}"
        elif was != machine and _way(was) != _way(machine):
            yield f"virtual machine {name}: {_way(was)} -> {_way(machine)}"
        if not number % SLICE:
            yield None
    for name in machines_before:
        if name not in machines_after:
            yield f"virtual machine {name} removed"
    yield None
    yield from _frontend_changes(old, new)
    for address in old.addresses.keys() ^ new.addresses.keys():
        what = "added" if address in new.addresses else "removed"
        yield f"public IP {IPv4Address(address)} {what}"
    for field, attribute in (
        ("maximumFlows", "maximum_flows"),
        ("icmpEcho", "icmp_echo"),
        ("flowLogs", "flow_logs"),
        ("internetAddressPrefixes", "internet_address_prefixes"),
    ):
        was_set, is_set = getattr(before.gateway, attribute), getattr(after.gateway, attribute)
        if was_set != is_set:
            yield f"gateway.{field}: {was_set} -> {is_set}"
    yield from network_changes(before, after)
    yield from security_changes(before, after)


def _frontend_changes(old: Plan, new: Plan) -> Iterator[str | None]:
    """Who serves how many VMs with how many ports; said of a protocol where they differ in that."""
    before = yield from _sizes(old)
    after = yield from _sizes(new)
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


def _sizes(plan: Plan) -> Generator[None, None, dict[bytes, dict[int, tuple[int, int]]]]:
    """Public IP → protocol → VMs that go out by it, and the most ports that one of them has."""
    sizes: dict[bytes, dict[int, tuple[int, int]]] = {}
    for number, grant in enumerate(plan.grants):
        if not number % 16:
            yield None
        of_address = sizes.setdefault(grant.address, {})
        vms, ports = of_address.get(grant.protocol, (0, 0))
        most = max(grant.ports.values(), default=0)
        of_address[grant.protocol] = vms + len(grant.ports), max(ports, most)
    return sizes


def _way(machine: VmPlan) -> str:
    address = IPv4Address(machine.address)
    if machine.tcp is machine.udp:
        method = "no outbound connectivity" if machine.tcp is None else machine.tcp.value
    else:
        method = ", ".join(
            f"{name} {'no outbound connectivity' if way is None else way.value}"
            for name, way in (("Tcp", machine.tcp), ("Udp", machine.udp))
        )
    if machine.instance is not None:
        return f"{address} by {method} ({IPv4Address(machine.instance)})"
    if machine.nat_gateway is not None:
        return f"{address} by {method} ({machine.nat_gateway})"
    return f"{address} by {method}"


def allocation_changes(
    resized: Iterable[Resized], broken: Mapping[PortAllocation, int]
) -> Iterator[tuple[str, Vm, str, int, int]]:
    """Sentence, VM, public IP, ports taken back and flows broken, for each VM and public IP.

    ``broken``: live flows that broke.
    """
    together: dict[tuple[int, bytes], list[Resized]] = {}
    for change in resized:
        allocation = change.allocation
        together.setdefault((id(allocation.machine), allocation.address), []).append(change)
    for changes in together.values():
        counts = {(change.before, sum(map(len, change.ranges))) for change in changes}
        both = len(changes) == 2 and len(counts) == 1
        for change in changes[:1] if both else changes:
            allocation = change.allocation
            before, after = change.before, sum(map(len, change.ranges))
            lost = sum(broken.get(c.allocation, 0) for c in (changes if both else (change,)))
            address = str(IPv4Address(allocation.address))
            of = "each protocol" if both else PROTOCOL_NAMES[allocation.protocol]
            sentence = (
                f"{allocation.machine.name} on {address}: {before} -> {after} SNAT ports for {of}, "
                f"{lost} flow{'' if lost == 1 else 's'} broken"
            )
            yield sentence, allocation.machine, address, max(before - after, 0), lost
