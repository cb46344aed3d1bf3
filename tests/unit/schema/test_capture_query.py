"""What a capture may be asked for."""

from __future__ import annotations

import pytest

from gateway.schema.capture_query import DEFAULT_SIZE, CaptureQuery, described, engines_part
from gateway.schema.queries import QueryError


def test_nothing_asked_is_everything_within_the_default_bound() -> None:
    assert CaptureQuery.parse({}) == CaptureQuery(size=DEFAULT_SIZE, side="both", count=None)


def test_everything_asked() -> None:
    values = {
        "vm": "vm1",
        "side": "Inside",
        "snaplen": "96",
        "remote": "198.51.100.7:443",
        "protocol": "tcp",
        "count": "10",
        "size": "2G",
        "duration": "1h30m",
        "trace": "1",
    }
    query = CaptureQuery.parse(values)
    assert query == CaptureQuery(
        "vm1", "inside", 96, "198.51.100.7", 443, 6, 10, 2_000_000_000, 5400.0, trace=True
    )
    assert engines_part(values).keys() == {
        *("vm", "side", "snaplen", "remote", "protocol", "trace"),
    }
    assert described(values).startswith("vm=vm1 side=Inside")
    assert described({"count": "3"}) == "everything"


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("5k", 5000), ("1M", 10**6), ("unlimited", None)]
)
def test_sizes(text: str, size: int | None) -> None:
    assert CaptureQuery.parse({"size": text}).size == size


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("1.5s", 1.5), ("2d", 172800.0)])
def test_durations(text: str, seconds: float) -> None:
    assert CaptureQuery.parse({"duration": text}).duration == seconds


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"vm": ""}, "vm: "),
        ({"vm": "x" * 300}, "vm: "),
        ({"side": "left"}, "inside, outside, both"),
        ({"snaplen": "0"}, "from 1 to 65535"),
        ({"snaplen": "65536"}, "from 1 to 65535"),
        ({"remote": "example.com"}, "IP:PORT"),
        ({"protocol": "Foo"}, "Tcp, Udp, Icmp"),
        ({"count": "0"}, "from 1"),
        ({"size": "100"}, "from 4096"),
        ({"size": "1T"}, "500k, 100M or 2G"),
        ({"size": "9" * 40}, "size: "),
        ({"duration": "0s"}, "30s, 5m or 1h30m"),
        ({"duration": "10"}, "30s, 5m or 1h30m"),
        ({"duration": "9" * 400 + "d"}, "30s, 5m or 1h30m"),
        ({"filter": "tcp"}, "no such parameter"),
    ],
)
def test_refusals(values: dict[str, str], words: str) -> None:
    with pytest.raises(QueryError) as refusal:
        CaptureQuery.parse(values)
    (line,) = refusal.value.problems
    assert words in line


def test_all_problems_at_once() -> None:
    with pytest.raises(QueryError) as refusal:
        CaptureQuery.parse({"side": "x", "count": "x", "size": "x", "what": "x"})
    assert len(refusal.value.problems) == 4
