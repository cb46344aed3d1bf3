"""A configuration as YAML for people: an item a line where it fits, comments, a stable order.

Scalars are quoted so that YAML 1.1 and 1.2 readers agree on them. PyYAML alone would either write
everything in blocks or everything inline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache

import yaml

from gateway.importing.yaml_entries import Entry

WIDTH = 100
_PLAIN = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*|[0-9]+(?:\.[0-9]+){3}(?:/[0-9]+)?"
)
_OTHER_MEANINGS = frozenset(
    ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity")
)


def to_yaml(configuration: Entry, heading: list[str]) -> str:
    """The text of a file; ``heading`` becomes comments at its top."""
    lines = [f"# {_comment(line)}" for line in heading]
    for key, section in configuration.items():
        if isinstance(section, Entry) and section.comment:
            lines.append(f"# {_comment(section.comment)}")
        lines += _keyed(key, section, 0, open_up=key in ("gateway", "virtualNetwork"))
    return "\n".join(lines) + "\n"


def _keyed(key: str, value: object, indent: int, *, open_up: bool = False) -> Iterator[str]:
    """``key: value`` on a line, or the value on lines below."""
    margin = " " * indent
    inline = None if open_up or _has_entries(value) else _inline(value)
    if inline is not None and len(margin) + len(key) + 2 + len(inline) <= WIDTH:
        yield f"{margin}{key}: {inline}"
    elif isinstance(value, dict):
        yield f"{margin}{key}:"
        for inner, item in value.items():
            yield from _keyed(inner, item, indent + 2)
    elif isinstance(value, list):
        yield f"{margin}{key}:"
        for item in value:
            yield from _item(item, indent + 2)
    else:
        yield f"{margin}{key}: {inline}"


def _item(value: object, indent: int) -> Iterator[str]:
    """``- value``."""
    margin = " " * indent
    if isinstance(value, Entry) and value.comment:
        yield f"{margin}# {_comment(value.comment)}"
    inline = None if _has_list_of_entries(value) else _inline(value)
    if isinstance(value, dict) and (inline is None or len(margin) + 2 + len(inline) > WIDTH):
        lines = [line for key, item in value.items() for line in _keyed(key, item, indent + 2)]
        yield f"{margin}- {lines[0].lstrip()}"
        yield from lines[1:]
    else:
        yield f"{margin}- {inline}"


def _has_entries(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _has_list_of_entries(value: object) -> bool:
    return isinstance(value, dict) and any(map(_has_entries, value.values()))


def _inline(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return _text(str(value))


@lru_cache(maxsize=4096)
def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.casefold() not in _OTHER_MEANINGS:
        return text
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    style = '"' if not whole.isprintable() else "'" if _is_number(whole) else None
    written = yaml.safe_dump(
        [whole], default_flow_style=True, default_style=style, width=math.inf, allow_unicode=True
    )
    return written.strip()[1:-1]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _comment(text: str) -> str:
    """A comment ends where its line does."""
    return "".join(c if c.isprintable() else " " for c in text)
