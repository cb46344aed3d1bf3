"""Events and probes as rows. Probes are shown as they come: whatever members a backend has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.cli.events import in_words
from gateway.tui.listing import Cell, Column, Row

LEVELS = {"Error": "bold red", "Warning": "yellow", "Informational": ""}
EVENT_COLUMNS = (Column("time", "EVENTS", 8), Column("what", "", 400))
PROBE_COLUMNS = (Column("state", "PROBES", 8), Column("what", "", 400))
_STATES = ("state", "status", "health")
_GOOD = {"up", "healthy", "online", "succeeded", "true"}


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
    """Backends as the API has them, those that are down first."""
    found = []
    for number, backend in enumerate(backends):
        name = next((n for n in _STATES if n in backend), None)
        state = "?" if name is None else str(backend[name])
        good = state.casefold() in _GOOD
        rest = "  ".join(f"{n} {_text(v)}" for n, v in backend.items() if n != name)
        cells: list[Cell] = [(state, "green" if good else "bold red"), rest]
        found.append((good, Row(f"{number}", cells)))
    return [row for _, row in sorted(found, key=lambda entry: entry[0])]


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ":".join(str(part) for part in value.values())
    return str(value)
