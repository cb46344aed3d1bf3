"""Events and probes as rows; of members that a daemon does not have, nothing is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.cli.events import in_words
from gateway.cli.tables import endpoint
from gateway.tui.listing import Cell, Column, Row

LEVELS = {"Error": "bold red", "Warning": "yellow", "Informational": ""}
EVENT_COLUMNS = (Column("time", "EVENTS", 8), Column("what", "", 400))
PROBE_COLUMNS = (Column("state", "PROBES", 9), Column("what", "", 400))
STATUSES = {"Down": "bold red", "Unknown": "yellow", "Up": "green", "NotProbed": "dim"}
"""The worst first."""


def rows(events: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Events by their keys, the latest last: a row for each, the latest first."""
    return [_event_row(key, event) for key, event in reversed(list(events.items()))]


def _event_row(key: str, event: Mapping[str, Any]) -> Row:
    style = LEVELS.get(event.get("level", ""), "")
    return Row(key, [event["time"][11:19], (what(event), style)])


def what(event: Mapping[str, Any]) -> str:
    """An event in words, without its time and level."""
    try:
        return in_words(dict(event))
    except (KeyError, TypeError):  # of a later daemon than this program
        return f"{event.get('operationName')}: {event.get('properties')}"


def probe_rows(backends: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Backends with what their probes say, those that are down first."""
    places = list(STATUSES)

    def place(backend: Mapping[str, Any]) -> int:
        status = backend.get("status")
        return places.index(status) if status in places else 0

    return [Row(_probe_key(one), _probe_cells(one)) for one in sorted(backends, key=place)]


def _probe_key(backend: Mapping[str, Any]) -> str:
    names = ("loadBalancer", "rule", "vm", "protocol")
    return " ".join(str(backend.get(name)) for name in names)


def _probe_cells(backend: Mapping[str, Any]) -> list[Cell]:
    status = str(backend.get("status", "?"))
    words = [
        f"{backend.get('vm')} {_endpoint(backend, 'backend')}",
        f"{backend.get('loadBalancer')}/{backend.get('rule')}",
    ]
    last = backend.get("lastProbe")
    if last:
        again = f" x{last['inARow']}" if last.get("inARow", 1) > 1 else ""
        words.append(f"{backend.get('probe')}: {last.get('reason')}{again}")
    if backend.get("deniedBy"):
        words.append(f"denied by {backend['deniedBy']}")
    return [(status, STATUSES.get(status, "bold red")), "  ".join(words)]


def _endpoint(backend: Mapping[str, Any], name: str) -> str:
    found = backend.get(name)
    return endpoint(dict(found)) if found else ""
