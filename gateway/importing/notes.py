"""What an import could not carry over, or had to choose: one line each, never the same one twice.

A note names the file, the resource in it, the property, and what became of it. What is ``lost``
would change what passes or how it is translated: the configuration lists it under
``notCarriedOver``, and check rejects it until that is written in its place. Knows nothing of where
the lines are printed.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.model.problems import printable

LEFT_OUT = "not carried over"
MAX_NOTES = 10_000  # more do not help, and a hostile file must not fill the memory


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
        self._untold = 0
        self._lost: dict[Note, None] = {}

    def add(self, place: Place, property: str, message: str, *, lost: bool = False) -> None:
        """Note something, once. ``lost``: a configuration without it must not be run."""
        note = Note(place, property, message)
        if len(self._notes) < MAX_NOTES:
            self._notes[note] = None
        elif note not in self._notes:
            self._untold += 1
        if lost and len(self._lost) < MAX_NOTES:
            self._lost[note] = None

    def lost(self) -> list[str]:
        """What a configuration is not whole without."""
        return [str(note).replace(f"{LEFT_OUT}: ", "", 1) for note in self._lost]

    def lines(self) -> list[str]:
        """What the user reads."""
        lines = [str(note) for note in self._notes]
        return [*lines, f"and {self._untold} more"] if self._untold else lines
