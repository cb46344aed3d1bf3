"""What an import makes: a configuration as plain mappings, some with a comment of their own."""

from __future__ import annotations

from collections.abc import Container, Iterable
from itertools import count


class Entry(dict[str, object]):
    """A mapping of the configuration; keys without a value are left out."""

    def __init__(self, comment: str = "", /, **values: object) -> None:
        super().__init__({key: value for key, value in values.items() if not _is_absent(value)})
        self.comment = comment


def unlike(value: object, default: object) -> object:
    """None for what the configuration takes as its default, else the value."""
    return None if value == default else value


def distinct(names: Iterable[str]) -> list[str]:
    """Each name once, in their order."""
    return list(dict.fromkeys(names))


def free_name(wanted: str, taken: Container[str]) -> str:
    """The name, or with a number where it is among the folded names ``taken``."""
    if wanted.casefold() not in taken:
        return wanted
    return next(name for n in count(2) if (name := f"{wanted}-{n}").casefold() not in taken)


def _is_absent(value: object) -> bool:
    return value is None or value == []
