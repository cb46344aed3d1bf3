"""Groups resolved: against intervals worked out by hand, and against sets for any rule."""

from __future__ import annotations

import itertools
import json
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.policy.address_scope import AddressScope
from gateway.model import Configuration
from gateway.model.resolved.intervals import (
    EVERY_ADDRESS,
    EVERY_PORT,
    Interval,
    prefixes,
    subtract,
    union,
)
from gateway.model.resolved.security_rules import Expanded, ResolvedRule, resolve_groups
from gateway.model.resolved.tags import built_in
from tests.unit.model.groups import grouped, rule


def resolved(**changes: Any) -> ResolvedRule:
    """The good rule with these changes, resolved in the good configuration."""
    configuration = Configuration.model_validate(grouped(rule(**changes)))
    (found,) = (r for r in resolve_groups(configuration)["n"].rules if not r.default)
    return found


def of(*texts: str) -> tuple[Interval, ...]:
    """Intervals from ``first-last`` in dotted notation."""
    ends = [[int(IPv4Address(end)) for end in text.split("-")] for text in texts]
    return tuple((pair[0], pair[-1]) for pair in ends)


VIRTUAL_NETWORK = of("10.0.0.0-10.0.255.255", "168.63.129.16", "172.20.0.0-172.20.0.255")
INTERNET = of(
    "1.0.0.0-9.255.255.255",
    "11.0.0.0-100.63.255.255",
    "100.128.0.0-126.255.255.255",
    "128.0.0.0-168.63.129.15",
    "168.63.129.17-169.253.255.255",
    "169.255.0.0-172.15.255.255",
    "172.32.0.0-192.167.255.255",
    "192.169.0.0-223.255.255.255",
)
SIDES = {
    "everything": ({"AddressPrefix": "*"}, EVERY_ADDRESS, ("*",), None),
    "every prefix": ({"AddressPrefix": "0.0.0.0/0"}, EVERY_ADDRESS, ("0.0.0.0/0",), None),
    "an address": ({"AddressPrefix": "10.0.0.9"}, of("10.0.0.9"), ("10.0.0.9",), None),
    "a prefix": (
        {"AddressPrefix": "10.8.0.0/13"},
        of("10.8.0.0-10.15.255.255"),
        ("10.8.0.0/13",),
        None,
    ),
    "prefixes that touch and overlap": (
        {"AddressPrefixes": ["10.0.1.0/24", "10.0.0.0/24", "10.0.0.128/25", "9.9.9.9"]},
        of("9.9.9.9", "10.0.0.0-10.0.1.255"),
        ("10.0.1.0/24", "10.0.0.0/24", "10.0.0.128/25", "9.9.9.9"),
        None,
    ),
    "the virtual network": (
        {"AddressPrefix": "virtualnetwork"},
        VIRTUAL_NETWORK,
        ("VirtualNetwork",),
        ("10.0.0.0/16", "168.63.129.16/32", "172.20.0.0/24"),
    ),
    "probes": (
        {"AddressPrefix": "AZURELOADBALANCER"},
        of("168.63.129.16"),
        ("AzureLoadBalancer",),
        ("168.63.129.16/32",),
    ),
    "a tag of one's own": (
        {"AddressPrefix": "partner"},
        of("198.51.100.0-198.51.100.255"),
        ("Partner",),
        ("198.51.100.0/24",),
    ),
    "a tag and an address": (
        {"AddressPrefixes": ["10.9.9.9", "Partner"]},
        of("10.9.9.9", "198.51.100.0-198.51.100.255"),
        ("10.9.9.9", "Partner"),
        ("198.51.100.0/24",),
    ),
    "application groups": (
        {"ApplicationSecurityGroups": ["web", "all"]},
        of("10.0.1.4-10.0.1.5", "10.0.2.9"),
        ("web", "all"),
        ("10.0.1.4/31", "10.0.2.9/32"),
    ),
    "an empty application group": (
        {"ApplicationSecurityGroups": ["empty"]},
        (),
        ("empty",),
        (),
    ),
}


@pytest.mark.parametrize(("keys", "addresses", "text", "expanded"), SIDES.values(), ids=SIDES)
def test_what_a_side_stands_for(
    keys: dict[str, Any],
    addresses: tuple[Interval, ...],
    text: tuple[str, ...],
    expanded: tuple[str, ...] | None,
) -> None:
    none = {"sourceAddressPrefix": None, "destinationAddressPrefix": "*"}
    source = resolved(**none | {f"source{key}": value for key, value in keys.items()})
    assert (source.sources, source.source_text) == (addresses, text)
    assert source.expanded == (None if expanded is None else Expanded(expanded, None))
    none = {"destinationAddressPrefix": None}
    other = resolved(**none | {f"destination{key}": value for key, value in keys.items()})
    assert (other.destinations, other.destination_text) == (addresses, text)
    assert other.expanded == (None if expanded is None else Expanded(None, expanded))


def test_internet_is_what_is_public() -> None:
    found = resolved(destinationAddressPrefix="INTERNET")
    assert found.destinations == INTERNET
    assert found.destination_text == ("Internet",)
    # as Azure's own expansion begins
    assert found.expanded is not None
    assert found.expanded.destination is not None
    assert found.expanded.destination[:6] == (
        "1.0.0.0/8", "2.0.0.0/7", "4.0.0.0/6", "8.0.0.0/7", "11.0.0.0/8", "12.0.0.0/6",
    )  # fmt: skip


def test_a_private_address_elsewhere_is_in_no_tag() -> None:
    tags = built_in(Configuration.model_validate(grouped()))
    address = int(IPv4Address("172.31.0.100"))
    assert not any(a <= address <= b for tag in tags.values() for a, b in tag)


PORTS = {
    "*": (("*",), EVERY_PORT),
    25: (("25",), ((25, 25),)),
    "0-65535": (("0-65535",), EVERY_PORT),
    "8000-8100": (("8000-8100",), ((8000, 8100),)),
}


@pytest.mark.parametrize(("value", "expected"), PORTS.items())
def test_ports(value: object, expected: tuple[tuple[str, ...], tuple[Interval, ...]]) -> None:
    found = resolved(sourcePortRange=value, destinationPortRange=value)
    assert (found.source_port_text, found.source_ports) == expected
    assert (found.destination_port_text, found.destination_ports) == expected
    found = resolved(
        sourcePortRange=None, sourcePortRanges=[value],
        destinationPortRange="", destinationPortRanges=[value],
    )  # fmt: skip
    assert (found.source_port_text, found.source_ports) == expected
    assert (found.destination_port_text, found.destination_ports) == expected


def test_a_port_list() -> None:
    found = resolved(destinationPortRange=None, destinationPortRanges=["443", 80, "81-90", "85"])
    assert found.destination_ports == ((80, 90), (443, 443))
    assert found.destination_port_text == ("443", "80", "81-90", "85")


def test_capitals_become_azures() -> None:
    found = resolved(direction="outbound", access="DENY", protocol="TCP")
    assert (found.direction, found.access, found.protocol) == ("Outbound", "Deny", "Tcp")
    assert resolved(protocol="*").protocol == "*"


def test_every_group_has_the_default_rules_last_in_each_direction() -> None:
    rules = [
        rule(name="second", priority=200),
        rule(name="in", priority=4096, direction="Inbound", access="Allow"),
        rule(name="first", priority=100),
    ]
    data = grouped(*rules)
    data["networkSecurityGroups"] += [{"name": "bare", "flushConnection": True}]
    groups = resolve_groups(Configuration.model_validate(data))
    found = [(r.name, r.priority, r.direction, r.access, r.default) for r in groups["n"].rules]
    assert found == [
        ("in", 4096, "Inbound", "Allow", False),
        ("AllowVnetInBound", 65000, "Inbound", "Allow", True),
        ("AllowAzureLoadBalancerInBound", 65001, "Inbound", "Allow", True),
        ("DenyAllInBound", 65500, "Inbound", "Deny", True),
        ("first", 100, "Outbound", "Deny", False),
        ("second", 200, "Outbound", "Deny", False),
        ("AllowVnetOutBound", 65000, "Outbound", "Allow", True),
        ("AllowInternetOutBound", 65001, "Outbound", "Allow", True),
        ("DenyAllOutBound", 65500, "Outbound", "Deny", True),
    ]
    assert not groups["n"].flush_connection
    assert groups["bare"].flush_connection
    defaults = groups["bare"].rules
    assert [(r.source_text, r.destination_text) for r in defaults] == [
        (("VirtualNetwork",), ("VirtualNetwork",)),
        (("AzureLoadBalancer",), ("*",)),
        (("*",), ("*",)),
        (("VirtualNetwork",), ("VirtualNetwork",)),
        (("*",), ("Internet",)),
        (("*",), ("*",)),
    ]
    assert [(r.sources, r.destinations) for r in defaults] == [
        (VIRTUAL_NETWORK, VIRTUAL_NETWORK),
        (of("168.63.129.16"), EVERY_ADDRESS),
        (EVERY_ADDRESS, EVERY_ADDRESS),
        (VIRTUAL_NETWORK, VIRTUAL_NETWORK),
        (EVERY_ADDRESS, INTERNET),
        (EVERY_ADDRESS, EVERY_ADDRESS),
    ]
    for default in defaults:
        assert default.protocol == "*"
        assert default.source_ports == default.destination_ports == EVERY_PORT
        assert default.source_port_text == default.destination_port_text == ("*",)


def test_a_tag_that_was_not_loaded_is_not_nothing() -> None:
    with pytest.raises(ValueError, match="service tag Storage has no prefixes"):
        resolved(destinationAddressPrefix="Storage")


def test_rules_survive_the_way_through_json() -> None:
    first = Configuration.model_validate(grouped(rule(destinationAddressPrefix="Partner")))
    again = Configuration.model_validate_json(first.to_json())
    assert again == first
    assert resolve_groups(again) == resolve_groups(first)
    assert json.loads(first.to_json())["networkSecurityGroups"][0]["securityRules"][0]["name"]


NETWORKS = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
NEAR = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False),
    st.integers(0x0A000000, 0x0A0000FF),
    st.integers(26, 32),
)


@given(st.lists(NETWORKS | NEAR, min_size=1, max_size=12))
def test_a_side_is_the_union_of_its_prefixes(networks: list[IPv4Network]) -> None:
    texts = [str(n) if n.prefixlen < 32 else str(n.network_address) for n in networks]
    found = resolved(sourceAddressPrefix=None, sourceAddressPrefixes=texts).sources
    edges = {int(n.network_address) for n in networks} | {
        int(n.broadcast_address) for n in networks
    }
    for address in {e + d for e in edges for d in (-1, 0, 1)} & set(range_of_addresses(edges)):
        inside = any(IPv4Address(address) in network for network in networks)
        assert any(first <= address <= last for first, last in found) == inside
    assert_canonical(found)
    assert [IPv4Network(text) for text in prefixes(found)] == sorted(collapse_addresses(networks))


def range_of_addresses(edges: set[int]) -> list[int]:
    return [e + d for e in edges for d in (-1, 0, 1) if 0 <= e + d < 2**32]


def assert_canonical(intervals: tuple[Interval, ...]) -> None:
    assert all(first <= last for first, last in intervals)
    pairs = itertools.pairwise(intervals)
    assert all(before[1] + 1 < after[0] for before, after in pairs)


SMALL = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda t: (t[0], t[0] + t[1])), max_size=8
)


def members(intervals: tuple[Interval, ...] | list[Interval]) -> set[int]:
    return {number for first, last in intervals for number in range(first, last + 1)}


@given(SMALL, SMALL)
def test_intervals_are_sets(one: list[Interval], other: list[Interval]) -> None:
    assert members(union(one)) == members(one)
    rest = subtract(union(one), union(other))
    assert members(rest) == members(one) - members(other)
    assert_canonical(union(one))
    assert_canonical(rest)


@given(st.lists(NETWORKS, max_size=3), st.data())
def test_what_a_rule_calls_internet_is_what_is_translated(
    added: list[IPv4Network], data: st.DataObject
) -> None:
    text = grouped()
    text["gateway"] = text["gateway"] | {"internetAddressPrefixes": [str(n) for n in added]}
    configuration = Configuration.model_validate(text)
    network = configuration.virtual_network.address_prefixes
    scope = AddressScope(network, network, configuration.gateway.internet_address_prefixes)
    internet = built_in(configuration)["Internet"]
    edges = {edge for pair in internet for edge in pair} | {0, 2**32 - 1}
    for address in {data.draw(st.integers(0, 2**32 - 1)), *range_of_addresses(edges)}:
        inside = any(first <= address <= last for first, last in internet)
        assert inside == scope.is_internet(address.to_bytes(4, "big"))
