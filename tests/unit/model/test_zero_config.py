"""A configuration from flags alone."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from gateway.model import Configuration, InvalidConfiguration, from_flags

LAN = IPv4Network("192.168.7.0/24")
PUBLIC = IPv4Address("203.0.113.1")


def test_every_source_is_a_standalone_vm_with_default_snat() -> None:
    built = from_flags(["lan0", "lan1"], "wan0", [PUBLIC], [LAN, IPv4Network("10.9.0.0/30")])
    assert built.gateway.inside == ("lan0", "lan1")
    assert built.virtual_network.address_prefixes == (LAN, IPv4Network("10.9.0.0/30"))
    assert [s.address_prefix for s in built.virtual_network.subnets] == [
        LAN,
        IPv4Network("10.9.0.0/30"),
    ]
    (name,) = built.default_outbound_access.public_ip_addresses
    assert built.public_ip(name).ip_address == PUBLIC
    assert built.virtual_machines == ()
    assert built.load_balancers == ()


def test_private_addresses_count_as_internet() -> None:
    built = from_flags(["lan0"], "wan0", [PUBLIC], [LAN])
    assert list(map(str, built.gateway.internet_address_prefixes)) == [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
    ]


def test_overrides_are_gateway_attributes_and_the_result_goes_through_json() -> None:
    built = from_flags(["lan0"], "wan0", [PUBLIC], [LAN], time_scale=60, state_directory="/tmp/x")
    assert built.gateway.time_scale == 60.0
    assert Configuration.model_validate_json(built.to_json()) == built


def test_every_problem_at_once_under_the_names_of_the_flags() -> None:
    own = IPv4Address("192.168.7.9")
    with pytest.raises(InvalidConfiguration) as refused:
        from_flags(["wan0"], "wan0", [PUBLIC, PUBLIC, own], [LAN, LAN])
    within = "a public IP cannot be within an inside interface's network (192.168.7.0/24)"
    assert [str(p).removeprefix("command line: ") for p in refused.value.problems] == [
        "--inside = wan0: is also --outside; allowed: another interface",
        "--inside = 192.168.7.0/24: this interface's network overlaps another's (192.168.7.0/24)",
        "--public-ip = 203.0.113.1: address named twice",
        f"--public-ip = 192.168.7.9: {within}",
    ]


def test_values_are_checked_like_those_of_a_file() -> None:
    with pytest.raises(InvalidConfiguration, match="--time-scale = 0: out of range"):
        from_flags(["lan0"], "wan0", [PUBLIC], [LAN], time_scale=0)


def test_nothing_given() -> None:
    with pytest.raises(InvalidConfiguration) as refused:
        from_flags([], "wan0", [], [])
    assert len(refused.value.problems) == 3
