"""Filters and their refusals."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.schema.queries import FlowQuery, QueryError, parse_since
from tests.unit.daemon.serving import flow

FLOWS = [
    flow(1),
    flow(2, vm="vm2", private_ip="10.0.1.5", public_ip="203.0.113.11"),
    flow(3, remote_port=80),
    flow(4, remote_ip="198.51.100.8"),
    flow(5, protocol=17, state="Opening"),
    flow(6, protocol=1, state="CoolDown"),
]


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"vm": "vm2"}, [2]),
        ({"vm": "10.0.1.5"}, [2]),
        ({"public": "203.0.113.11"}, [2]),
        ({"remote": "198.51.100.7"}, [1, 2, 3, 5, 6]),
        ({"remote": "198.51.100.7:80"}, [3]),
        ({"protocol": "uDP"}, [5]),
        ({"protocol": "Icmp"}, [6]),
        ({"state": "cooldown"}, [6]),
        ({"protocol": "Tcp", "remote": "198.51.100.8:443", "vm": "vm1"}, [4]),
        ({"vm": "vm9"}, []),
    ],
)
def test_filters(values: dict[str, str], ids: list[int]) -> None:
    query = FlowQuery.parse(values)
    assert [record.id for record in FLOWS if query.matches(record)] == ids


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"remote": "198.51.100.7:"}, "IP:PORT"),
        ({"remote": "198.51.100.7:65536"}, "IP:PORT"),
        ({"remote": "example.com"}, "IP:PORT"),
        ({"remote": "::1"}, "IP:PORT"),
        ({"public": "203.0.113"}, "IPv4"),
        ({"protocol": "Sctpp"}, "Tcp, Udp, Icmp"),
        ({"state": "Open"}, "Opening"),
        ({"sort": "bytsOut"}, "did you mean bytesOut"),
        ({"sort": "-"}, "there are id"),
        ({"limit": "0"}, "from 1"),
        ({"limit": "-3"}, "from 1"),
        ({"limit": "ten"}, "from 1"),
        ({"limit": "0" * 4000 + "1"}, "from 1"),
        ({"remote": "198.51.100.7:" + "0" * 4000 + "80"}, "IP:PORT"),
        ({"protcol": "Tcp"}, "did you mean protocol"),
    ],
)
def test_refusals_name_what_would_be_right(values: dict[str, str], word: str) -> None:
    with pytest.raises(QueryError) as caught:
        FlowQuery.parse(values)
    (problem,) = caught.value.problems
    assert word in problem


def test_all_problems_at_once() -> None:
    with pytest.raises(QueryError) as caught:
        FlowQuery.parse({"remote": "x", "limit": "x", "sort": "x", "foo": "x"})
    assert len(caught.value.problems) == 4


def test_addresses_sort_as_numbers() -> None:
    key = FlowQuery.parse({"sort": "remote"}).key
    assert key is not None
    assert key(flow(1, remote_ip="9.0.0.1")) < key(flow(1, remote_ip="10.0.0.1"))


def test_flows_sort_by_whether_the_kernel_carries_them() -> None:
    key = FlowQuery.parse({"sort": "offloaded"}).key
    assert key is not None
    assert key(flow(1)) < key(flow(2, offloaded=True))


def test_aliases_and_descending() -> None:
    query = FlowQuery.parse({"sort": "-Age"})
    assert (query.sort, query.descending) == ("ageSeconds", True)


def test_since() -> None:
    now = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
    at = datetime(2026, 1, 31, 11, 0, tzinfo=UTC)
    assert parse_since("1h", now) == at
    assert parse_since("59m60s", now) == at
    assert parse_since("2026-01-31T11:00:00Z", now) == at
    assert parse_since("2026-01-31T11:00:00", now) == at
    assert parse_since("2026-01-31T12:00:00+01:00", now) == at
    assert parse_since("999999999d", now).year == 1
    for wrong in ("", "5", "m", "5m5", "yesterday", "-5m"):
        with pytest.raises(QueryError):
            parse_since(wrong, now)
