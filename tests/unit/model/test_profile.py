"""The profiles' tables against Azure's published figures."""

from __future__ import annotations

import pytest

from gateway.model import PROFILES, DestinationScope, Method
from gateway.model.profile import AZURE_2017, AZURE_CURRENT


@pytest.mark.parametrize(
    ("pool", "ports"),
    [
        (1, 1024), (50, 1024),
        (51, 512), (100, 512),
        (101, 256), (200, 256),
        (201, 128), (400, 128),
        (401, 64), (800, 64),
        (801, 32), (1000, 32),
        (1001, 32), (5000, 32),
    ],
)  # fmt: skip
def test_ports_by_pool_size(pool: int, ports: int) -> None:
    assert AZURE_2017.ports_per_vm(pool) == ports


def test_a_public_ip_has_64000_ports_in_whole_units() -> None:
    assert AZURE_2017.snat_port_count == 64_000
    assert AZURE_2017.first_snat_port % AZURE_2017.port_unit == 0


def test_destination_is_an_address_for_both_protocols() -> None:
    assert AZURE_2017.tcp_destination is DestinationScope.ADDRESS
    assert AZURE_2017.udp_destination is DestinationScope.ADDRESS


def test_an_instance_level_public_ip_wins_and_default_snat_is_last() -> None:
    assert AZURE_2017.method_order == (
        Method.INSTANCE_LEVEL_PUBLIC_IP,
        Method.LOAD_BALANCER,
        Method.DEFAULT_OUTBOUND_ACCESS,
    )


def test_both_profiles_are_offered_under_their_names() -> None:
    assert {name: profile.name for name, profile in PROFILES.items()} == {
        "azure-2017": "azure-2017",
        "azure-current": "azure-current",
    }


def test_what_changed_since_2017() -> None:
    """docs/fidelity.md A1, the right column."""
    now = AZURE_CURRENT
    assert now.tcp_destination is DestinationScope.ADDRESS_AND_PORT
    assert now.udp_destination is DestinationScope.ADDRESS
    assert now.method_order == (
        Method.NAT_GATEWAY,
        Method.INSTANCE_LEVEL_PUBLIC_IP,
        Method.OUTBOUND_RULE,
        Method.LOAD_BALANCER,
        Method.DEFAULT_OUTBOUND_ACCESS,
    )
    assert now.ports_of_several_frontends == 1024
    assert now.nat_gateway is not None
    assert (now.nat_gateway.port_count, now.nat_gateway.maximum_addresses) == (64_512, 16)
