"""VMs: one for each network interface, named by the VM that the interface is in.

The configuration's VM has one address: that of the primary IPv4 configuration. Further interfaces
of a VM become VMs of their own. Interfaces without an address (templates with dynamic
allocation) get the next free one of their subnet once all known addresses are in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from gateway.importing.inventory import (
    INTERFACES,
    LOAD_BALANCERS,
    MACHINES,
    VIRTUAL_NETWORKS,
    Inventory,
    Resource,
)
from gateway.importing.network import Network, address_of
from gateway.importing.nodes import Node, Reference
from gateway.importing.notes import LEFT_OUT, Notes
from gateway.importing.public_ips import PublicIPs
from gateway.importing.security import SecurityGroups
from gateway.importing.yaml_entries import Entry, free_name

RESERVED_FIRST = 4  # addresses of a subnet that Azure keeps, and the last one


@dataclass
class _Interface:
    """A network interface that is carried over."""

    resource: Resource
    configuration: Node
    machine: str | None
    """The VM that it is in, if the files name it."""
    primary: bool
    subnet: str | None
    address: IPv4Address | None
    name: str = ""


class Machines:
    """The VMs, and which of them load balancers mean."""

    def __init__(
        self,
        inventory: Inventory,
        notes: Notes,
        network: Network,
        public_ips: PublicIPs,
        groups: SecurityGroups,
    ) -> None:
        self._inventory = inventory
        self._notes = notes
        self._network = network
        self._public_ips = public_ips
        self._groups = groups
        self.closed = False
        """Whether a public IP lets nothing in because no security group stands there."""
        self._by_configuration: dict[tuple[str, str], str] = {}
        self._by_address: dict[IPv4Address, str] = {}
        self.pool_members: dict[tuple[str, str], list[str]] = {}
        """VMs by folded names of load balancer and pool, as interfaces say."""
        self.nat_targets: dict[tuple[str, str], str] = {}
        """VM by folded names of load balancer and inbound NAT rule."""
        owners = self._owners()
        read = (self._read(resource, owners) for resource in inventory.of(INTERFACES))
        interfaces = [interface for interface in read if interface is not None]
        self._give_addresses(interfaces)
        interfaces = [interface for interface in interfaces if interface.address is not None]
        self._give_names(interfaces)
        self.entries = [self._entry(interface) for interface in interfaces]
        for resource in inventory.of(INTERFACES):
            resource.node.name_leftovers()

    def of_configuration(self, reference: Reference, node: Node, key: str) -> str | None:
        """The VM behind an IP configuration of an interface; names what it cannot find."""
        interface = reference.name(INTERFACES)
        configuration = reference.name("ipConfigurations")
        if interface is None or configuration is None or reference.name("virtualMachineScaleSets"):
            node.note(key, f"{LEFT_OUT} ({reference}): not an IP configuration of a VM's interface")
            return None
        name = self._by_configuration.get((interface.casefold(), configuration.casefold()))
        if name is None:
            known = self._inventory.find(INTERFACES, interface)
            why = "is not carried over" if known is not None else "is not in the files"
            node.note(key, f"{LEFT_OUT}: {reference} {why}")
        return name

    def of_address(self, address: str | None) -> str | None:
        """The VM that has this private address."""
        parsed = address_of(address)
        return None if parsed is None else self._by_address.get(parsed)

    def _owners(self) -> dict[str, tuple[str, bool]]:
        """(VM, whether primary) by folded interface, as VMs say."""
        owners: dict[str, tuple[str, bool]] = {}
        for machine in self._inventory.of(MACHINES):
            profile = machine.node.node("networkProfile")
            nodes = [] if profile is None else profile.nodes("networkInterfaces")
            found = False
            for node in nodes:
                primary = node.boolean("primary")
                reference = node.target()
                name = reference.name(INTERFACES) if reference is not None else None
                if name is None:
                    continue
                owners[name.casefold()] = machine.name, primary is True
                found |= self._inventory.find(INTERFACES, name) is not None
            if not found:
                message = f"{LEFT_OUT}: none of its network interfaces is in the files"
                self._notes.add(machine.node.place, "", message)
        return owners

    def _read(self, resource: Resource, owners: dict[str, tuple[str, bool]]) -> _Interface | None:
        node = resource.node
        if node.reference("privateEndpoint") is not None:
            node.note("", f"{LEFT_OUT}: the interface of a private endpoint")
            return None
        configuration = _primary(node)
        if configuration is None:
            node.note("ipConfigurations", f"{LEFT_OUT}: an interface has an IPv4 configuration")
            return None
        subnet = configuration.reference("subnet")
        if subnet is not None and not self._network.has(subnet.name(VIRTUAL_NETWORKS)):
            message = f"{LEFT_OUT}: {subnet} is in another virtual network"
            configuration.note("subnet", message)
            return None
        name = subnet.name("subnets") if subnet is not None else None
        if name is not None and name.casefold() not in self._network.subnets:
            message = (
                f"{LEFT_OUT}: {subnet} is not in the files, nor what its security group denies"
            )
            configuration.note("subnet", message, lost=True)
        text = configuration.text("privateIPAddress")
        address = address_of(text)
        if text is not None and address is None:
            configuration.note("privateIPAddress", f"{LEFT_OUT} ({text}): not an IPv4 address")
        reference = node.reference("virtualMachine")
        machine = reference.name(MACHINES) if reference is not None else None
        owner = owners.get(resource.name.casefold())
        return _Interface(
            resource,
            configuration,
            machine or (owner[0] if owner is not None else None),
            node.boolean("primary") is True or (owner is not None and owner[1]),
            name,
            address,
        )

    def _give_addresses(self, interfaces: list[_Interface]) -> None:
        taken = {interface.address for interface in interfaces}
        free: dict[IPv4Network, IPv4Address] = {}
        for interface in interfaces:
            if interface.address is not None:
                continue
            node = interface.configuration
            allocation = node.text("privateIPAllocationMethod") or "Dynamic"
            prefix = self._network.subnet(interface.subnet)
            if prefix is None:
                message = f"{LEFT_OUT}: an interface without an address, in no subnet of the files"
                interface.resource.node.note("", message)
                continue
            first = free.get(prefix, prefix.network_address + RESERVED_FIRST)
            last = prefix.broadcast_address - 1
            while first <= last and first in taken:
                first += 1
            free[prefix] = first
            if first > last:
                message = f"{LEFT_OUT}: {allocation}, and subnet {interface.subnet} is full"
                node.note("privateIPAddress", message)
                continue
            taken.add(first)
            interface.address = first
            message = f"{allocation} and not known; {first}, the next free one, is used instead"
            node.note("privateIPAddress", message)

    def _give_names(self, interfaces: list[_Interface]) -> None:
        """A VM's name goes to its primary interface, or else the first."""
        first: dict[str, _Interface] = {}
        for interface in interfaces:
            if interface.machine is not None:
                holder = first.setdefault(interface.machine.casefold(), interface)
                if interface.primary and not holder.primary:
                    first[interface.machine.casefold()] = interface
        for interface in first.values():
            interface.name = interface.machine or ""
        taken = set(first)
        for interface in interfaces:
            if interface.name:
                continue
            interface.name = free_name(interface.resource.name, taken)
            taken.add(interface.name.casefold())
            if interface.machine is not None:
                message = f"a further interface of {interface.machine}: a VM of its own here"
                interface.resource.node.note("virtualMachine", f"{message}, {interface.name}")

    def _entry(self, interface: _Interface) -> Entry:
        node, configuration, name = interface.resource.node, interface.configuration, interface.name
        public_ip = self._public_ips.refer(configuration, "publicIPAddress")
        group = self._groups.group_name(node, "networkSecurityGroup")
        subnet = self._network.subnets.get((interface.subnet or "").casefold(), Entry())
        unguarded = group is None and "networkSecurityGroup" not in subnet
        if unguarded and public_ip in self._public_ips.standard:
            message = f"{public_ip} is Standard: without a security group nothing comes in"
            configuration.note("publicIPAddress", message)
            self.closed = True
        label = configuration.text("name") or ""
        self._by_configuration[interface.resource.name.casefold(), label.casefold()] = name
        if interface.address is not None:
            self._by_address.setdefault(interface.address, name)
        for reference in configuration.references("loadBalancerBackendAddressPools"):
            balancer, pool = reference.name(LOAD_BALANCERS), reference.name("backendAddressPools")
            if balancer is None or pool is None:
                message = f"{LEFT_OUT} ({reference}): not a pool of a load balancer"
                configuration.note("loadBalancerBackendAddressPools", message)
                continue
            self._in_files(balancer, configuration, "loadBalancerBackendAddressPools", reference)
            key = balancer.casefold(), pool.casefold()
            self.pool_members.setdefault(key, []).append(name)
        for reference in configuration.references("loadBalancerInboundNatRules"):
            balancer, rule = reference.name(LOAD_BALANCERS), reference.name("inboundNatRules")
            if balancer is not None and rule is not None:
                self._in_files(balancer, configuration, "loadBalancerInboundNatRules", reference)
                self.nat_targets[balancer.casefold(), rule.casefold()] = name
        own = f"networkInterfaces/{interface.resource.name}"
        return Entry(
            own if name != interface.resource.name else "",
            name=name,
            privateIPAddress=str(interface.address),
            publicIPAddress=public_ip,
            networkSecurityGroup=group,
            applicationSecurityGroups=self._groups.application_names(
                configuration, "applicationSecurityGroups"
            ),
        )

    def _in_files(self, balancer: str, node: Node, key: str, reference: Reference) -> None:
        if self._inventory.find(LOAD_BALANCERS, balancer) is None:
            node.note(key, f"{LEFT_OUT}: {reference} is not in the files")


def _primary(interface: Node) -> Node | None:
    """The primary IPv4 configuration; the others are named, and what they have with them."""
    found: Node | None = None
    others = []
    for node in interface.nodes("ipConfigurations"):
        version = node.text("privateIPAddressVersion") or "IPv4"
        address = node.text("privateIPAddress") or ""
        if version.casefold() == "ipv6" or ":" in address:
            node.ignore(f"{LEFT_OUT}: IPv6 is not supported")
        elif found is None:
            found = node
        elif node.boolean("primary") is True:
            others.append(found)
            found = node
        else:
            others.append(node)
    for node in others:
        address = node.text("privateIPAddress") or "no address"
        node.ignore(f"{LEFT_OUT}: a secondary IP configuration ({address})")
    return found
