"""Load balancers with public frontends, and NAT gateways.

An internal frontend translates nothing outbound: it is named and left out, with the rules
that stand on it. Members of pools are given by the pool (IP configurations, addresses) or by the
interfaces, whichever file there is; a member counts once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.importing.inventory import LOAD_BALANCERS, NAT_GATEWAYS, Inventory, Resource
from gateway.importing.machines import Machines
from gateway.importing.network import Network
from gateway.importing.nodes import Node
from gateway.importing.notes import LEFT_OUT
from gateway.importing.public_ips import PublicIPs
from gateway.importing.yaml_entries import Entry, distinct, unlike

IDLE_MINUTES = 4
PROBE_INTERVAL = 15
_PROTOCOLS = {word.casefold(): word for word in ("Tcp", "Udp", "All", "Http", "Https")}


class LoadBalancers:
    """What the files have of them."""

    def __init__(self, inventory: Inventory, machines: Machines, public_ips: PublicIPs) -> None:
        self._inventory = inventory
        self._machines = machines
        self._public_ips = public_ips
        read = (self._read(resource) for resource in inventory.of(LOAD_BALANCERS))
        self.entries = [entry for entry in read if entry is not None]

    def _read(self, resource: Resource) -> Entry | None:
        node = resource.node
        sku = node.node("sku")
        tier = (sku.text("name") if sku is not None else None) or "Basic"
        if tier.casefold() not in ("basic", "standard"):
            node.note("sku", f"{LEFT_OUT} ({tier}): a load balancer is Basic or Standard")
            return None
        if sku is not None and (reach := sku.text("tier") or "").casefold() == "global":
            node.note("sku.tier", f"{LEFT_OUT} ({reach}): all of it is in one place here")
        frontends = _each(node.nodes("frontendIPConfigurations"), self._frontend)
        if not frontends:
            node.note("frontendIPConfigurations", f"{LEFT_OUT}: no public frontend")
            return None
        pools = _each(
            self._inventory.children(resource, "backendAddressPools"),
            lambda pool: self._pool(pool, resource),
        )
        probes = _each(node.nodes("probes"), _probe)
        links = _Links(_names(frontends), _names(pools), _names(probes))
        entry = Entry(
            name=resource.name,
            sku=tier.capitalize(),
            frontendIPConfigurations=frontends,
            backendAddressPools=pools,
            probes=probes,
            loadBalancingRules=_each(node.nodes("loadBalancingRules"), links.balancing),
            inboundNatRules=_each(
                self._inventory.children(resource, "inboundNatRules"),
                lambda rule: self._nat_rule(rule, resource, links),
            ),
            outboundRules=_each(node.nodes("outboundRules"), links.outbound),
        )
        for inbound in node.nodes("inboundNatPools"):
            inbound.ignore(f"{LEFT_OUT}: a pool of NAT rules is for scale sets")
        self._inventory.name_leftovers(resource)
        return entry

    def _frontend(self, node: Node) -> Entry | None:
        name = node.text("name")
        if name is None or not node.has("publicIPAddress"):
            what = "an internal frontend" if node.has("subnet") else "a frontend without public IP"
            node.ignore(f"{LEFT_OUT}: {what}")
            return None
        public_ip = self._public_ips.refer(node, "publicIPAddress")
        return None if public_ip is None else Entry(name=name, publicIPAddress=public_ip)

    def _pool(self, node: Node, balancer: Resource) -> Entry | None:
        name = node.text("name")
        if name is None:
            return None
        members: list[str | None] = []
        for reference in node.references("backendIPConfigurations"):
            members.append(
                self._machines.of_configuration(reference, node, "backendIPConfigurations")
            )
        for address in node.nodes("loadBalancerBackendAddresses"):
            members.append(self._by_address(address))
        key = balancer.name.casefold(), name.casefold()
        members += self._machines.pool_members.get(key, [])
        known = distinct(member for member in members if member is not None)
        return Entry(name=name, virtualMachines=known)

    def _by_address(self, node: Node) -> str | None:
        """The member that a backend address names, by its interface or its address."""
        interface = node.reference("networkInterfaceIPConfiguration")
        address = node.text("ipAddress")
        state = node.text("adminState") or "None"
        if state.casefold() != "none":
            node.note("adminState", f"{LEFT_OUT} ({state})")
        if interface is not None:
            return self._machines.of_configuration(interface, node, "")
        machine = self._machines.of_address(address)
        if machine is None and address is not None:
            node.note("ipAddress", f"{LEFT_OUT}: no VM of the files has {address}")
        return machine

    def _nat_rule(self, node: Node, balancer: Resource, links: _Links) -> Entry | None:
        frontend = links.frontend(node)
        name = node.text("name")
        if frontend is None or name is None:
            return None
        if node.has("backendAddressPool"):
            return links.nat_for_pool(node, name, frontend)
        target = node.reference("backendIPConfiguration")
        machine = self._machines.nat_targets.get((balancer.name.casefold(), name.casefold()))
        if machine is None and target is not None:
            machine = self._machines.of_configuration(target, node, "backendIPConfiguration")
        if machine is None:
            node.ignore(f"{LEFT_OUT}: an inbound NAT rule that leads to no VM of the files")
            return None
        return Entry(
            name=name,
            frontendIPConfiguration=frontend,
            protocol=_protocol(node),
            frontendPort=node.number("frontendPort"),
            virtualMachine=machine,
            backendPort=node.number("backendPort"),
            **_timing(node),
        )


class _Links:
    """References within a load balancer: names by their folded spelling."""

    def __init__(
        self, frontends: dict[str, str], pools: dict[str, str], probes: dict[str, str]
    ) -> None:
        self._frontends = frontends
        self._pools = pools
        self._probes = probes

    def balancing(self, node: Node) -> Entry | None:
        name = node.text("name")
        frontend = self.frontend(node)
        if name is None or frontend is None:
            return None
        pool = self._pool(node)
        if pool is None:
            node.ignore(f"{LEFT_OUT}: a load balancing rule without a backend pool")
            return None
        distribution = node.text("loadDistribution")
        return Entry(
            name=name,
            frontendIPConfiguration=frontend,
            backendAddressPool=pool,
            probe=_one(node, "probe", "probes", self._probes),
            protocol=_protocol(node),
            frontendPort=node.number("frontendPort"),
            backendPort=node.number("backendPort"),
            loadDistribution=unlike(distribution, "Default"),
            **_timing(node),
            disableOutboundSnat=unlike(node.boolean("disableOutboundSnat"), False),
        )

    def nat_for_pool(self, node: Node, name: str, frontend: str) -> Entry | None:
        """An inbound NAT rule with a port for each member of a pool."""
        pool = _one(node, "backendAddressPool", "backendAddressPools", self._pools)
        if pool is None:
            node.ignore(f"{LEFT_OUT}: an inbound NAT rule for a pool that is not carried over")
            return None
        node.number("frontendPort")  # 0: the range stands for it
        return Entry(
            name=name,
            frontendIPConfiguration=frontend,
            protocol=_protocol(node),
            frontendPortRangeStart=node.number("frontendPortRangeStart"),
            frontendPortRangeEnd=node.number("frontendPortRangeEnd"),
            backendAddressPool=pool,
            backendPort=node.number("backendPort"),
            **_timing(node),
        )

    def outbound(self, node: Node) -> Entry | None:
        name = node.text("name")
        frontends = [
            frontend
            for inner in node.nodes("frontendIPConfigurations")
            if (frontend := _own(inner, "frontendIPConfigurations", self._frontends)) is not None
        ]
        pool = _one(node, "backendAddressPool", "backendAddressPools", self._pools)
        if name is None or not frontends or pool is None:
            node.ignore(f"{LEFT_OUT}: an outbound rule has public frontends and a backend pool")
            return None
        return Entry(
            name=name,
            frontendIPConfigurations=frontends,
            backendAddressPool=pool,
            protocol=_protocol(node),
            allocatedOutboundPorts=unlike(node.number("allocatedOutboundPorts"), 0),
            idleTimeoutInMinutes=unlike(node.number("idleTimeoutInMinutes"), IDLE_MINUTES),
            enableTcpReset=unlike(node.boolean("enableTcpReset"), False),
        )

    def frontend(self, node: Node) -> str | None:
        """The frontend that a rule stands on; a rule on one that is left out is named."""
        reference = node.reference("frontendIPConfiguration")
        own = reference.name("frontendIPConfigurations") if reference is not None else None
        name = self._frontends.get((own or "").casefold())
        if name is None:
            node.ignore(f"{LEFT_OUT}: a rule on no public frontend")
        return name

    def _pool(self, node: Node) -> str | None:
        """One pool, which newer output repeats as a list of one."""
        names = [
            name
            for inner in node.nodes("backendAddressPools")
            if (name := _own(inner, "backendAddressPools", self._pools)) is not None
        ]
        first = _one(node, "backendAddressPool", "backendAddressPools", self._pools)
        found = distinct([*([first] if first else []), *names])
        for other in found[1:]:
            node.note("backendAddressPools", f"{LEFT_OUT} ({other}): a rule has one pool")
        return found[0] if found else None


class NatGateways:
    """What the files have of them."""

    def __init__(self, inventory: Inventory, network: Network, public_ips: PublicIPs) -> None:
        self.entries: list[Entry] = []
        for resource in inventory.of(NAT_GATEWAYS):
            node = resource.node
            addresses = [
                name
                for reference in node.references("publicIPAddresses")
                if (target := reference.name("publicIPAddresses")) is not None
                and (name := public_ips.named(target, node, "publicIPAddresses")) is not None
            ]
            subnets = list(network.nat_gateways.get(resource.name.casefold(), []))
            for reference in node.references("subnets"):
                entry = network.subnets.get((reference.name("subnets") or "").casefold())
                if entry is None or not network.has(reference.name("virtualNetworks")):
                    node.note("subnets", f"{LEFT_OUT}: {reference} is not in the configuration")
                else:
                    subnets.append(str(entry["name"]))
            idle = node.number("idleTimeoutInMinutes")
            node.name_leftovers()
            if not addresses:
                node.note("publicIPAddresses", f"{LEFT_OUT}: a NAT gateway has public IP addresses")
                continue
            self.entries.append(
                Entry(
                    name=resource.name,
                    publicIPAddresses=addresses,
                    subnets=distinct(subnets),
                    idleTimeoutInMinutes=unlike(idle, IDLE_MINUTES),
                )
            )


def _probe(node: Node) -> Entry | None:
    name = node.text("name")
    if name is None:
        return None
    protocol = _protocol(node)
    return Entry(
        name=name,
        protocol=protocol,
        port=node.number("port"),
        requestPath=node.text("requestPath"),
        intervalInSeconds=unlike(node.number("intervalInSeconds"), PROBE_INTERVAL),
        numberOfProbes=node.number("numberOfProbes"),
        probeThreshold=node.number("probeThreshold"),
        noHealthyBackendsBehavior=unlike(node.text("noHealthyBackendsBehavior"), "AllProbedDown"),
    )


def _timing(node: Node) -> dict[str, object]:
    """What load balancing rules and inbound NAT rules have alike."""
    return {
        "idleTimeoutInMinutes": unlike(node.number("idleTimeoutInMinutes"), IDLE_MINUTES),
        "enableFloatingIP": unlike(node.boolean("enableFloatingIP"), False),
        "enableTcpReset": unlike(node.boolean("enableTcpReset"), False),
    }


def _protocol(node: Node) -> str | None:
    word = node.text("protocol")
    return None if word is None else _PROTOCOLS.get(word.casefold(), word)


def _one(node: Node, key: str, kind: str, names: dict[str, str]) -> str | None:
    inner = node.node(key)
    return None if inner is None else _own(inner, kind, names)


def _own(node: Node, kind: str, names: dict[str, str]) -> str | None:
    """The name of a part of this load balancer that a reference leads to."""
    reference = node.target()
    if reference is None:
        return None
    name = names.get((reference.name(kind) or "").casefold())
    if name is None:
        node.note("", f"{LEFT_OUT}: {reference} is not carried over")
    return name


def _each(nodes: Iterable[Node], read: Callable[[Node], Entry | None]) -> list[Entry]:
    entries = (read(node) for node in nodes)
    return [entry for entry in entries if entry is not None]


def _names(entries: Iterable[Entry]) -> dict[str, str]:
    return {str(entry["name"]).casefold(): str(entry["name"]) for entry in entries}
