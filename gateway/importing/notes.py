"""What an import could not carry over, or had to choose: one line each, never the same one twice.

A note names the file, the resource in it, the property, and what became of it. Knows nothing of
where the lines are printed.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.model.problems import printable

LEFT_OUT = "not carried over"
MAX_NOTES = 10_000  # more help nobody, and a hostile file must not fill the memory


@dataclass(frozen=True, slots=True)
class Place:
    """A resource, or what is not part of one, in an input file."""

    file: str
    resource: str = ""
    """As in ``networkSecurityGroups/web-nsg``; empty: the file itself."""


@dataclass(frozen=True, slots=True)
class Note:
    """One line for the user."""

    place: Place
    property: str
    """As in ``securityRules[0].priority``; empty: the whole resource."""
    message: str

    def __str__(self) -> str:
        parts = (self.place.file, self.place.resource, self.property, self.message)
        return printable(": ".join(part for part in parts if part))


class Notes:
    """Notes in the order in which they came up."""

    def __init__(self) -> None:
        self._notes: dict[Note, None] = {}
        self._lost = 0

    def add(self, place: Place, property: str, message: str) -> None:
        """Note something, once."""
        note = Note(place, property, message)
        if len(self._notes) < MAX_NOTES:
            self._notes[note] = None
        elif note not in self._notes:
            self._lost += 1

    def lines(self) -> list[str]:
        """What the user reads."""
        lines = [str(note) for note in self._notes]
        return [*lines, f"and {self._lost} more"] if self._lost else lines
