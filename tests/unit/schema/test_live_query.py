"""What a watcher may ask for, what it gets, and what it is told where it asked for something else."""

from __future__ import annotations

import pytest

from gateway.schema.live_query import (
    DEFAULT_ROWS,
    MAXIMUM_MATCH,
    MAXIMUM_ROWS,
    LiveQuery,
    Rates,
    searchable,
)
from gateway.schema.queries import QueryError
from tests.unit.daemon.serving import flow

FLOWS = [
    flow(1),
    flow(2, vm="vm2", private_ip="10.0.1.5", state="CoolDown"),
    flow(3, protocol=17, public_ip=None, remote_ip="198.51.100.8", remote_port=53),
]


def test_who_asks_for_nothing_gets_every_flow_each_second_as_lines() -> None:
    query = LiveQuery.parse({})
    assert (query.limit, query.interval, query.sse, query.everything) == (
        DEFAULT_ROWS, 1.0, False, True,
    )  # fmt: skip
    assert all(map(query.matches, FLOWS))


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        ({"match": "VM2"}, [2]),
        ({"match": "cooldown 10.0.1.5"}, [2]),
        ({"match": "udp 198.51.100.8:53"}, [3]),
        ({"match": "10.0.1.4:4000"}, [1, 3]),
        ({"match": "udp", "vm": "vm2"}, []),
        ({"vm": "vm2"}, [2]),
        ({"protocol": "Udp"}, [3]),
    ],
)
def test_words_and_filters_must_all_hold(values: dict[str, str], ids: list[int]) -> None:
    query = LiveQuery.parse(values)
    assert [record.id for record in FLOWS if query.matches(record)] == ids
    assert not query.everything


def test_a_flow_without_a_public_side_is_found_by_the_rest() -> None:
    assert searchable(FLOWS[2]) == (
        "vm1 udp established outbound defaultoutboundaccess 10.0.1.4:40003  198.51.100.8:53"
    )


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"limit": "0"}, "from 1 to 1000"),
        ({"limit": str(MAXIMUM_ROWS + 1)}, "from 1 to 1000"),
        ({"match": "x" * (MAXIMUM_MATCH + 1)}, "more than 200"),
        ({"interval": "0.9"}, "from 1 to 60"),
        ({"interval": "61"}, "from 1 to 60"),
        ({"interval": "nan"}, "from 1 to 60"),
        ({"interval": "soon"}, "from 1 to 60"),
        ({"format": "xml"}, "neither ndjson nor sse"),
        ({"sort": "bytesPerSecnd"}, "did you mean bytesPerSecond"),
        ({"remote": "example.com"}, "IP:PORT"),
    ],
)
def test_refusals_name_what_would_be_right(values: dict[str, str], word: str) -> None:
    with pytest.raises(QueryError) as caught:
        LiveQuery.parse(values)
    (problem,) = caught.value.problems
    assert word in problem


def test_the_format_is_the_one_asked_for_else_what_the_browser_accepts() -> None:
    assert LiveQuery.parse({}, "text/event-stream").sse
    assert not LiveQuery.parse({"format": "ndjson"}, "text/event-stream").sse
    assert LiveQuery.parse({"format": "sse"}).sse


def test_watchers_that_ask_the_same_share_an_answer() -> None:
    one = LiveQuery.parse({"match": "b a a", "interval": "1"})
    assert one == LiveQuery.parse({"match": "a b", "interval": "30", "format": "sse"})
    assert one != LiveQuery.parse({"match": "a"})
    assert len({one, LiveQuery.parse({"match": "A B"})}) == 1


@pytest.mark.parametrize(
    ("order", "key"),
    [
        ("bytesPerSecond", 30.0),
        ("bytesOutPerSecond", 10.0),
        ("bytesInPerSecond", 20.0),
        ("packetsPerSecond", 7.0),
        ("packetsOutPerSecond", 3.0),
        ("packetsInPerSecond", 4.0),
    ],
)
def test_rates_are_an_order_in_which_flows_that_stand_still_are_last(
    order: str, key: float
) -> None:
    sort = LiveQuery.parse({"sort": f"-{order}"}).key({1: Rates(10.0, 20.0, 3.0, 4.0)})
    assert sort is not None
    assert (sort(FLOWS[0]), sort(FLOWS[1])) == (key, 0.0)


def test_other_orders_are_the_listings() -> None:
    sort = LiveQuery.parse({"sort": "remote"}).key({})
    assert sort is not None
    assert sort(FLOWS[0]) < sort(FLOWS[2])
    assert LiveQuery.parse({}).key({}) is None
