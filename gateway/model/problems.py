"""What is wrong with a configuration, as data, and the one line that a user reads for it.

A problem names the file, the line where it is known, the field, the value and what would be
right. A file with errors is rejected; warnings name what an accepted one will not do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Severity = Literal["error", "warning"]
Location = tuple[str | int, ...]
"""Keys and list indices from the file's root: ("loadBalancers", 0, "name")."""

MAX_SHOWN = 60  # characters of a value


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. ``str()`` is its line."""

    file: str
    path: str
    """The field, as in ``loadBalancers[0].frontendIPConfigurations[1].name``; empty: the file."""
    value: str | None
    """The value as the file has it, shortened; None where there is none to show."""
    message: str
    severity: Severity = "error"
    line: int | None = None
    """From 1; None if not known."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line is not None else self.file
        field = self.path if self.value is None else f"{self.path} = {self.value}"
        parts = [where, field] if field else [where]
        if self.severity == "warning":
            parts.append("warning")
        return printable(": ".join([*parts, self.message]))


def printable(text: str) -> str:
    """The text on one line, and with nothing in it that a terminal would act on."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def dotted(location: Location) -> str:
    """A location as users write it."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if len(part) <= MAX_SHOWN else part[: MAX_SHOWN - 1] + "…"
            text += f".{key}" if text else key
    return text


def shown(value: object) -> str | None:
    """A value as a problem shows it: one line, short. None for what has no short form."""
    if isinstance(value, dict) or value is None:
        return None
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:
        return None
    if isinstance(value, str) and text == f'"{value}"' and value.strip() == value != "":
        text = value
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant: the same but for capitals, or a close one."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    folded = word.casefold()
    if folded in by_folded:
        return by_folded[folded]
    close = get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    return by_folded[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` or nothing."""
    candidate = nearest(word, known)
    return f"; did you mean {candidate}?" if candidate is not None else ""
