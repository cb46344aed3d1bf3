"""What a screen shows, as lines of text, and waiting until it shows something."""

from __future__ import annotations

import asyncio
import html
import re
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from textual.app import App
from textual.pilot import Pilot

SIZE = (80, 24)
DEADLINE = 60.0
_CELL = 12.2
"""Width of a character in Textual's screenshots."""
_TEXT = re.compile(r'<text class="[^"]*" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>')


def lines(app: App[Any]) -> list[str]:
    """The screen, a text for each line."""
    found: dict[float, dict[int, str]] = defaultdict(dict)
    for x, y, text in _TEXT.findall(app.export_screenshot()):
        plain = html.unescape(text).replace("\xa0", " ")
        found[float(y)][round(float(x) / _CELL)] = plain
    return [_joined(found[y]) for y in sorted(found)]


def _joined(parts: dict[int, str]) -> str:
    line = ""
    for start in sorted(parts):
        line = line.ljust(start) + parts[start]
    return line.rstrip()


async def until(
    pilot: Pilot[Any], wanted: Callable[[list[str]], object], what: str = ""
) -> list[str]:
    """The screen once it is ``wanted``; the last one seen fails the test."""
    end = time.monotonic() + DEADLINE
    while not wanted(seen := lines(pilot.app)):
        assert time.monotonic() < end, "\n".join([f"never {what}:", *seen])
        await pilot.pause()
        await asyncio.sleep(0.02)
    return seen


async def shows(pilot: Pilot[Any], *texts: str) -> list[str]:
    """The screen once every text is on it."""
    return await until(pilot, lambda seen: all(t in "\n".join(seen) for t in texts), f"{texts}")


async def hides(pilot: Pilot[Any], text: str) -> list[str]:
    """The screen once the text is not on it."""
    return await until(pilot, lambda seen: text not in "\n".join(seen), f"without {text}")
