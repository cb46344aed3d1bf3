"""Public IP addresses: those of the files, and documentation addresses where none is known.

Templates know no addresses, and dynamic ones may be unassigned: then a free one of RFC 5737's
ranges is used instead, with a note. An address that only a reference mentions becomes a resource.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from gateway.importing.inventory import PUBLIC_IPS, Inventory, Resource
from gateway.importing.network import address_of
from gateway.importing.nodes import Node
from gateway.importing.notes import LEFT_OUT, Notes, Place
from gateway.importing.yaml_entries import Entry, free_name, unlike

STAND_INS = tuple(map(IPv4Network, ("203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24")))
"""RFC 5737: documentation."""
DEFAULT_IDLE = 4


class PublicIPs:
    """What frontends, VMs and NAT gateways refer to."""

    def __init__(
        self,
        inventory: Inventory,
        notes: Notes,
        avoid: Iterable[IPv4Network],
        default_outbound: Iterable[IPv4Address],
    ) -> None:
        """``avoid``: the virtual network's prefixes; a public IP is not within them."""
        self._inventory = inventory
        self._notes = notes
        self._entries: dict[str, Entry] = {}
        self.standard: set[str] = set()
        """Names of those with the Standard SKU, through which Azure lets in what an NSG allows."""
        resources = [r for r in inventory.of(PUBLIC_IPS) if self._is_ipv4(r)]
        known = {r.name: r.node.text("ipAddress") for r in resources}
        outbound = list(dict.fromkeys(default_outbound))
        taken = {address_of(text) for text in known.values()} | set(outbound)
        self._free = _free_addresses(taken, list(avoid))
        for resource in resources:
            self._take(resource, known[resource.name])
        self.default_outbound = [self._for_default_outbound(address) for address in outbound]

    def entries(self) -> list[Entry]:
        """All, those added for references last."""
        return list(self._entries.values())

    def refer(self, node: Node, key: str) -> str | None:
        """The name of the public IP address that a property refers to."""
        reference = node.reference(key)
        if reference is None:
            return None
        name = reference.name(PUBLIC_IPS)
        if name is None:
            node.note(key, f"{LEFT_OUT} ({reference}): not a public IP address")
            return None
        return self.named(name, node, key)

    def named(self, name: str, node: Node, key: str) -> str | None:
        """A public IP address's own spelling of its name; made if the files do not have it."""
        entry = self._entries.get(name.casefold())
        if entry is None:
            if self._inventory.find(PUBLIC_IPS, name) is not None:
                node.note(key, f"{LEFT_OUT}: public IP address {name} is not, either")
                return None
            address = self._stand_in(Place("", f"publicIPAddresses/{name}"), "not in the files")
            if address is None:
                return None
            entry = Entry("a stand-in: not in the files", name=name, ipAddress=address)
            self._entries[name.casefold()] = entry
        return str(entry["name"])

    def _is_ipv4(self, resource: Resource) -> bool:
        version = resource.node.text("publicIPAddressVersion")
        address = resource.node.text("ipAddress")
        if (version or "").casefold() != "ipv6" and ":" not in (address or ""):
            return True
        message = f"{LEFT_OUT}: IPv6 is not supported"
        self._notes.add(resource.node.place, "publicIPAddressVersion", message)
        return False

    def _take(self, resource: Resource, address: str | None) -> None:
        node = resource.node
        comment = ""
        if address is None:
            address = self._stand_in(node.place, "has no address yet")
            comment = "a stand-in: the resource has no address"
        if address is not None:
            self._entries[resource.name.casefold()] = Entry(
                comment,
                name=resource.name,
                ipAddress=address,
                idleTimeoutInMinutes=unlike(node.number("idleTimeoutInMinutes"), DEFAULT_IDLE),
            )
        sku = node.node("sku")
        if sku is not None and (sku.text("name") or "").casefold().startswith("standard"):
            self.standard.add(resource.name)
        node.name_leftovers()

    def _stand_in(self, place: Place, why: str) -> str | None:
        address = next(self._free, None)
        if address is None:
            self._notes.add(place, "ipAddress", f"{LEFT_OUT}: {why}, and no stand-in is left")
            return None
        self._notes.add(place, "ipAddress", f"{why}; {address} is used instead")
        return str(address)

    def _for_default_outbound(self, address: IPv4Address) -> str:
        for entry in self._entries.values():
            if entry["ipAddress"] == str(address):
                return str(entry["name"])
        name = free_name("default-outbound", self._entries)
        self._entries[name] = Entry(name=name, ipAddress=str(address))
        return name


def _free_addresses(
    taken: Iterable[IPv4Address | None], avoid: list[IPv4Network]
) -> Iterator[IPv4Address]:
    used = set(taken)
    for network in STAND_INS:
        for address in network.hosts():
            if address not in used and not any(address in prefix for prefix in avoid):
                yield address
