"""What the daemon says to whoever started it: lines on standard error."""

from __future__ import annotations

import sys


def say(line: str) -> None:
    """A line for the operator."""
    print(line, file=sys.stderr, flush=True)
