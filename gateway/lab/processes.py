"""Starting, finding and ending the lab's processes.

Each runs in a namespace under `ip netns exec` (which becomes the program: one process, one id),
detached from the terminal, its output in a log file. A process is known by its id and the time
it started, so that an id that was reused for another process is never signalled. What no
list knows of is found by the network namespace it lives in.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.lab.namespaces import NETNS_DIRECTORY

PROC = Path("/proc")
TERMINATION_SECONDS = 7.0
"""The daemon may take 5 seconds to remove its rules."""
KILL_SECONDS = 3.0
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Process:
    """A process of the lab, as the state file keeps it."""

    service: str
    namespace: str
    pid: int
    start_time: int
    """In clock ticks since boot, from /proc/PID/stat."""
    log: str

    @property
    def running(self) -> bool:
        """Whether it is there still, and not another with its id."""
        return start_time(self.pid) == self.start_time


@contextlib.contextmanager
def termination_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP end like Ctrl-C, so that what is half up is taken down.

    By this process only: pyroute2 forks short-lived children and ends them with SIGTERM, and one
    that unwound this stack would take down what its parent builds (seen).
    """
    owner = os.getpid()

    def interrupt(number: int, _frame: object) -> None:
        if os.getpid() != owner:
            os._exit(128 + number)
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def module_command(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module of this very package, wherever the user stands: `-P` keeps a
    `gateway` in the current directory from being taken for it."""
    return (sys.executable, "-P", "-m", module, *arguments)


def program() -> str:
    """What to type for `snatgw` here: its path, where the shell would not find the name."""
    beside = Path(sys.executable).with_name("snatgw")
    return "snatgw" if shutil.which("snatgw") or not beside.exists() else str(beside)


def module_environment(**more: str) -> dict[str, str]:
    """The environment for `module_command`; the package need not be installed."""
    source = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": source if not path else f"{source}{os.pathsep}{path}",
        "PYTHONUNBUFFERED": "1",
        **more,
    }


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; what follows it starts at field 3.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def spawn(
    service: str,
    namespace: str,
    command: Sequence[str],
    log: Path,
) -> Process:
    """Start `command` in the namespace, detached. Raises OSError if it cannot be started."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=module_environment(),
        )
    return Process(service, namespace, child.pid, start_time(child.pid) or 0, str(log))


def inside(namespaces: Iterable[str]) -> list[int]:
    """Every process whose network namespace is one of these, but for this one and its parents."""
    identities = set()
    for name in namespaces:
        with contextlib.suppress(OSError):
            found = (NETNS_DIRECTORY / name).stat()
            identities.add((found.st_dev, found.st_ino))
    if not identities:
        return []
    spared = _ancestors()
    pids = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) in spared:
            continue
        with contextlib.suppress(OSError):
            own = (entry / "ns" / "net").stat()
            if (own.st_dev, own.st_ino) in identities:
                pids.append(int(entry.name))
    return pids


def end(processes: Iterable[Process], namespaces: Iterable[str]) -> None:
    """End the known processes, then whatever else lives in the namespaces.

    SIGTERM first, SIGKILL for what is still there after `TERMINATION_SECONDS`. Returns when all
    are gone; raises TimeoutError naming what even SIGKILL did not end.
    """
    names = list(namespaces)
    known = [process for process in processes if process.running]
    _signal((process.pid for process in known), signal.SIGTERM)
    _wait(lambda: any(process.running for process in known), TERMINATION_SECONDS)
    _signal((process.pid for process in known if process.running), signal.SIGKILL)
    _signal(inside(names), signal.SIGTERM)
    _wait(lambda: bool(inside(names)), TERMINATION_SECONDS)
    _signal(inside(names), signal.SIGKILL)
    if not _wait(lambda: bool(_survivors(known, names)), KILL_SECONDS):
        pids = ", ".join(map(str, _survivors(known, names)))
        raise TimeoutError(f"processes that do not end: {pids}")


def _survivors(known: Iterable[Process], namespaces: Sequence[str]) -> list[int]:
    return sorted({*(p.pid for p in known if p.running), *inside(namespaces)})


def _ancestors() -> set[int]:
    pids = {os.getpid()}
    pid = os.getpid()
    while pid > 1:
        try:
            stat = (PROC / str(pid) / "stat").read_text()
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
        pids.add(pid)
    return pids


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait(busy: Callable[[], bool], seconds: float) -> bool:
    """Poll until `busy` says no; False if it still says yes after `seconds`."""
    deadline = time.monotonic() + seconds
    while busy():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
