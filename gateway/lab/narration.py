"""How the demo talks: sections, commands with their output, and checks that are counted.

A check is printed with what was seen; one that fails says what was expected, and the demo's exit
status follows from the count. Colours only on a terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

GREEN, RED, BOLD, DIM, PLAIN = "\033[32m", "\033[31m", "\033[1m", "\033[2m", "\033[0m"


class Narrator:
    """Prints the demo and counts the checks that failed."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._coloured = out.isatty() and "NO_COLOR" not in os.environ
        self.passed = 0
        self.failed: list[str] = []

    def section(self, title: str) -> None:
        """A chapter's title."""
        self._print(f"\n{self._paint(BOLD, title)}\n{'─' * len(title)}")

    def say(self, text: str) -> None:
        """A paragraph."""
        self._print(text)

    def command(self, where: str, command: Sequence[str], output: str) -> None:
        """A command that was run, as a user would type it, and what it printed."""
        self._print(self._paint(DIM, f"  {where} $ {' '.join(command)}"))
        for line in output.rstrip().splitlines():
            self._print(f"    {line}")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Rows under a header, in columns."""
        lines = [list(header), *([str(cell) for cell in row] for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        for number, line in enumerate(lines):
            text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            self._print("    " + (self._paint(DIM, text) if number == 0 else text).rstrip())

    def check(self, happened: bool, claim: str, seen: object = None) -> bool:
        """Print a claim with its mark; `seen` is shown where the claim does not hold."""
        if happened:
            self.passed += 1
            self._print(f"  {self._paint(GREEN, '✓')} {claim}")
        else:
            self.failed.append(claim)
            self._print(f"  {self._paint(RED, '✗')} {claim}\n      but saw: {seen}")
        return happened

    def conclude(self) -> int:
        """Print the result; returns the exit status."""
        if self.failed:
            self._print(self._paint(RED, f"\n{len(self.failed)} of {self._total} checks failed:"))
            for claim in self.failed:
                self._print(f"  ✗ {claim}")
            return 1
        self._print(self._paint(GREEN, f"\nAll {self._total} checks passed."))
        return 0

    @property
    def _total(self) -> int:
        return self.passed + len(self.failed)

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{PLAIN}" if self._coloured else text

    def _print(self, text: str) -> None:
        print(text, file=self._out, flush=True)
