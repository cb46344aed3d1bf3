"""What a watcher of ``/v1/live`` asks for: ``/v1/flows``' filters, free text, order, pace.

Parsed and checked like the other queries: all problems at once, each a sentence. A query is a
value: watchers that ask the same share one answer (``interval`` and ``sse`` are each one's own and
do not count).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.schema.protocols import protocol_name
from gateway.schema.queries import (
    FLOW_READERS,
    SORT_FIELDS,
    FlowQuery,
    QueryError,
    Readers,
    parse_sort,
    read_parameters,
    whole,
)
from gateway.schema.records import FlowRecord

DEFAULT_ROWS = 200
MAXIMUM_ROWS = 1000
MAXIMUM_MATCH = 200
"""Characters of free text."""
MAXIMUM_INTERVAL = 60.0


class Rates(NamedTuple):
    """What a flow carries in a (real) second."""

    bytes_out: float
    bytes_in: float
    packets_out: float
    packets_in: float


STILL = Rates(0.0, 0.0, 0.0, 0.0)

_RATE_KEYS: dict[str, Callable[[Rates], float]] = {
    "bytesPerSecond": lambda r: r.bytes_out + r.bytes_in,
    "bytesOutPerSecond": lambda r: r.bytes_out,
    "bytesInPerSecond": lambda r: r.bytes_in,
    "packetsPerSecond": lambda r: r.packets_out + r.packets_in,
    "packetsOutPerSecond": lambda r: r.packets_out,
    "packetsInPerSecond": lambda r: r.packets_in,
}
LIVE_SORT_FIELDS = (*SORT_FIELDS, *_RATE_KEYS)


@dataclass(frozen=True)
class LiveQuery:
    """Which flows, in which order, how many, how often."""

    filters: FlowQuery = field(default_factory=FlowQuery)
    words: tuple[str, ...] = ()
    limit: int = DEFAULT_ROWS
    interval: float = field(default=1.0, compare=False)
    sse: bool = field(default=False, compare=False)

    @classmethod
    def parse(cls, values: Mapping[str, str], accept: str = "") -> LiveQuery:
        """From a query string's values and the Accept header; raises QueryError."""
        found = {"sse": "text/event-stream" in accept} | read_parameters(values, _READERS)
        own = {name: found.pop(name) for name in _OWN if name in found}
        return cls(filters=FlowQuery(**found), **own)

    def matches(self, record: FlowRecord) -> bool:
        """Whether the flow is one of those asked for."""
        if not self.filters.matches(record):
            return False
        if not self.words:
            return True
        text = searchable(record)
        return all(word in text for word in self.words)

    def key(self, rates: Mapping[int, Rates]) -> Callable[[FlowRecord], Any] | None:
        """The sort key, if an order is asked for; ``rates`` by flow id, of those that move."""
        of_rates = _RATE_KEYS.get(self.filters.sort or "")
        if of_rates is None:
            return self.filters.key
        return lambda record: of_rates(rates.get(record.id, STILL))

    @property
    def everything(self) -> bool:
        """Whether no flow is left out."""
        return not self.words and not any(
            getattr(self.filters, name) is not None
            for name in ("vm", "public", "remote_ip", "protocol", "state")
        )


def searchable(record: FlowRecord) -> str:
    """The text in which free words are looked for, in small letters."""
    public = "" if record.public_ip is None else f"{record.public_ip}:{record.public_port}"
    return (
        f"{record.vm} {protocol_name(record.protocol)} {record.state} {record.direction} "
        f"{record.method} {record.private_ip}:{record.private_port} {public} "
        f"{record.remote_ip}:{record.remote_port}"
    ).lower()


def _parse_limit(text: str) -> dict[str, Any]:
    try:
        return {"limit": whole(text, 1, MAXIMUM_ROWS)}
    except ValueError:
        line = f"limit: {text!r} is no whole number from 1 to {MAXIMUM_ROWS}"
        raise QueryError([line]) from None


def _parse_match(text: str) -> dict[str, Any]:
    if len(text) > MAXIMUM_MATCH:
        raise QueryError([f"match: more than {MAXIMUM_MATCH} characters"])
    return {"words": tuple(sorted(set(text.lower().split())))}


def _parse_interval(text: str) -> dict[str, Any]:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= MAXIMUM_INTERVAL:  # nan is not, either
        line = f"interval: {text!r} is no number of seconds from 1 to {MAXIMUM_INTERVAL:.0f}"
        raise QueryError([line])
    return {"interval": seconds}


def _parse_format(text: str) -> dict[str, Any]:
    if text not in ("ndjson", "sse"):
        raise QueryError([f"format: {text!r} is neither ndjson nor sse"])
    return {"sse": text == "sse"}


_OWN = ("words", "limit", "interval", "sse")
"""The fields that are not the filters'."""
_READERS: Readers = {
    **{name: FLOW_READERS[name] for name in ("vm", "public", "remote", "protocol", "state")},
    "sort": lambda text: parse_sort(text, LIVE_SORT_FIELDS),
    "limit": _parse_limit,
    "match": _parse_match,
    "interval": _parse_interval,
    "format": _parse_format,
}
