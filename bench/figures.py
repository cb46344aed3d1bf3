"""What the measurements gave, what they must reach, and the table that people read."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench.forwarders import FORWARDERS, LETTERS, OTHERS

COMPARED = (("d", "c"), ("d", "b"), ("e", "b"), ("e", "a"))  # ours, and what it is related to
COMPARED_TO_OTHERS = (("d", "f"), ("e", "f"), ("d", "g"), ("e", "g"))
FILLING_TOLERANCE = 1.10
"""Two medians of the same thing differ by some percent here; "no slower" cannot mean less."""

IDLE_LOAD = 0.3  # load average up to which the machine counts as idle
NOT_IDLE = "NOTE: other programs were running: these figures are of what they left"


@dataclass
class Row:
    """One figure per forwarder and round; the median counts.

    ``targets``: the least that a ratio, "d/c" or another, may be.
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool = True
    targets: dict[str, float] = field(default_factory=dict)
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, forwarder: str, value: float) -> None:
        """One round's figure."""
        self.rounds.setdefault(forwarder, []).append(value)

    def value(self, forwarder: str) -> float | None:
        """The median, or None where there is nothing to measure."""
        values = self.rounds.get(forwarder)
        return median(values) if values else None

    def ratio(self, ours: str, letter: str) -> float | None:
        """One forwarder next to another, by their letters: above 1 is better than it.

        The median of the rounds' own ratios, since a round's two figures are seconds apart and the
        rounds are minutes: what else the machine does changes less within one.
        """
        names = {known: name for name, known in LETTERS.items()}
        own, other = (self.rounds.get(names[each], []) for each in (ours, letter))
        pairs = zip(own, other, strict=False)
        ratios = [ours / theirs for ours, theirs in pairs if ours > 0 and theirs > 0]
        if not ratios:
            return None
        return median(ratios) if self.higher_is_better else 1 / median(ratios)


@dataclass
class Check:
    """A figure that must reach something."""

    name: str
    value: float
    limit: float
    at_most: bool
    passed: bool = field(init=False)

    def __post_init__(self) -> None:
        self.passed = self.value <= self.limit if self.at_most else self.value >= self.limit


@dataclass
class Alone:
    """A figure that has nothing to be compared with. ``limit``: the most it may be."""

    name: str
    title: str
    value: float
    unit: str
    limit: float | None = None


def checks(rows: Iterable[Row], alone: Iterable[Alone]) -> list[Check]:
    """Every target whose figure was measured."""
    result = []
    for row in rows:
        for name, least in row.targets.items():
            ratio = row.ratio(*name.split("/"))
            if ratio is not None:
                title = f"{row.title}: {name}"
                result.append(Check(title, round(ratio, 3), least, at_most=False))
    for item in alone:
        if item.limit is not None:
            result.append(Check(item.title, round(item.value, 3), item.limit, at_most=True))
    return result


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    release = platform.freedesktop_os_release()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "system": release.get("PRETTY_NAME", "Linux"),
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memoryGiB": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "python": platform.python_version(),
        "loadAverageBefore": round(os.getloadavg()[0], 2),
    }


def document(
    facts: dict[str, Any],
    rows: list[Row],
    alone: list[Alone],
    settings: dict[str, Any],
    failed: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything, for a program to read; ``failed``: what could not be measured, and why."""
    return {
        "machine": facts,
        "settings": settings,
        "rows": [
            {
                "name": row.name,
                "title": row.title,
                "unit": row.unit,
                "higherIsBetter": row.higher_is_better,
                "medians": {name: row.value(name) for name in row.rounds},
                "rounds": row.rounds,
                "ratios": {
                    "/".join(pair): ratio
                    for pair in COMPARED + COMPARED_TO_OTHERS
                    if (ratio := row.ratio(*pair)) is not None
                },
            }
            for row in rows
        ],
        "alone": [asdict(item) for item in alone],
        "targets": [asdict(check) for check in checks(rows, alone)],
        "failed": list(failed),
    }


def table(facts: dict[str, Any], rows: list[Row], alone: list[Alone]) -> str:
    """The same for a person: at most 120 columns."""
    lines = [
        f"{facts['date']}  {facts['system']}, kernel {facts['kernel']}, Python {facts['python']}",
        f"{facts['processor']}, {facts['cores']} cores, {facts['memoryGiB']} GiB",
        f"load average before: {facts['loadAverageBefore']}; {facts['secondsTaken']} s taken",
        *([NOT_IDLE] if facts["loadAverageBefore"] > IDLE_LOAD else []),
        "",
        "(a) kernel forwards  (b) kernel masquerades  (c) bare NetfilterQueue loop",
        "(d) snatgw, every packet in Python  (e) snatgw, fast path    d/x above 1: better than x",
    ]
    if rows:
        lines += ["", *_rows(rows, FORWARDERS, COMPARED)]
    others = [row for row in rows if any(row.rounds.get(name) for name in OTHERS)]
    if others:
        lines += ["", "Other programs of user space: (f) slirp4netns  (g) pasta"]
        lines += _rows(others, (*FORWARDERS[-2:], *OTHERS), COMPARED_TO_OTHERS)
    if alone:
        lines.append("")
        lines += [f"{i.title:<66}{_number(i.value):>8} {i.unit}" for i in alone]
    judged = checks(rows, alone)
    if judged:
        lines += ["", "Targets"]
    for check in judged:
        relation = "at most" if check.at_most else "at least"
        verdict = "PASS" if check.passed else "FAIL"
        lines.append(
            f"{verdict}  {check.name.strip()}: {check.value:g} ({relation} {check.limit:g})"
        )
    return "\n".join(line.rstrip() for line in lines)


def _rows(
    rows: Iterable[Row], names: Sequence[str], pairs: Iterable[tuple[str, str]]
) -> Iterator[str]:
    head = [f"({LETTERS[name]})" for name in names] + ["/".join(pair) for pair in pairs]
    yield f"{'':<46}{'':<7}" + "".join(f"{cell:>7}" for cell in head)
    for row in rows:
        cells = [_number(row.value(name)) for name in names]
        cells += ["" if r is None else f"{r:.2f}" for r in (row.ratio(*p) for p in pairs)]
        yield f"{row.title:<46}{row.unit:<7}" + "".join(f"{cell:>7}" for cell in cells)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}"
