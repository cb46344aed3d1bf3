"""SNAT ports as rows: a bar for each VM, public IP and protocol, the fullest first.

    ████████▓▓▓▓··········|·····    █ held by live flows   ▓ cooling down   | the high-water mark

The marks differ without colours, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.tui.listing import Cell, Column, Row

LEAST_BAR, MOST_BAR = 16, 60
ALARM, WARNING = 0.9, 0.7
"""Parts of the allocation in use from which a bar is red, and yellow."""
_WIDTHS = {"vm": 8, "public": 15, "protocol": 4, "used": 11, "high": 5, "cool": 5, "failed": 6}


def columns(room: int) -> list[Column]:
    """The columns; the bar takes what room is left."""
    bar = room - sum(_WIDTHS.values()) - len(_WIDTHS)
    wide = max(LEAST_BAR, min(MOST_BAR, bar))
    vm = _WIDTHS["vm"] + max(0, min(16, bar - MOST_BAR))
    return [
        Column("vm", "VM", vm),
        Column("public", "PUBLIC IP", _WIDTHS["public"]),
        Column("protocol", "PROT", _WIDTHS["protocol"]),
        Column("bar", "SNAT PORTS", wide),
        Column("used", "USED/ALLOC", _WIDTHS["used"], right=True),
        Column("high", "HIGH", _WIDTHS["high"], right=True),
        Column("cool", "COOL", _WIDTHS["cool"], right=True),
        Column("failed", "FAILED", _WIDTHS["failed"], right=True),
    ]


def rows(ports: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> list[Row]:
    """A row for each pool; who has used most of what it has stands first."""
    wide = next(column.width for column in columns if column.name == "bar")
    ordered = sorted(ports, key=lambda p: (-_part(p), p["vm"], p["publicIp"], p["protocol"]))
    return [Row(key(pool), _cells(pool, wide)) for pool in ordered]


def key(pool: Mapping[str, Any]) -> str:
    """Identifies a pool; as words, it finds the pool's flows."""
    return f"{pool['vm']} {pool['publicIp']} {pool['protocol']}"


def bar(pool: Mapping[str, Any], wide: int) -> str:
    """The pool's allocation in ``wide`` characters."""
    allocated = max(pool["allocated"], 1)

    def cells(count: int) -> int:
        """What is there shows, and what is not full does not look it."""
        exact = count * wide / allocated
        return min(max(int(exact), 1 if count else 0), wide)

    used, cooling = cells(pool["used"]), cells(pool["coolDown"])
    cooling = min(cooling, used)
    if cooling == used and pool["used"] > pool["coolDown"]:
        cooling -= 1
    drawn = list("█" * (used - cooling) + "▓" * cooling + "·" * (wide - used))
    mark = cells(pool["highWater"])
    if mark > used:
        drawn[mark - 1] = "|"
    return "".join(drawn)


def _part(pool: Mapping[str, Any]) -> float:
    allocated = pool["allocated"]
    return float(pool["used"] / allocated) if allocated else 0.0


def _cells(pool: Mapping[str, Any], wide: int) -> list[Cell]:
    part = _part(pool)
    style = "red" if part >= ALARM else "yellow" if part >= WARNING else "green"
    failed = str(pool["failed"])
    return [
        pool["vm"],
        pool["publicIp"],
        pool["protocol"],
        (bar(pool, wide), style),
        f"{pool['used']}/{pool['allocated']}",
        str(pool["highWater"]),
        str(pool["coolDown"]),
        (failed, "bold red") if pool["failed"] else failed,
    ]
