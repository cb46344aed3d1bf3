"""Protocols' numbers as IANA has them, and one name for each number."""

from __future__ import annotations

import socket

import pytest

from gateway.schema.protocols import PROTOCOL_NAMES, PROTOCOL_NUMBERS, protocol_name


@pytest.mark.parametrize("name", ["Icmp", "Tcp", "Udp", "Gre", "Esp", "Ah"])
def test_the_numbers_are_the_systems(name: str) -> None:
    assert PROTOCOL_NUMBERS[name] == getattr(socket, f"IPPROTO_{name.upper()}")


def test_names_and_numbers_are_the_same_table_both_ways() -> None:
    assert {PROTOCOL_NUMBERS[name]: name for name in PROTOCOL_NUMBERS} == PROTOCOL_NAMES
    assert PROTOCOL_NUMBERS["Sctp"] == 132
    assert all(name == name.capitalize() for name in PROTOCOL_NUMBERS)


def test_every_number_has_a_name() -> None:
    assert protocol_name(6) == "Tcp"
    assert protocol_name(99) == "Protocol99"
    assert protocol_name(0) == "Protocol0"
