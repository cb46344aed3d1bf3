"""Flows as rows: which columns there are, what each is sorted by, how wide each is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.cli.tables import endpoint, seconds, size
from gateway.tui.listing import Cell, Column, Row

STATES = {"Established": "Estab", "CoolDown": "Cool"}
STATE_STYLES = {"Opening": "yellow", "Closing": "yellow", "CoolDown": "blue", "Closed": "blue"}
LEAST_VM, MOST_VM = 7, 24
LEAST_SHOWN = 7
"""Columns that are on the narrowest screen without scrolling."""
DEFAULT_SORT = "-bytesPerSecond"


@dataclass(frozen=True)
class _Field:
    """A column and the API's field that it is sorted by; numbers begin with the largest."""

    column: Column
    sort: str


FIELDS = (
    _Field(Column("protocol", "PROT", 5), "protocol"),
    _Field(Column("state", "STATE", 7), "state"),
    _Field(Column("vm", "VM", LEAST_VM), "vm"),
    _Field(Column("public", "PUBLIC", 20), "public"),
    _Field(Column("remote", "REMOTE", 20), "remote"),
    _Field(Column("out", "OUT/s", 6, right=True), "bytesOutPerSecond"),
    _Field(Column("in", "IN/s", 6, right=True), "bytesInPerSecond"),
    _Field(Column("packets", "PKT/s", 6, right=True), "packetsPerSecond"),
    _Field(Column("idle", "IDLE", 6, right=True), "idleSeconds"),
    _Field(Column("expires", "EXPIRES", 7, right=True), "expiresInSeconds"),
    _Field(Column("age", "AGE", 6, right=True), "ageSeconds"),
    _Field(Column("private", "PRIVATE", 20), "private"),
    _Field(Column("bytesOut", "OUT", 7, right=True), "bytesOut"),
    _Field(Column("bytesIn", "IN", 7, right=True), "bytesIn"),
    _Field(Column("method", "METHOD", 21), "method"),
    _Field(Column("id", "ID", 9, right=True), "id"),
)
_BY_RATE_OF = ("out", "in")
"""Which columns are marked when flows are sorted by both directions together."""


def _sorts() -> Iterator[str]:
    """As the columns stand; both directions together right before the first of the two."""
    for field in FIELDS:
        if field.column.name == _BY_RATE_OF[0]:
            yield "bytesPerSecond"
        yield field.sort


SORTS = tuple(_sorts())


def columns(sort: str, room: int) -> list[Column]:
    """The columns, the one sorted by marked; names of VMs get what room is left by the others."""
    field, arrow = sort.removeprefix("-"), "▼" if sort.startswith("-") else "▲"
    vm = LEAST_VM + max(0, min(MOST_VM - LEAST_VM, room - _whole(room)))
    found = []
    for one in FIELDS:
        column = one.column
        marked = one.sort == field or (field == "bytesPerSecond" and column.name in _BY_RATE_OF)
        title = f"{column.title}{arrow}" if marked else column.title
        width = vm if column.name == "vm" else column.width
        found.append(Column(column.name, title, width, column.right))
    return found


def _whole(room: int) -> int:
    """The width of the columns that fit wholly into ``room``."""
    width = sum(one.column.width + 1 for one in FIELDS[:LEAST_SHOWN])
    for one in FIELDS[LEAST_SHOWN:]:
        if width + one.column.width + 1 > room:
            break
        width += one.column.width + 1
    return width


def sorted_by(column: Column, sort: str) -> str:
    """The order after a click on a column's head: by it, or the other way round."""
    field = next(one for one in FIELDS if one.column.name == column.name)
    if sort.removeprefix("-") == field.sort:
        return reversed_order(sort)
    return f"-{field.sort}" if column.right else field.sort


def next_order(sort: str, step: int) -> str:
    """The order by the column after (or before) the one sorted by now."""
    field = sort.removeprefix("-")
    before_all = -1 if step > 0 else 0
    now = SORTS.index(field) if field in SORTS else before_all
    chosen = SORTS[(now + step) % len(SORTS)]
    numbers = {one.sort for one in FIELDS if one.column.right} | {"bytesPerSecond"}
    return f"-{chosen}" if chosen in numbers else chosen


def reversed_order(sort: str) -> str:
    """The same, the other way round."""
    return sort[1:] if sort.startswith("-") else f"-{sort}"


def rows(flows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each flow, its id as key."""
    return [Row(str(flow["id"]), _cells(flow)) for flow in flows]


def _cells(flow: Mapping[str, Any]) -> list[Cell]:
    state = flow["state"]
    shown = STATES.get(state, state)
    if flow.get("awaitingRemoval"):
        shown, style = "Removed", "red"
    else:
        style = STATE_STYLES.get(state, "green")
    return [
        flow["protocol"],
        (shown, style),
        flow["vm"],
        endpoint(flow["public"]),
        endpoint(flow["remote"]),
        rate(flow["bytesOutPerSecond"]),
        rate(flow["bytesInPerSecond"]),
        rate(_sum(flow["packetsOutPerSecond"], flow["packetsInPerSecond"])),
        seconds(flow["idleSeconds"]),
        seconds(flow["expiresInSeconds"]),
        seconds(flow["ageSeconds"]),
        endpoint(flow["private"]),
        size(flow["bytesOut"]),
        size(flow["bytesIn"]),
        flow["method"],
        str(flow["id"]),
    ]


def rate(value: float | None) -> Cell:
    """A rate for people; dim where nothing moves, empty where it is not known yet."""
    if value is None:
        return ""
    if 0 < value < 10:
        return f"{value:.1f}"
    return size(round(value)) if value else ("0", "dim")


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
