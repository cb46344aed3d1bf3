"""What a diagnosis consists of, and how it writes numbers: thousands, durations, lists.
Runs in the API process.

A finding's text has each number with its basis (of how many, since when, toward whom). Its data has
the same numbers for programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

CRITICAL, WARNING, INFORMATION, GOOD = SEVERITIES = (
    "Critical",
    "Warning",
    "Information",
    "Good",
)


@dataclass(frozen=True)
class Finding:
    """One thing that was found. ``vm`` None: it is about the gateway, or all VMs.

    A line of ``advice`` may have several: those behind the first are commands, not to be wrapped.
    """

    severity: str
    vm: str | None
    title: str
    text: str
    advice: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    host: bool = False
    """It is about the host's network: while it is critical no VM is healthy."""

    def document(self) -> dict[str, Any]:
        """The API's JSON."""
        return {
            "severity": self.severity,
            "vm": self.vm,
            "title": self.title,
            "text": self.text,
            "advice": list(self.advice),
            "data": self.data,
        }


def count(number: int, noun: str) -> str:
    """``1 flow``, ``2 flows``, ``1,024 ports``."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Of the nouns that findings have."""
    return noun[:-1] + "ies" if noun.endswith("y") else noun + "s"


def be(number: int) -> str:
    """``is`` or ``are``."""
    return "is" if number == 1 else "are"


def percent(part: float, whole: float) -> str:
    """``82 %``; what is not all is never rounded up to 100, what is not nothing never down to 0."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 1:
        return "under 1 %"
    return f"{int(share + 0.5) if share >= 100 else min(int(share + 0.5), 99)} %"


def duration(seconds: float) -> str:
    """``39 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, rest = divmod(whole // 60, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def forecast(seconds: float, scale: float) -> str:
    """A duration to come: Azure's, and what it is for who waits."""
    if scale == 1:
        return duration(seconds)
    return (
        f"{duration(seconds)} of Azure's time ({duration(seconds / scale)} at timeScale {scale:g})"
    )


def rate(per_second: float) -> str:
    """``8.1 a second``, or by the minute where it is slow."""
    if per_second >= 1:
        return f"{per_second:.1f} a second"
    return f"{per_second * 60:.1f} a minute"


def listed(items: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def endpoint(remote: tuple[str, int | None]) -> str:
    """A destination: its address, with the port where that is part of it."""
    return remote[0] if remote[1] is None else f"{remote[0]}:{remote[1]}"
