"""The terminal that ``snatgw top`` draws on: standard output.

Textual draws on standard error, so that ``snatgw top 2>errors`` would draw into the file. Keys come
from standard input, as ever. It knows nothing of what is drawn.
"""

from __future__ import annotations

import sys
from typing import Any

from textual.app import App
from textual.drivers.linux_driver import LinuxDriver


class Terminal(LinuxDriver):
    """Textual's driver, on standard output."""

    def __init__(self, app: App[Any], **options: Any) -> None:
        super().__init__(app, **options)
        self._file = sys.__stdout__
