"""The configuration that three flags stand for passes the checks of a file, or fails them."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from gateway.daemon.start.default_configuration import NAME, document
from gateway.model.reading.load import Loaded, load_text


def loaded(*public_ips: str, **settings: Any) -> Loaded:
    found = document(
        ["lan0", "lan1"],
        "wan0",
        public_ips,
        [IPv4Network("10.0.1.0/24"), IPv4Network("192.168.0.0/16")],
        ["172.16.0.0/24", "172.16.0.0/24"],
        settings,
    )
    return load_text(json.dumps(found), NAME)


def test_everyone_inside_is_a_standalone_vm_with_default_snat() -> None:
    configuration = loaded("203.0.113.10", "203.0.113.11", timeScale=60).configuration
    assert configuration is not None
    assert configuration.gateway.inside == ("lan0", "lan1")
    assert configuration.gateway.outside == "wan0"
    assert configuration.gateway.time_scale == 60
    assert configuration.gateway.internet_address_prefixes == (IPv4Network("172.16.0.0/24"),)
    assert configuration.virtual_machines == ()
    publics = [
        configuration.public_ip(name).ip_address
        for name in configuration.default_outbound_access.public_ip_addresses
    ]
    assert publics == [IPv4Address("203.0.113.10"), IPv4Address("203.0.113.11")]
    for address in ("10.0.1.4", "192.168.7.7"):
        assert configuration.subnet_of(IPv4Address(address)) is not None


def test_flags_with_mistakes_are_refused_like_a_file() -> None:
    for public_ip in ("203.0.113", "10.0.1.7"):
        refused = loaded(public_ip)
        assert refused.configuration is None
        assert all(str(problem).startswith(NAME) for problem in refused.problems)
