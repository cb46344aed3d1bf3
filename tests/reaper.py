"""What a killed test run leaves behind goes: namespaces, processes, directories, labs.

Fixtures take away what they made, also after Ctrl-C. What no fixture can do, after SIGKILL, SIGTERM
or a second Ctrl-C, a process beside the tests does: it waits until the pipe from them ends, which
the kernel sees to whatever ends them. ``tell`` names a thing before it is made, so that there is no
moment at which it is there and unknown. Processes need no telling: each that the tests start, and
what it starts, inherits a mark in its environment.

This file imports the standard library alone, since it runs as a program of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

MARK = "SNATGW_TESTS_OF"
"""Its value is the id of the test process to which a process belongs."""
NETNS = Path("/run/netns")
JOURNALS = Path("/run/snatgw")
PATIENCE = 20.0

_pipe: IO[str] | None = None


def tell(kind: str, name: str | Path) -> None:
    """A ``namespace``, ``directory`` or ``lab`` that is about to be made."""
    global _pipe
    if _pipe is None:
        _pipe = _start()
    _pipe.write(f"{kind} {name}\n")
    _pipe.flush()


def _start() -> IO[str]:
    mark = f"{MARK}={os.getpid()}"
    unmarked = {name: value for name, value in os.environ.items() if name != MARK}
    os.environ[MARK] = str(os.getpid())
    process = subprocess.Popen(
        [sys.executable, "-I", __file__, mark, str(Path(__file__).parents[1])],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env=unmarked,
        start_new_session=True,  # Ctrl-C is for the tests
    )
    assert process.stdin is not None
    return process.stdin


def main(mark: str, root: str) -> None:
    """Hear what there is until the tests end, then take away what is there still."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    told = [line.rstrip("\n").split(" ", 1) for line in sys.stdin]
    _kill_all(mark)
    for kind, name in reversed(told):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            if kind == "namespace":
                remove_namespace(name)
            elif kind == "directory":
                shutil.rmtree(name, ignore_errors=True)
            elif kind == "lab":
                command = [sys.executable, "-m", "gateway", "lab", "down", "--name", name]
                subprocess.run(command, cwd=root, capture_output=True, timeout=60, check=False)


def _kill_all(mark: str) -> None:
    """Twice nobody: one look may miss a process that its parent just left behind."""
    empty, end = 0, time.monotonic() + PATIENCE
    while empty < 2 and time.monotonic() < end:
        found = marked(mark)
        empty = 0 if found else empty + 1
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.02)


def marked(mark: str) -> list[int]:
    wanted, found = mark.encode(), []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and place.name != str(os.getpid()):
            with contextlib.suppress(OSError):
                if wanted in (place / "environ").read_bytes().split(b"\0"):
                    found.append(int(place.name))
    return found


def remove_namespace(name: str) -> None:
    """With its processes, and with what gateways left there for the next: the journal of one that
    was killed, and how much of a guard's counter was reported."""
    place = NETNS / name
    if not place.exists():
        return
    inside = subprocess.run(
        ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
    )
    for process in inside.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)
    for left in JOURNALS.glob(f"*.{place.stat().st_ino}.*"):
        left.unlink(missing_ok=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
