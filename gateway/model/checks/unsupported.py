"""What a configuration asks for that this version, or its profile, does not carry out.

Rejected, never ignored: a test that passes because a rule was silently left out proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.model.configuration import Configuration, LoadBalancer
from gateway.model.problems import Location, did_you_mean
from gateway.model.profile import AZURE_2017, PROFILES
from gateway.model.reading.validate import Mistake, RemovedParts

LATER_PROFILE = "needs gateway.profile: azure-current"
STANDARD = "is for Standard load balancers; allowed with sku: Standard"
RETIRED = (
    "Azure retired Basic load balancers on 30 September 2025; this one gets SNAT as a Standard one "
    "does, but no outbound rule and no TCP reset; to have these: sku: Standard"
)
FLOATING_IP = (
    "floating IP is not available in this version: the backend gets packets for its own address; "
    "allowed: false"
)


def check(configuration: Configuration, cuts: RemovedParts) -> Iterator[Mistake]:
    """Everything that is asked for and not available."""
    yield from _gateway(configuration)
    if cuts.words & {"gateway", "profile"}:
        return  # the profile is unknown
    later = configuration.gateway.profile == AZURE_2017.name
    if later:
        yield from _later_resources(configuration)
    for index, balancer in enumerate(configuration.load_balancers):
        place: Location = ("loadBalancers", index)
        yield from _not_here(balancer, place)
        if later:
            yield from _later_balancer(balancer, place)
        elif balancer.sku == "Basic":
            yield from _basic_balancer(balancer, place)


def _gateway(configuration: Configuration) -> Iterator[Mistake]:
    gateway = configuration.gateway
    if gateway.profile not in PROFILES:
        hint = did_you_mean(gateway.profile, PROFILES)
        message = f"no such profile; allowed: {', '.join(PROFILES)}{hint}"
        yield Mistake(("gateway", "profile"), message, gateway.profile)
    listener = gateway.http_endpoint
    if listener is not None and not listener.is_loopback:
        message = (
            "not a loopback address: others on the network reach the dashboard, by its token, and "
            "HTTP encrypts neither"
        )
        yield Mistake(("gateway", "http"), message, gateway.http, warning=True)


def _not_here(balancer: LoadBalancer, place: Location) -> Iterator[Mistake]:
    """What no profile of this version has."""
    for index, rule in enumerate(balancer.load_balancing_rules):
        here = (*place, "loadBalancingRules", index)
        if rule.protocol == "All":
            message = "all ports at once is for internal Standard load balancers; allowed: Tcp, Udp"
            yield Mistake((*here, "protocol"), message, rule.protocol)
        if rule.enable_floating_ip:
            yield Mistake((*here, "enableFloatingIP"), FLOATING_IP, True)
    for index, nat_rule in enumerate(balancer.inbound_nat_rules):
        if nat_rule.enable_floating_ip:
            here = (*place, "inboundNatRules", index, "enableFloatingIP")
            yield Mistake(here, FLOATING_IP, True)


def _later_resources(configuration: Configuration) -> Iterator[Mistake]:
    """What networks learnt after 2017."""
    for index, subnet in enumerate(configuration.virtual_network.subnets):
        if subnet.default_outbound_access is not None:
            place = ("virtualNetwork", "subnets", index, "defaultOutboundAccess")
            yield Mistake(place, f"a subnet's switch {LATER_PROFILE}; or leave it out")
    if configuration.nat_gateways:
        yield Mistake(("natGateways",), f"a NAT gateway {LATER_PROFILE}")


def _later_balancer(balancer: LoadBalancer, place: Location) -> Iterator[Mistake]:
    """What load balancers learnt after 2017."""
    if balancer.sku != "Basic":
        message = f"{LATER_PROFILE}; allowed in {AZURE_2017.name}: Basic"
        yield Mistake((*place, "sku"), message, balancer.sku)
    for here, what, value in _of_standard_alone(balancer, place):
        short = f"{what} {LATER_PROFILE}" if what else LATER_PROFILE
        if here[-1] == "protocol":
            short += f"; allowed in {AZURE_2017.name}: Tcp, Http"
        yield Mistake(here, short, value)


def _basic_balancer(balancer: LoadBalancer, place: Location) -> Iterator[Mistake]:
    """A Basic load balancer, in a profile that knows Standard ones."""
    yield Mistake((*place, "sku"), RETIRED, balancer.sku, warning=True)
    for here, what, value in _of_standard_alone(balancer, place):
        yield Mistake(here, f"{what or 'this'} {STANDARD}", value)


def _of_standard_alone(
    balancer: LoadBalancer, place: Location
) -> Iterator[tuple[Location, str, object]]:
    """Where it stands, what it is (empty: the key says it), and its value."""
    if balancer.outbound_rules:
        yield (*place, "outboundRules"), "an outbound rule", None
    for index, probe in enumerate(balancer.probes):
        if probe.protocol == "Https":
            yield (*place, "probes", index, "protocol"), "an Https probe", probe.protocol
    for index, rule in enumerate(balancer.load_balancing_rules):
        here = (*place, "loadBalancingRules", index)
        if rule.disable_outbound_snat:
            yield (*here, "disableOutboundSnat"), "", True
        if rule.enable_tcp_reset:
            yield (*here, "enableTcpReset"), "", True
    for index, nat_rule in enumerate(balancer.inbound_nat_rules):
        if nat_rule.enable_tcp_reset:
            yield (*place, "inboundNatRules", index, "enableTcpReset"), "", True
