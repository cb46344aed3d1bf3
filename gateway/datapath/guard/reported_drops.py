"""How far a guard's counter has been reported: a file beside the journal, for the next daemon.

A guard outlives its daemon, and so does its counter; what the one has reported, the next must not
report again. The number holds for one guard only, which the file names.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from gateway.datapath.host.journal import Journal


def read(outside: str, identity: str) -> int | None:
    """The counter when it was last reported; None: nothing is known of that guard."""
    try:
        guard, counter = json.loads(_path(outside).read_text())
        return int(counter) if guard == identity else None
    except (OSError, ValueError, TypeError):
        return None


def write(outside: str, identity: str, counter: int) -> None:
    """Note it. Where that cannot be done, drops of the time until the next start go untold."""
    path = _path(outside)
    draft = path.with_suffix(".guard-new")
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft.write_text(json.dumps([identity, counter]))
        draft.replace(path)


def erase(outside: str) -> None:
    """There is no guard any more."""
    with contextlib.suppress(OSError):
        _path(outside).unlink()


def _path(outside: str) -> Path:
    return Journal.path(outside).with_suffix(".guard")
