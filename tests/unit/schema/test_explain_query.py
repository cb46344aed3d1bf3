"""What explain may be asked, and what is said about the rest."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from gateway.schema.explain_query import ExplainQuery
from gateway.schema.queries import QueryError


def test_outbound() -> None:
    assert ExplainQuery.parse({"vm": "vm1", "to": "198.51.100.7:443/TCP"}) == ExplainQuery(
        "Tcp", IPv4Address("198.51.100.7"), 443, vm="vm1"
    )
    ping = ExplainQuery.parse({"vm": "vm1", "to": "198.51.100.1/icmp", "fromPort": "7"})
    assert (ping.protocol, ping.to_port, ping.from_port) == ("Icmp", 0, 7)


def test_inbound() -> None:
    query = ExplainQuery.parse(
        {"inbound": "1", "from": "198.51.100.7:50000", "to": "203.0.113.30:53/udp"}
    )
    assert query == ExplainQuery(
        "Udp",
        IPv4Address("203.0.113.30"),
        53,
        remote=IPv4Address("198.51.100.7"),
        remote_port=50000,
    )
    ping = ExplainQuery.parse({"inbound": "1", "from": "198.51.100.7", "to": "203.0.113.30/icmp"})
    assert (ping.remote, ping.remote_port) == (IPv4Address("198.51.100.7"), 0)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, ["vm", "to"]),
        ({"inbound": "1"}, ["from", "to"]),
        ({"inbound": "yes"}, ["inbound"]),
        ({"vm": "vm1", "to": "198.51.100.7:443"}, ["to"]),
        ({"vm": "vm1", "to": "198.51.100.7/tcp"}, ["to"]),
        ({"vm": "vm1", "to": "198.51.100.7:1/icmp"}, ["to"]),
        ({"vm": "vm1", "to": "198.51.100.7:65536/udp"}, ["to"]),
        ({"vm": "vm1", "to": "198.51.100.300:1/udp"}, ["to"]),
        ({"vm": "vm1", "to": "198.51.100.7:443/sctp"}, ["to"]),
        ({"vm": "vm1", "to": "::1:443/tcp", "fromPort": "-1"}, ["to", "fromPort"]),
        ({"vm": "vm1", "to": "198.51.100.7:443/tcp", "from": "198.51.100.7:1"}, ["from"]),
        (
            {"inbound": "1", "vm": "vm1", "from": "198.51.100.7", "to": "203.0.113.30:22/tcp"},
            ["vm", "from"],
        ),
        ({"vm": "v" * 257, "to": "198.51.100.7:443/tcp"}, ["vm"]),
        ({"vm": "vm1", "to": "198.51.100.7:443/tcp", "port": "1"}, ["port"]),
    ],
)
def test_every_problem_is_a_line_that_begins_with_its_parameter(
    values: dict[str, str], names: list[str]
) -> None:
    with pytest.raises(QueryError) as refused:
        ExplainQuery.parse(values)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == names
