"""YAML text to plain data, with the line of every key and item.

Built on PyYAML's events (libyaml's when there), so that nothing of YAML that a configuration does
not need can do harm: no tags, no anchors (so no alias bombs), no merge keys, bounded depth. Plain
scalars follow YAML 1.2: ``on``, ``no`` and ``22:30`` are text, not booleans or base-60 numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from gateway.model.problems import Location, dotted

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH = 20

_CONSTANTS: dict[str, object] = {"": None, "~": None}
for _spelling in ("null", "Null", "NULL"):
    _CONSTANTS[_spelling] = None
for _spelling in ("true", "True", "TRUE"):
    _CONSTANTS[_spelling] = True
for _spelling in ("false", "False", "FALSE"):
    _CONSTANTS[_spelling] = False
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,4})?")


class Unreadable(Exception):
    """The text is not the YAML of a configuration. Has its own line, if known, and field."""

    def __init__(self, message: str, line: int | None = None, path: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.path = path


class Document:
    """The data of a text, and where in it everything is."""

    def __init__(self, text: str) -> None:
        """Raises Unreadable."""
        self.lines: dict[Location, int] = {}
        self.duplicates: list[tuple[Location, int]] = []
        """Keys given a second time, each with the line of that; the first one counts."""
        self._events = self._parse(text)
        self.data = self._document()

    def line(self, location: Location) -> int | None:
        """The line of a field, or of what is around it when it is not there itself."""
        for end in range(len(location), 0, -1):
            if location[:end] in self.lines:
                return self.lines[location[:end]]
        return None

    @staticmethod
    def _parse(text: str) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = " ".join(filter(None, (error.context, error.problem)))
            raise Unreadable(f"not YAML: {said}", mark.line + 1 if mark else None) from None
        except yaml.YAMLError as error:
            said = getattr(error, "reason", None) or str(error).splitlines()[0]
            raise Unreadable(f"not YAML: {said}") from None

    def _document(self) -> object:
        data: object = None
        seen = False
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if seen:
                    line = _line(event)
                    raise Unreadable("more than one YAML document; allowed: one", line)
                seen = True
                data = self._value(next(self._events), ())
        return data

    def _value(self, event: yaml.Event, location: Location) -> object:
        line = _line(event)
        self.lines.setdefault(location, line)
        path = dotted(location)
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            raise Unreadable("anchors and aliases (& and *) are not accepted here", line, path)
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise Unreadable(f"tags are not accepted here, not {tag}", line, path)
        if len(location) > MAX_DEPTH:
            raise Unreadable("nested too deeply for a configuration", line)
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event.value) if event.implicit[0] else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(location)
        return self._mapping(location)

    def _skip(self, event: yaml.Event, location: Location) -> None:
        """Read a value that does not count, leaving the lines of the one that does."""
        lines, self.lines = self.lines, {}
        self._value(event, location)
        self.lines = lines

    def _sequence(self, location: Location) -> list[object]:
        items: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*location, len(items))))
        return items

    def _mapping(self, location: Location) -> dict[str, object]:
        entries: dict[str, object] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise Unreadable("a key must be a word", line, dotted(location))
            place = (*location, event.value)
            if event.value in entries:
                self.duplicates.append((place, line))
                self._skip(next(self._events), place)
                continue
            self.lines[place] = line
            entries[event.value] = self._value(next(self._events), place)
        return entries


def _line(event: yaml.Event) -> int:
    """From 1. PyYAML's events from text always have marks; its types do not know."""
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _scalar(text: str) -> object:
    """A plain scalar by YAML 1.2's core schema."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
