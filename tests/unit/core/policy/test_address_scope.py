"""The Internet tag's edges (docs/fidelity.md A10)."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from gateway.core.policy.address_scope import AddressScope, Prefixes

SCOPE = AddressScope(
    [IPv4Network("10.0.0.0/16"), IPv4Network("52.0.0.0/24")],
    [IPv4Network("10.0.1.0/24")],
    [IPv4Network("192.168.1.0/24"), IPv4Network("10.0.0.0/8")],
)


@pytest.mark.parametrize(
    ("address", "internet"),
    [
        ("0.255.255.255", False),
        ("1.0.0.0", True),
        ("9.255.255.255", True),
        ("10.0.255.255", False),  # the virtual network, also where added
        ("10.1.0.0", True),  # added
        ("11.0.0.0", True),
        ("52.0.0.9", False),  # public, but the virtual network's
        ("52.0.1.0", True),
        ("100.63.255.255", True),
        ("100.64.0.0", False),
        ("100.128.0.0", True),
        ("127.0.0.1", False),
        ("168.63.129.15", True),
        ("168.63.129.16", False),
        ("169.254.169.254", False),
        ("172.15.255.255", True),
        ("172.16.0.0", False),
        ("172.32.0.0", True),
        ("192.0.2.1", True),  # documentation and benchmark ranges count as internet
        ("192.168.0.255", False),
        ("192.168.1.0", True),  # added
        ("192.168.2.0", False),
        ("198.18.0.1", True),
        ("223.255.255.255", True),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
    ],
)
def test_internet(address: str, internet: bool) -> None:
    assert SCOPE.is_internet(IPv4Address(address).packed) is internet


def test_overlapping_and_touching_prefixes() -> None:
    prefixes = Prefixes(map(IPv4Network, ["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8", "0.0.0.0/32"]))
    for address, inside in (("10.1.2.3", True), ("11.255.255.255", True), ("12.0.0.0", False)):
        assert (IPv4Address(address).packed in prefixes) is inside
    assert IPv4Address("0.0.0.0").packed in prefixes
    assert IPv4Address("10.0.0.1").packed not in Prefixes([])
    assert IPv4Address("255.255.255.255").packed in Prefixes([IPv4Network("0.0.0.0/0")])
