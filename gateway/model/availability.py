"""What a configuration asks for that this version, or its profile, does not carry out.

Refused, never ignored: a test that passes because a rule was silently left out proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.model.configuration import Configuration, LoadBalancer
from gateway.model.problems import Location, did_you_mean
from gateway.model.profile import AZURE_2017, PROFILES, UNAVAILABLE_PROFILES
from gateway.model.validation import Mistake

LATER_PROFILE = "needs profile azure-current, which this version does not have"

FLOATING_IP = (
    "floating IP is not available in this version: the backend gets packets for its own address; "
    "allowed: false"
)


def check(configuration: Configuration) -> Iterator[Mistake]:
    """Everything that is asked for and not available."""
    yield from _gateway(configuration)
    for index, subnet in enumerate(configuration.virtual_network.subnets):
        if subnet.default_outbound_access is not None:
            place = ("virtualNetwork", "subnets", index, "defaultOutboundAccess")
            yield Mistake(place, f"a subnet's switch {LATER_PROFILE}; leave it out")
    if configuration.nat_gateways:
        yield Mistake(("natGateways",), f"a NAT gateway {LATER_PROFILE}")
    for index, balancer in enumerate(configuration.load_balancers):
        yield from _later_balancer(balancer, ("loadBalancers", index))


def _gateway(configuration: Configuration) -> Iterator[Mistake]:
    gateway = configuration.gateway
    if gateway.profile not in PROFILES:
        known = [*PROFILES, *UNAVAILABLE_PROFILES]
        what = "not available in this version" if gateway.profile in known else "no such profile"
        hint = "" if gateway.profile in known else did_you_mean(gateway.profile, PROFILES)
        message = f"{what}; allowed: {', '.join(PROFILES)}{hint}"
        yield Mistake(("gateway", "profile"), message, gateway.profile)
    listener = gateway.http_endpoint
    if listener is not None and not listener.is_loopback:
        message = (
            "not a loopback address: others on the network reach the dashboard, by its token, and "
            "HTTP encrypts neither"
        )
        yield Mistake(("gateway", "http"), message, gateway.http, warning=True)


def _later_balancer(balancer: LoadBalancer, place: Location) -> Iterator[Mistake]:
    """What load balancers learnt after 2017."""
    if balancer.sku != "Basic":
        message = f"{LATER_PROFILE}; allowed in {AZURE_2017.name}: Basic"
        yield Mistake((*place, "sku"), message, balancer.sku)
    if balancer.outbound_rules:
        yield Mistake((*place, "outboundRules"), f"an outbound rule {LATER_PROFILE}")
    for index, probe in enumerate(balancer.probes):
        if probe.protocol == "Https":
            message = f"an Https probe {LATER_PROFILE}; allowed in {AZURE_2017.name}: Tcp, Http"
            yield Mistake((*place, "probes", index, "protocol"), message, probe.protocol)
    for index, rule in enumerate(balancer.load_balancing_rules):
        here = (*place, "loadBalancingRules", index)
        if rule.protocol == "All":
            message = "all ports at once is for internal Standard load balancers; allowed: Tcp, Udp"
            yield Mistake((*here, "protocol"), message, rule.protocol)
        if rule.disable_outbound_snat:
            yield Mistake((*here, "disableOutboundSnat"), LATER_PROFILE, True)
        if rule.enable_tcp_reset:
            yield Mistake((*here, "enableTcpReset"), LATER_PROFILE, True)
        if rule.enable_floating_ip:
            yield Mistake((*here, "enableFloatingIP"), FLOATING_IP, True)
    for index, nat_rule in enumerate(balancer.inbound_nat_rules):
        here = (*place, "inboundNatRules", index)
        if nat_rule.enable_tcp_reset:
            yield Mistake((*here, "enableTcpReset"), LATER_PROFILE, True)
        if nat_rule.enable_floating_ip:
            yield Mistake((*here, "enableFloatingIP"), FLOATING_IP, True)
