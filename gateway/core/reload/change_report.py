"""What a reload changed, as sentences for an operator: outbound methods, frontends, allocations,
settings.

Compares two configurations and what became of allocations; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address

from gateway.core.reload.network_changes import network_changes
from gateway.core.reload.security_changes import security_changes
from gateway.core.snat.allocation_manager import Resized
from gateway.core.snat.allocations import Vm
from gateway.core.snat.plan import Plan, VmPlan, plan
from gateway.model.configuration import Configuration
from gateway.model.profile import Profile
from gateway.schema.protocols import PROTOCOL_NAMES, TCP, UDP


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
    resized: list[Resized], broken: Mapping[int, int]
) -> Iterator[tuple[str, Vm, str, int, int]]:
    """Sentence, VM, public IP, ports taken back and flows broken, for each VM and public IP.

    ``broken``: live flows that broke, by position in ``resized``.
    """
    together: dict[tuple[int, bytes], list[int]] = {}
    for position, change in enumerate(resized):
        allocation = change.allocation
        together.setdefault((id(allocation.machine), allocation.address), []).append(position)
    for positions in together.values():
        counts = {(resized[n].before, sum(map(len, resized[n].ranges))) for n in positions}
        both = len(positions) == 2 and len(counts) == 1
        for number in positions[:1] if both else positions:
            change = resized[number]
            allocation = change.allocation
            before, after = change.before, sum(map(len, change.ranges))
            lost = sum(broken.get(n, 0) for n in (positions if both else (number,)))
            address = str(IPv4Address(allocation.address))
            of = "each protocol" if both else PROTOCOL_NAMES[allocation.protocol]
            sentence = (
                f"{allocation.machine.name} on {address}: {before} -> {after} SNAT ports for {of}, "
                f"{lost} flow{'' if lost == 1 else 's'} broken"
            )
            yield sentence, allocation.machine, address, max(before - after, 0), lost
