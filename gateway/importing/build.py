"""All that was found, put together as one configuration in the contract's order of sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from gateway.importing.balancers import LoadBalancers, NatGateways
from gateway.importing.inventory import Inventory
from gateway.importing.machines import Machines
from gateway.importing.network import Network
from gateway.importing.notes import Notes
from gateway.importing.public_ips import PublicIPs
from gateway.importing.security import SecurityGroups
from gateway.importing.yaml_entries import Entry
from gateway.model.profile import AZURE_2017

CURRENT = "azure-current"


@dataclass(frozen=True)
class Settings:
    """What Azure's resources do not say."""

    inside: Sequence[str] = ("lan0",)
    outside: str = "wan0"
    default_outbound: Sequence[IPv4Address] = ()


def assemble(inventory: Inventory, settings: Settings, notes: Notes) -> Entry:
    """The configuration; its sections' items are entries, some with comments."""
    groups = SecurityGroups(inventory)
    network = Network(inventory, notes, groups)
    public_ips = PublicIPs(inventory, notes, network.prefixes(), settings.default_outbound)
    machines = Machines(inventory, notes, network, public_ips, groups)
    balancers = LoadBalancers(inventory, machines, public_ips)
    gateways = NatGateways(inventory, network, public_ips)
    reason = _needs_current(network, machines, balancers, gateways)
    none = "VMs without another outbound method have none"
    outbound = Entry("" if public_ips.default_outbound else none)
    outbound["publicIPAddresses"] = public_ips.default_outbound
    return Entry(
        gateway=Entry(
            f"{CURRENT}: {reason}" if reason else "",
            profile=CURRENT if reason else AZURE_2017.name,
            inside=list(settings.inside),
            outside=settings.outside,
        ),
        virtualNetwork=network.entry,
        publicIPAddresses=public_ips.entries(),
        defaultOutboundAccess=outbound,
        virtualMachines=machines.entries,
        loadBalancers=balancers.entries,
        natGateways=gateways.entries,
        networkSecurityGroups=groups.entries,
        applicationSecurityGroups=groups.applications(),
        notCarriedOver=notes.lost(),
    )


def _needs_current(
    network: Network, machines: Machines, balancers: LoadBalancers, gateways: NatGateways
) -> str:
    """The first thing that 2017 did not have, or nothing."""
    if gateways.entries:
        return "NAT gateways need it"
    if any(entry["sku"] == "Standard" for entry in balancers.entries):
        return "Standard load balancers need it"
    if any("outboundRules" in entry for entry in balancers.entries):
        return "outbound rules need it"
    if any("defaultOutboundAccess" in entry for entry in network.subnets.values()):
        return "subnets with defaultOutboundAccess need it"
    if machines.closed:
        return "Standard public IPs without a security group need it"
    return ""
