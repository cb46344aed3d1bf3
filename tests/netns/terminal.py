"""A program in a terminal of its own (tmux): what its screen shows, and keys for it."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tests.netns.topology import eventually

_serial = itertools.count()


class Terminal:
    """``with Terminal(directory, "snatgw", "top") as terminal:`` runs it at 80×24."""

    def __init__(
        self,
        directory: Path,
        *command: str,
        columns: int = 80,
        lines: int = 24,
        environment: tuple[str, ...] = (),
    ) -> None:
        self._socket = directory / f"terminal{next(_serial)}"
        self._command = ("env", "LC_ALL=C.UTF-8", *environment, *command)
        self._size = ("-x", str(columns), "-y", str(lines))

    def __enter__(self) -> Terminal:
        self._tmux("-f", "/dev/null", "new-session", "-d", *self._size, *self._command)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        subprocess.run(
            ["tmux", "-S", self._socket, "kill-server"], capture_output=True, check=False
        )

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-u", "-S", self._socket, *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        return done.stdout

    def press(self, *keys: str) -> None:
        """Keys by tmux's names: ``Enter``, ``Escape``, ``Tab``, ``p``."""
        self._tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        """Letters, one after the other."""
        self._tmux("send-keys", "-l", text)

    @property
    def ended(self) -> bool:
        """Whether the program has ended, and the terminal with it."""
        command = ["tmux", "-S", str(self._socket), "has-session"]
        return subprocess.run(command, capture_output=True, check=False).returncode != 0

    def screen(self, *, colours: bool = False) -> str:
        """The lines on the screen; with escape sequences if asked for."""
        return self._tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def until(self, wanted: Callable[[str], object]) -> str:
        """The screen once it is ``wanted``."""
        seen: str = eventually(self.screen, wanted)
        return seen

    def shows(self, *texts: str) -> str:
        """The screen once every text is on it."""
        return self.until(lambda seen: all(text in seen for text in texts))

    def line(self, text: str) -> str:
        """The first line with the text, waited for."""
        seen = self.shows(text)
        return next(line for line in seen.splitlines() if text in line)
