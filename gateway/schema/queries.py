"""What a client may ask of a listing: filters, order, length, start time. Parsed and checked here.

The API uses it on query strings and the command line on its options, so that both reject the same
values with the same sentences. All problems of a query are found at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from ipaddress import AddressValueError, IPv4Address
from socket import inet_aton
from typing import Any

from gateway.schema.protocols import PROTOCOL_NAMES, protocol_name
from gateway.schema.records import FlowRecord

Readers = Mapping[str, Callable[[str], dict[str, Any]]]
"""For each parameter what makes fields of its text, or raises QueryError."""
STATES = ("Opening", "Established", "Closing", "Closed", "CoolDown")
MAXIMUM_LIMIT = 100_000_000
MAXIMUM_DIGITS = 20
"""Of a number, leading zeros too: what a query is made of has to fit into a request."""

_SORT_KEYS: dict[str, Callable[[FlowRecord], Any]] = {
    "id": lambda r: r.id,
    "protocol": lambda r: protocol_name(r.protocol),
    "state": lambda r: r.state,
    "direction": lambda r: r.direction,
    "method": lambda r: r.method,
    "vm": lambda r: r.vm,
    "private": lambda r: (_address(r.private_ip), r.private_port),
    "public": lambda r: (_address(r.public_ip), r.public_port),
    "remote": lambda r: (_address(r.remote_ip), r.remote_port),
    "packetsOut": lambda r: r.packets_out,
    "bytesOut": lambda r: r.bytes_out,
    "packetsIn": lambda r: r.packets_in,
    "bytesIn": lambda r: r.bytes_in,
    "ageSeconds": lambda r: r.age,
    "idleSeconds": lambda r: r.idle,
    "expiresInSeconds": lambda r: r.expires_in,
    "offloaded": lambda r: r.offloaded,
    "awaitingRemoval": lambda r: r.awaiting_removal,
    "bytes": lambda r: r.bytes_out + r.bytes_in,
    "packets": lambda r: r.packets_out + r.packets_in,
    "publicPort": lambda r: r.public_port,
}
_ALIASES = {"age": "ageSeconds", "idle": "idleSeconds", "expires": "expiresInSeconds"}
SORT_FIELDS = (*_SORT_KEYS, *_ALIASES)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class QueryError(ValueError):
    """What is wrong with a query: ``problems`` has a line for each thing."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


@dataclass(frozen=True)
class FlowQuery:
    """Which flows, in which order, how many. Fields that are None ask for nothing."""

    vm: str | None = None
    public: str | None = None
    remote_ip: str | None = None
    remote_port: int | None = None
    protocol: int | None = None
    state: str | None = None
    sort: str | None = None
    descending: bool = False
    limit: int | None = None

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> FlowQuery:
        """From a query string's values; raises QueryError."""
        return cls(**read_parameters(values, FLOW_READERS))

    def is_of(self, record: FlowRecord) -> bool:
        """Whether the flow is of the VM asked for."""
        return self.vm is None or record.vm == self.vm or record.private_ip == self.vm

    def matches(self, record: FlowRecord) -> bool:
        """Whether the flow is one of those asked for."""
        return (
            self.is_of(record)
            and (self.public is None or record.public_ip == self.public)
            and (self.remote_ip is None or record.remote_ip == self.remote_ip)
            and (self.remote_port is None or record.remote_port == self.remote_port)
            and (self.protocol is None or record.protocol == self.protocol)
            and (self.state is None or record.state == self.state)
        )

    @property
    def key(self) -> Callable[[FlowRecord], Any] | None:
        """The sort key, if an order is asked for."""
        return None if self.sort is None else _SORT_KEYS[self.sort]


def read_parameters(
    values: Mapping[str, str], readers: Readers, known: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """The fields that each reader makes of its parameter, where that is given.

    Raises QueryError with every problem at once: first of the parameters that do not exist
    (``known``, in the order in which they are listed; without it the readers'), then the readers'.
    """
    problems = unknown_parameters(values, tuple(readers) if known is None else known)
    found: dict[str, Any] = {}
    for name, read in readers.items():
        if name in values:
            try:
                found |= read(values[name])
            except QueryError as error:
                problems += error.problems
    if problems:
        raise QueryError(problems)
    return found


def unknown_parameters(values: Mapping[str, str], known: tuple[str, ...]) -> list[str]:
    """A line for each parameter that there is not."""
    return [
        f"{name}: no such parameter{suggestion(name, known)}; there are {', '.join(known)}"
        for name in values
        if name not in known
    ]


def parse_address(text: str, field: str) -> str:
    """An IPv4 address in its usual form."""
    try:
        return str(IPv4Address(text))
    except (AddressValueError, ValueError):
        raise QueryError([f"{field}: {text!r} is no IPv4 address, as in 203.0.113.10"]) from None


def parse_remote(text: str) -> dict[str, Any]:
    """``IP`` or ``IP:PORT``."""
    address, colon, port = text.partition(":")
    try:
        found: dict[str, Any] = {"remote_ip": str(IPv4Address(address))}
        if colon:
            found["remote_port"] = whole(port, 0, 65535)
    except ValueError:
        line = f"remote: {text!r} is neither IP nor IP:PORT, as in 198.51.100.7:443"
        raise QueryError([line]) from None
    return found


def parse_protocol(text: str) -> int:
    """The protocol's number by its name, in any capitals."""
    for number, name in PROTOCOL_NAMES.items():
        if name.casefold() == text.casefold():
            return number
    raise QueryError([f"protocol: {text!r} is not one of Tcp, Udp, Icmp"])


def parse_state(text: str) -> str:
    """A flow's state, in any capitals."""
    for state in STATES:
        if state.casefold() == text.casefold():
            return state
    raise QueryError([f"state: {text!r} is not one of {', '.join(STATES)}"])


def parse_sort(text: str, fields: tuple[str, ...] = SORT_FIELDS) -> dict[str, Any]:
    """``field``, or ``-field`` for the largest first."""
    name = text.removeprefix("-")
    folded = {field.casefold(): field for field in fields}
    field = folded.get(name.casefold())
    if field is None:
        there_are = ", ".join(fields)
        line = f"sort: {name!r} is no field{suggestion(name, fields)}; there are {there_are}"
        raise QueryError([line])
    return {"sort": _ALIASES.get(field, field), "descending": text.startswith("-")}


def parse_limit(text: str) -> int:
    """How many at most."""
    try:
        return whole(text, 1, MAXIMUM_LIMIT)
    except ValueError:
        raise QueryError([f"limit: {text!r} is no whole number from 1"]) from None


def parse_since(text: str, now: datetime) -> datetime:
    """ISO 8601 (UTC unless it says otherwise), or how long ago: ``30s``, ``5m``, ``1h30m``."""
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        try:
            return now - timedelta(seconds=sum(float(n) * _UNITS[unit] for n, unit in parts))
        except OverflowError:
            return datetime.min.replace(tzinfo=UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        line = f"since: {text!r} is neither a time as 2026-01-31T12:00:00Z nor a duration as 5m"
        raise QueryError([line]) from None
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:  # a year before the first or after the last
        return datetime.min.replace(tzinfo=UTC)


def parse_flag(values: Mapping[str, str], name: str) -> bool:
    """``1`` or ``0``; absent is 0."""
    text = values.get(name, "0")
    if text not in ("0", "1"):
        raise QueryError([f"{name}: {text!r} is neither 0 nor 1"])
    return text == "1"


def whole(text: str, least: int, most: int) -> int:
    """A whole number within bounds; raises ValueError."""
    short = len(text) <= MAXIMUM_DIGITS and text.isascii() and text.isdigit()
    if not short or not least <= int(text) <= most:
        raise ValueError
    return int(text)


def suggestion(word: str, known: Iterable[str]) -> str:
    """``, did you mean …?``, if one of the known words is near; else nothing."""
    folded = {candidate.casefold(): candidate for candidate in known}
    close = get_close_matches(word.casefold(), folded, n=1, cutoff=0.5)
    return f", did you mean {folded[close[0]]}?" if close else ""


FLOW_READERS: Readers = {
    "vm": lambda text: {"vm": text},
    "public": lambda text: {"public": parse_address(text, "public")},
    "remote": parse_remote,
    "protocol": lambda text: {"protocol": parse_protocol(text)},
    "state": lambda text: {"state": parse_state(text)},
    "sort": parse_sort,
    "limit": lambda text: {"limit": parse_limit(text)},
}


def _address(text: str | None) -> bytes:
    """What sorts addresses as numbers: for each flow of a listing, so without an object each."""
    return b"" if text is None else inet_aton(text)
