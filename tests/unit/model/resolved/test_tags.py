"""Azure's three tags: what they stand for in a configuration, and at their edges."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from gateway.model.resolved.intervals import Intervals
from gateway.model.resolved.tags import (
    AZURE_LOAD_BALANCER,
    BUILT_IN,
    INTERNET,
    VIRTUAL_NETWORK,
    built_in,
    by_folded,
)
from tests.unit.model.files import MINIMAL, changed, configuration

TAGS = built_in(configuration(MINIMAL))


def within(address: str, intervals: Intervals) -> bool:
    number = int(IPv4Address(address))
    return any(first <= number <= last for first, last in intervals)


@pytest.mark.parametrize(
    ("address", "tags"),
    [
        ("10.0.0.0", {VIRTUAL_NETWORK}),
        ("10.0.255.255", {VIRTUAL_NETWORK}),
        ("10.1.0.0", set()),  # private, and not here
        ("9.255.255.255", {INTERNET}),
        ("11.0.0.0", {INTERNET}),
        ("168.63.129.16", {VIRTUAL_NETWORK, AZURE_LOAD_BALANCER}),
        ("168.63.129.17", {INTERNET}),
        ("172.15.255.255", {INTERNET}),
        ("172.16.0.0", set()),
        ("172.31.255.255", set()),
        ("100.64.0.1", set()),
        ("100.128.0.0", {INTERNET}),
        ("169.254.169.254", set()),
        ("127.0.0.1", set()),
        ("224.0.0.1", set()),
        ("255.255.255.255", set()),
        ("198.51.100.1", {INTERNET}),  # of documentation: a lab's internet
    ],
)
def test_which_tags_an_address_is_in(address: str, tags: set[str]) -> None:
    assert {tag for tag in BUILT_IN if within(address, TAGS[tag])} == tags


def test_a_configuration_can_add_to_the_internet_and_not_take_of_its_own_network() -> None:
    text = changed(
        "outside: wan0", "outside: wan0\n  internetAddressPrefixes: [10.0.0.0/8]", MINIMAL
    )
    internet = built_in(configuration(text))[INTERNET]
    assert within("10.1.0.0", internet)
    assert not within("10.0.1.4", internet)


def test_capitals_make_no_difference_in_names() -> None:
    assert by_folded(["VirtualNetwork", "Storage.WestEurope"])["storage.westeurope"] == (
        "Storage.WestEurope"
    )
