"""Addresses: subnets within the virtual network, VMs within subnets, public IPs outside of both.

Checks that compare one item with all others sort first or use a dictionary: a file with thousands
of VMs is checked in the time that reading it takes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, ip_address

from gateway.model.configuration import Configuration, Subnet
from gateway.model.problems import Location, dotted
from gateway.model.reading.validate import Mistake, RemovedParts

RESERVED_FIRST = 4  # addresses of a subnet that Azure keeps: network, gateway, two for DNS
LONGEST_SUBNET = 29
NOT_FOR_NETWORKS = tuple(
    map(
        IPv4Network,
        ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "168.63.129.16/32", "224.0.0.0/3"),
    )
)
"""Azure takes none of these into a virtual network; none can be a public IP."""


def check(configuration: Configuration, cuts: RemovedParts) -> Iterator[Mistake]:
    """Everything about addresses that involves more than one field."""
    if "virtualNetwork" not in cuts.words:
        yield from _network(configuration, cuts)
        yield from _machines_in_subnets(configuration, cuts)
    yield from _machines(configuration)
    yield from _public_ips(configuration, cuts)


def overlapping(
    networks: Sequence[tuple[Location, IPv4Network]],
) -> Iterator[tuple[Location, IPv4Network, Location, IPv4Network]]:
    """(later in the file, its prefix, earlier in the file, its prefix) of what overlaps."""
    order = {place: number for number, (place, _) in enumerate(networks)}
    widest: tuple[Location, IPv4Network] | None = None
    for place, network in sorted(networks, key=lambda item: (item[1], order[item[0]])):
        if widest is not None and network.overlaps(widest[1]):
            one, other = (place, network), widest
            if order[one[0]] < order[other[0]]:
                one, other = other, one
            yield (*one, *other)
        else:
            widest = (place, network)


def _network(configuration: Configuration, cuts: RemovedParts) -> Iterator[Mistake]:
    network = configuration.virtual_network
    prefixes: list[tuple[Location, IPv4Network]] = [
        (("virtualNetwork", "addressPrefixes", index), prefix)
        for index, prefix in enumerate(network.address_prefixes)
    ]
    subnets: list[tuple[Location, IPv4Network]] = [
        (("virtualNetwork", "subnets", index, "addressPrefix"), subnet.address_prefix)
        for index, subnet in enumerate(network.subnets)
    ]
    for place, prefix in prefixes:
        for special in NOT_FOR_NETWORKS:
            if prefix.overlaps(special):
                message = f"Azure takes no part of {special} into a virtual network"
                yield Mistake(place, message, str(prefix))
                break
    for networks in (prefixes, subnets):
        for place, prefix, before, other in overlapping(networks):
            yield Mistake(place, f"overlaps {dotted(before)} ({other})", str(prefix))
    for index, (place, prefix) in enumerate(subnets):
        if prefix.prefixlen > LONGEST_SUBNET:
            message = f"too small for a subnet; allowed: /{LONGEST_SUBNET} or larger"
            yield Mistake(place, message, str(prefix))
        inside = any(prefix.subnet_of(around) for around in network.address_prefixes)
        if not inside and "addressPrefixes" not in cuts.words:
            allowed = ", ".join(map(str, network.address_prefixes))
            message = f"subnet {network.subnets[index].name} is outside the virtual network"
            yield Mistake(place, f"{message}; allowed: within {allowed}", str(prefix))


def _machines_in_subnets(configuration: Configuration, cuts: RemovedParts) -> Iterator[Mistake]:
    subnets = sorted(configuration.virtual_network.subnets, key=lambda s: s.address_prefix)
    starts = [subnet.address_prefix.network_address for subnet in subnets]
    for index, machine in enumerate(configuration.virtual_machines):
        address = machine.private_ip_address
        place = ("virtualMachines", index, "privateIPAddress")
        number = bisect_right(starts, address) - 1
        if number < 0 or address not in subnets[number].address_prefix:
            if "subnets" not in cuts.words:
                allowed = ", ".join(f"{s.address_prefix} ({s.name})" for s in subnets[:5])
                message = f"VM {machine.name} is outside every subnet; allowed: within {allowed}"
                yield Mistake(place, message, str(address))
            continue
        first, last = usable(subnets[number])
        if not first <= address <= last and first <= last:
            message = (
                f"Azure reserves the first {RESERVED_FIRST} addresses of a subnet and the last; "
                f"allowed in {subnets[number].name}: {first} to {last}"
            )
            yield Mistake(place, message, str(address))


def usable(subnet: Subnet) -> tuple[IPv4Address, IPv4Address]:
    """The first and the last address of a subnet that Azure gives to a VM."""
    prefix = subnet.address_prefix
    return prefix.network_address + RESERVED_FIRST, prefix.broadcast_address - 1


def _machines(configuration: Configuration) -> Iterator[Mistake]:
    first: dict[IPv4Address, int] = {}
    for index, machine in enumerate(configuration.virtual_machines):
        address = machine.private_ip_address
        before = first.setdefault(address, index)
        if before != index:
            owner = configuration.virtual_machines[before].name
            place = ("virtualMachines", index, "privateIPAddress")
            yield Mistake(place, f"private address already used by VM {owner}", str(address))
        if _is_other_address(machine.name, address):
            message = f"a VM can be named by its own address ({address}) but not by another's"
            yield Mistake(("virtualMachines", index, "name"), message, machine.name)


def _is_other_address(name: str, address: IPv4Address) -> bool:
    """Whether a name would be taken for another VM: those not in the file go by their address."""
    try:
        return ip_address(name) != address
    except ValueError:
        return False


def _public_ips(configuration: Configuration, cuts: RemovedParts) -> Iterator[Mistake]:
    first: dict[IPv4Address, int] = {}
    for index, public in enumerate(configuration.public_ip_addresses):
        address = public.ip_address
        place = ("publicIPAddresses", index, "ipAddress")
        before = first.setdefault(address, index)
        if before != index:
            owner = configuration.public_ip_addresses[before].name
            yield Mistake(place, f"address already used by {owner}", str(address))
        if any(address in special for special in NOT_FOR_NETWORKS):
            yield Mistake(place, "not an address that a host can have", str(address))
        if "virtualNetwork" in cuts.words:
            continue
        for prefix in configuration.virtual_network.address_prefixes:
            if address in prefix:
                message = f"a public IP cannot be within the virtual network ({prefix})"
                yield Mistake(place, message, str(address))
