"""Tables for people: rich on a terminal, plain aligned columns in a pipe. Never cut in a pipe.

Large tables are plain on a terminal, too: laying 64,000 rows out richly takes most of a minute.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

MOST_RICH_ROWS = 2_000


@dataclass(frozen=True)
class Column:
    """A column's title; numbers stand to the right."""

    title: str
    right: bool = False


def rich_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Table:
    """The table for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def plain_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """The same as text, two spaces between columns."""
    everything = [[column.title for column in columns], *rows]
    widths = [max(map(len, cells)) for cells in zip(*everything, strict=True)]
    for row in everything:
        cells = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        )
        yield "  ".join(cells).rstrip()


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to standard output as suits it."""
    if sys.stdout.isatty() and len(rows) <= MOST_RICH_ROWS:
        from rich.console import Console

        Console(highlight=False).print(rich_table(columns, rows))
        return
    for line in plain_lines(columns, rows):
        click.echo(line)


def size(count: int) -> str:
    """Bytes for people: ``1.5M``."""
    value = float(count)
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000 or unit == "T":
            return f"{value:.0f}" if not unit else f"{value:.1f}{unit}"
        value /= 1000
    raise AssertionError("unreachable")


def seconds(value: float) -> str:
    """A duration for people: ``4m05s``."""
    whole = int(value)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def endpoint(document: dict[str, object] | None) -> str:
    """``{"ip", "port"}`` as ``ip:port``; ``-`` for none."""
    if document is None:
        return "-"
    port = document["port"]
    return str(document["ip"]) if port is None else f"{document['ip']}:{port}"


def flows_sentence(refused: int, ended: int) -> str:
    """What a reload reports about the live flows that the rules now in force would deny."""
    going_on = refused - ended
    parts = []
    if ended:
        what = "it" if ended == 1 else "they"
        parts.append(f"{_live_flows(ended)} ended: {what} would be denied if opened now")
    if going_on or not ended:
        goes, them = ("it goes", "it") if going_on == 1 else ("they go", "them")
        hint = f" ({goes} on; --enforce ends {them})" if going_on else ""
        parts.append(f"{_live_flows(going_on)} would be denied if opened now{hint}")
    return "; ".join(parts)


def _live_flows(count: int) -> str:
    return counted(count, "live flow")


def counted(count: int, noun: str) -> str:
    """``1 flow``, ``2 flows``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
