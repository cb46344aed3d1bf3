"""Outbound rules and NAT gateways that Azure would reject; VMs left without outbound connectivity.

Where Azure has an error code for it, the message ends with that.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.model.configuration import Configuration, LoadBalancer
from gateway.model.problems import Location, dotted
from gateway.model.profile import PROFILES, NatGatewayTerms
from gateway.model.reading.validate import Mistake, RemovedParts
from gateway.model.resolved.outbound_methods import rule_protocols

MUST_DISABLE_SNAT = (
    "LoadBalancingRuleMustDisableSNATSinceSameFrontendIPConfigurationIsReferencedByOutboundRule"
)


def check(configuration: Configuration, cuts: RemovedParts) -> Iterator[Mistake]:
    """Rules that contradict each other, and subnets with two NAT gateways."""
    profile = PROFILES.get(configuration.gateway.profile)
    if profile is None or profile.nat_gateway is None:
        return  # unsupported.py rejects all of these
    for index, balancer in enumerate(configuration.load_balancers):
        if balancer.sku != "Standard":
            continue
        place: Location = ("loadBalancers", index)
        yield from _snat_twice(balancer, place)
        yield from _same_ports_twice(balancer, place)
        if not cuts.words & {"outboundRules", "backendAddressPool", "backendAddressPools"}:
            yield from _no_snat_at_all(balancer, place)
    yield from _nat_gateways(configuration, profile.nat_gateway, cuts)
    yield from _default_outbound(configuration, cuts)


def _snat_twice(balancer: LoadBalancer, place: Location) -> Iterator[Mistake]:
    """A frontend's SNAT is an outbound rule's, or load balancing rules'; never both."""
    ruled = {
        frontend: outbound.name
        for outbound in balancer.outbound_rules
        for frontend in outbound.frontend_ip_configurations
    }
    for index, rule in enumerate(balancer.load_balancing_rules):
        frontend = rule.frontend_ip_configuration
        if frontend in ruled and not rule.disable_outbound_snat:
            message = (
                f"outbound rule {ruled[frontend]} has the same frontend {frontend}; allowed: "
                f"disableOutboundSnat: true ({MUST_DISABLE_SNAT})"
            )
            here = (*place, "loadBalancingRules", index, "disableOutboundSnat")
            yield Mistake(here, message, False)


def _same_ports_twice(balancer: LoadBalancer, place: Location) -> Iterator[Mistake]:
    """On a frontend, for a protocol, a VM has its ports by one outbound rule."""
    pools = {pool.name: pool.virtual_machines for pool in balancer.backend_address_pools}
    first: dict[tuple[str, str, str], int] = {}
    for index, outbound in enumerate(balancer.outbound_rules):
        reported = False
        for frontend in outbound.frontend_ip_configurations:
            for protocol in rule_protocols(outbound.protocol):
                for vm in pools.get(outbound.backend_address_pool, ()):
                    before = first.setdefault((frontend, protocol, vm), index)
                    if before == index or reported:
                        continue
                    reported = True
                    other = dotted((*place, "outboundRules", before))
                    message = (
                        f"VM {vm} has its {protocol} ports on {frontend} by {other} already; "
                        "allowed: one outbound rule for a frontend, protocol and VM"
                    )
                    here = (*place, "outboundRules", index, "backendAddressPool")
                    yield Mistake(here, message, outbound.backend_address_pool)


def _no_snat_at_all(balancer: LoadBalancer, place: Location) -> Iterator[Mistake]:
    """disableOutboundSnat, and nothing in its place: no outbound connections by this balancer."""
    served = {
        (outbound.backend_address_pool, protocol)
        for outbound in balancer.outbound_rules
        for protocol in rule_protocols(outbound.protocol)
    } | {
        (rule.backend_address_pool, rule.protocol)
        for rule in balancer.load_balancing_rules
        if not rule.disable_outbound_snat
    }
    for index, rule in enumerate(balancer.load_balancing_rules):
        pool = rule.backend_address_pool
        if rule.disable_outbound_snat and (pool, rule.protocol) not in served:
            message = (
                f"no outbound rule is there for {rule.protocol} of {pool}: unless its VMs have a "
                "NAT gateway or public IP addresses of their own, they have no outbound "
                "connectivity"
            )
            here = (*place, "loadBalancingRules", index, "disableOutboundSnat")
            yield Mistake(here, message, True, warning=True)


def _nat_gateways(
    configuration: Configuration, terms: NatGatewayTerms, cuts: RemovedParts
) -> Iterator[Mistake]:
    first: dict[str, int] = {}
    for index, gateway in enumerate(configuration.nat_gateways):
        place: Location = ("natGateways", index)
        count = len(gateway.public_ip_addresses)
        if count > terms.maximum_addresses:
            message = f"{count} public IP addresses; allowed: at most {terms.maximum_addresses}"
            yield Mistake((*place, "publicIPAddresses"), message)
        if not gateway.subnets and "subnets" not in cuts.words:
            message = "no subnet: nothing goes out by this NAT gateway"
            yield Mistake((*place, "subnets"), message, warning=True)
        for number, subnet in enumerate(gateway.subnets):
            before = first.setdefault(subnet, index)
            here = (*place, "subnets", number)
            if before != index:
                message = f"subnet already has natGateways[{before}]; allowed: one NAT gateway"
                yield Mistake(here, message, subnet)
            elif subnet in gateway.subnets[:number]:
                yield Mistake(here, "subnet named twice", subnet)
    behind = {name for gateway in configuration.nat_gateways for name in gateway.subnets}
    yield from _basic_beside_nat_gateway(configuration, behind)


def _basic_beside_nat_gateway(configuration: Configuration, behind: set[str]) -> Iterator[Mistake]:
    """Azure rejects Basic load balancers in a NAT gateway's subnet ("NAT gateway resource")."""
    subnet_of = {
        machine.name: configuration.subnet_of(machine.private_ip_address)
        for machine in configuration.virtual_machines
    }
    for index, balancer in enumerate(configuration.load_balancers):
        if balancer.sku != "Basic":
            continue
        for number, pool in enumerate(balancer.backend_address_pools):
            for position, vm in enumerate(pool.virtual_machines):
                subnet = subnet_of.get(vm)
                if subnet is not None and subnet.name in behind:
                    message = (
                        f"subnet {subnet.name} has a NAT gateway, beside which Azure allows no "
                        "Basic load balancer; allowed: sku: Standard"
                    )
                    here = ("loadBalancers", index, "backendAddressPools", number)
                    yield Mistake((*here, "virtualMachines", position), message, vm)


def _default_outbound(configuration: Configuration, cuts: RemovedParts) -> Iterator[Mistake]:
    """Addresses for default outbound access that no subnet allows, or the reverse."""
    addresses = configuration.default_outbound_access.public_ip_addresses
    allowed = [s.default_outbound_access is True for s in configuration.virtual_network.subnets]
    if addresses and not any(allowed) and not cuts.words & {"subnets", "virtualNetwork"}:
        message = "no subnet has defaultOutboundAccess: true, so that no VM goes out by these"
        yield Mistake(("defaultOutboundAccess", "publicIPAddresses"), message, warning=True)
    if not addresses and not cuts.words & {"defaultOutboundAccess", "publicIPAddresses"}:
        for index, asks in enumerate(allowed):
            if asks:
                message = "defaultOutboundAccess.publicIPAddresses is empty: there is no such way"
                here = ("virtualNetwork", "subnets", index, "defaultOutboundAccess")
                yield Mistake(here, message, True, warning=True)
