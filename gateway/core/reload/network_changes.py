"""What a reload changed about the network around VMs, as sentences for an operator.

Address space, subnets, the addresses of default outbound access, idle timeouts, load balancers'
rules and probes. Compares two configurations; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from gateway.model.configuration import (
    Configuration,
    InboundNatRule,
    LoadBalancer,
    LoadBalancingRule,
    OutboundRule,
    Probe,
    Resource,
)

_SLICE = 64  # items compared between two chances to handle packets
_Listed = TypeVar("_Listed", Probe, LoadBalancingRule, InboundNatRule, OutboundRule)


def network_changes(before: Configuration, after: Configuration) -> Iterator[str | None]:
    """A sentence for each difference; None where a caller may pause."""
    old, new = before.virtual_network, after.virtual_network
    if set(old.address_prefixes) != set(new.address_prefixes):
        yield (
            f"virtual network: {_listed(old.address_prefixes)} -> {_listed(new.address_prefixes)}"
        )
    prefixes = {s.name: s.address_prefix for s in old.subnets}
    for subnet in new.subnets:
        was = prefixes.pop(subnet.name, None)
        if was is None:
            yield f"subnet {subnet.name} added: {subnet.address_prefix}"
        elif was != subnet.address_prefix:
            yield f"subnet {subnet.name}: {was} -> {subnet.address_prefix}"
    for name, prefix in prefixes.items():
        yield f"subnet {name} removed: {prefix}"

    defaults = [_default_addresses(configuration) for configuration in (before, after)]
    if set(defaults[0]) != set(defaults[1]):
        yield f"default outbound access: {_listed(defaults[0])} -> {_listed(defaults[1])}"
    timeouts = {p.name: p.idle_timeout_in_minutes for p in before.public_ip_addresses}
    for public in after.public_ip_addresses:
        minutes, now = timeouts.get(public.name), public.idle_timeout_in_minutes
        if minutes is not None and minutes != now:
            yield f"public IP {public.name}: idleTimeoutInMinutes {minutes:g} -> {now:g}, new flows"

    balancers = {balancer.name: balancer for balancer in before.load_balancers}
    for balancer in after.load_balancers:
        old_balancer = balancers.pop(balancer.name, LoadBalancer(name=balancer.name))
        yield from _balancer(old_balancer, balancer)
    for name, balancer in balancers.items():
        yield from _balancer(balancer, LoadBalancer(name=name))


def _balancer(old: LoadBalancer, new: LoadBalancer) -> Iterator[str | None]:
    head = f"load balancer {new.name}:"
    yield from _items(f"{head} rule", old.load_balancing_rules, new.load_balancing_rules)
    yield from _items(f"{head} inbound NAT rule", old.inbound_nat_rules, new.inbound_nat_rules)
    yield from _items(f"{head} outbound rule", old.outbound_rules, new.outbound_rules)
    yield from _items(f"{head} probe", old.probes, new.probes)


def _items(head: str, before: Sequence[_Listed], after: Sequence[_Listed]) -> Iterator[str | None]:
    old = {item.name: item for item in before}
    yield None
    for number, item in enumerate(after):
        if not number % _SLICE:
            yield None
        was = old.pop(item.name, None)
        if was is None:
            yield f"{head} {item.name} added"
        elif was != item:
            yield f"{head} {item.name}: {', '.join(_differences(was, item))}"
    for name in old:
        yield f"{head} {name} removed"


def _differences(old: Resource, new: Resource) -> Iterator[str]:
    for attribute, field in type(new).model_fields.items():
        was, value = getattr(old, attribute), getattr(new, attribute)
        if was != value:
            yield f"{field.alias} {_shown(was)} -> {_shown(value)}"


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return _listed(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "none"


def _default_addresses(configuration: Configuration) -> list[str]:
    names = configuration.default_outbound_access.public_ip_addresses
    return [str(configuration.public_ip(name).ip_address) for name in names]
