"""The virtual network: prefixes and subnets of the first one, or a placeholder for it.

The configuration has one virtual network. Where the files have none (interfaces or security groups
alone), a stand-in is made from what these say, and said to be one.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from gateway.importing.inventory import (
    INTERFACES,
    SECURITY_GROUPS,
    VIRTUAL_NETWORKS,
    Inventory,
    Resource,
)
from gateway.importing.nodes import Node
from gateway.importing.notes import LEFT_OUT, Notes, Place
from gateway.importing.security import SecurityGroups
from gateway.importing.yaml_entries import Entry

STAND_IN = IPv4Network("10.0.0.0/16")
STAND_IN_LENGTH = 24


class Network:
    """The virtual network that is carried over, and what others ask of it."""

    def __init__(self, inventory: Inventory, notes: Notes, groups: SecurityGroups) -> None:
        self._groups = groups
        self._notes = notes
        self.subnets: dict[str, Entry] = {}
        """By folded name."""
        self.nat_gateways: dict[str, list[str]] = {}
        """Subnets' names by the folded name of the NAT gateway that they name."""
        self._prefixes: list[str] = []
        self._name: str | None = None
        comment = ""
        networks = inventory.of(VIRTUAL_NETWORKS)
        for other in networks[1:]:
            message = f"{LEFT_OUT}: the configuration has one virtual network"
            notes.add(other.node.place, "", f"{message}, {networks[0].name}")
        for first in networks[:1]:
            self._name = first.name
            self._take(inventory, first)
            comment = f"virtualNetworks/{first.name}"
        if not self.subnets:
            self._stand_in(inventory)
            comment = comment or "placeholder: the files have no virtual network"
        for name, subnet, network in _group_users(inventory):
            entry = self.subnets.get(subnet.casefold())
            if entry is not None and self.has(network):
                entry.setdefault("networkSecurityGroup", name)
        self.entry = Entry(
            comment, addressPrefixes=self._prefixes, subnets=list(self.subnets.values())
        )

    def has(self, network: str | None) -> bool:
        """Whether a virtual network's name, from a reference, is this one's (or not known)."""
        mine = self._name
        return network is None or mine is None or network.casefold() == mine.casefold()

    def prefixes(self) -> list[IPv4Network]:
        """Of the virtual network; those that are none are left out."""
        networks = (prefix_of(text) for text in self._prefixes)
        return [network for network in networks if network is not None]

    def subnet(self, name: str | None) -> IPv4Network | None:
        """The prefix of a subnet."""
        entry = self.subnets.get((name or "").casefold())
        return None if entry is None else prefix_of(str(entry.get("addressPrefix")))

    def _take(self, inventory: Inventory, resource: Resource) -> None:
        node = resource.node
        space = node.node("addressSpace")
        if space is not None:
            self._prefixes = list(_ipv4(space, "addressPrefixes"))
        for subnet in inventory.children(resource, "subnets"):
            self._take_subnet(subnet)
        if not self._prefixes and self.subnets:
            self._prefixes = [str(entry["addressPrefix"]) for entry in self.subnets.values()]
            node.note("addressSpace", "not known: made of the subnets' prefixes")
        inventory.name_leftovers(resource)

    def _take_subnet(self, node: Node) -> None:
        name = node.text("name")
        single = node.text("addressPrefix")
        prefixes = [single] if single else list(_ipv4(node, "addressPrefixes"))
        node.has("addressPrefixes")
        if name is None or not prefixes:
            node.note("", f"{LEFT_OUT}: a subnet has a name and an IPv4 addressPrefix")
            return
        for prefix in prefixes[1:]:
            node.note("addressPrefixes", f"{LEFT_OUT} ({prefix}): a subnet has one prefix")
        gateway = node.reference("natGateway")
        if gateway is not None and (target := gateway.name("natGateways")) is not None:
            self.nat_gateways.setdefault(target.casefold(), []).append(name)
        self.subnets[name.casefold()] = Entry(
            name=name,
            addressPrefix=prefixes[0],
            networkSecurityGroup=self._groups.group_name(node, "networkSecurityGroup"),
            defaultOutboundAccess=node.boolean("defaultOutboundAccess"),
        )

    def _stand_in(self, inventory: Inventory) -> None:
        """Subnets of the names that are referred to, around the addresses that are in them."""
        if self._name is None:
            self._name = next((name for _, name, _ in _uses(inventory) if name is not None), None)
        known = self._in_use(inventory)
        taken: list[IPv4Network] = []
        for name, address in known.items():
            if address is None:
                continue
            network = IPv4Network((address, STAND_IN_LENGTH), strict=False)
            if network not in taken:
                taken.append(network)
                self._add_stand_in(name, network)
        free = (n for n in STAND_IN.subnets(new_prefix=STAND_IN_LENGTH) if n not in taken)
        for name, address in known.items():
            if address is None:
                self._add_stand_in(name, next(free, STAND_IN))
        if not self.subnets:
            self._add_stand_in("default", next(free))
        if not self._prefixes:
            inside = [net for net in map(self.subnet, self.subnets) if net is not None]
            outside = [str(net) for net in inside if not net.subnet_of(STAND_IN)]
            within = [str(STAND_IN)] if len(outside) < len(inside) else []
            self._prefixes = within + outside
        stand_ins = ", ".join(f"{e['name']} {e['addressPrefix']}" for e in self.subnets.values())
        message = f"none in the files; stand-ins: {stand_ins}. Give az network vnet show, too"
        self._notes.add(Place("", "virtualNetwork"), "subnets", message)

    def _in_use(self, inventory: Inventory) -> dict[str, IPv4Address | None]:
        """Names of this network's subnets that are referred to, with an address if known."""
        spelling: dict[str, str] = {}
        found: dict[str, IPv4Address | None] = {}
        for name, network, address in _uses(inventory):
            if self.has(network):
                key = spelling.setdefault(name.casefold(), name)
                found[key] = found.get(key) or address
        return found

    def _add_stand_in(self, name: str, network: IPv4Network) -> None:
        self.subnets[name.casefold()] = Entry(name=name, addressPrefix=str(network))


def prefix_of(text: str) -> IPv4Network | None:
    """The network of a prefix that is in order."""
    try:
        return IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError):
        return None


def address_of(text: str | None) -> IPv4Address | None:
    """The address of a text that is in order."""
    try:
        return None if text is None else IPv4Address(text)
    except AddressValueError:
        return None


def _ipv4(node: Node, key: str) -> Iterator[str]:
    for prefix in node.texts(key):
        if ":" in prefix:
            node.note(key, f"{LEFT_OUT} ({prefix}): IPv6 is not supported")
        else:
            yield prefix


def _group_users(inventory: Inventory) -> Iterator[tuple[str, str, str | None]]:
    """(security group, subnet, virtual network) as the groups say: az lists the subnets in them."""
    for group in inventory.of(SECURITY_GROUPS):
        for reference in group.node.references("subnets"):
            subnet = reference.name("subnets")
            if subnet is not None:
                yield group.name, subnet, reference.name(VIRTUAL_NETWORKS)


def _uses(inventory: Inventory) -> Iterator[tuple[str, str | None, IPv4Address | None]]:
    """(subnet, virtual network, an address in it) as interfaces and security groups say."""
    for interface in inventory.of(INTERFACES):
        for node in interface.node.nodes("ipConfigurations"):
            subnet = node.reference("subnet")
            name = subnet.name("subnets") if subnet is not None else None
            if subnet is not None and name is not None:
                address = address_of(node.text("privateIPAddress"))
                yield name, subnet.name(VIRTUAL_NETWORKS), address
    for _, name, network in _group_users(inventory):
        yield name, network, None
