"""Removes what a daemon has left to the next one, if no next one came.

The programs themselves carry nothing after the lease. What is left then, filters and memory, goes
by this: ``python -m gateway.datapath.fastpath.lease``, a process that outlives the daemon, does
nothing until then and holds nothing of it. It touches no interface that a gateway has by now, and
no program but those it was given. That neither it nor a start comes between the other's checking
and acting, a claim of its own sees to, for which a start waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from gateway.datapath.fastpath.pins import Pins
from gateway.datapath.fastpath.tc_filters import attached, detach
from gateway.datapath.host.interface_lock import is_claimed

LEASE = 15.0
"""Seconds that a next daemon has to come, which is less than a TCP peer's patience."""
_CLEARING = "\0snatgw-clearing"
_PATIENCE = 5.0


def clear_later(interfaces: Iterable[str]) -> bool:
    """Start that process for the programs on these interfaces, the outside one last.

    False: it cannot be started, or there is nothing on them.
    """
    try:
        programs = [(name, attached(name)) for name in interfaces]
        if any(program is None for _, program in programs):
            return False
        outlive(__name__, json.dumps(programs))
    except (OSError, NetlinkError):
        return False
    return True


def outlive(module: str, *arguments: str) -> None:
    """Run a module in a process that outlives this one. Raises OSError."""
    subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        start_new_session=True,
    )


def wait_for_clearing() -> None:
    """Return once no such process is at work: to be called by who has claimed its interfaces."""
    end = time.monotonic() + _PATIENCE
    while not _claim(hold=False) and time.monotonic() < end:
        time.sleep(0.01)


@contextlib.contextmanager
def clearing() -> Iterator[None]:
    """In turn with others of this kind, and with starts."""
    while not (claim := _claim(hold=True)):
        time.sleep(0.01)
    assert isinstance(claim, socket.socket)
    with claim:
        yield


def clear(programs: list[tuple[str, int]]) -> None:
    """Remove these, where no daemon has continued with them."""
    outside = programs[-1][0]
    for name, program in programs:
        try:
            ours = not is_claimed(name) and attached(name) == program
        except (OSError, NetlinkError):
            continue  # the interface is gone, and its filter with it
        if ours:
            detach([name])
            if name == outside:
                Pins(outside).remove()


def _claim(*, hold: bool) -> socket.socket | bool:
    """The claim to be at work, until it is closed; False: another has it."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(_CLEARING)
    except OSError:
        claim.close()
        return False
    if hold:
        return claim
    claim.close()
    return True


def main() -> None:
    """The argument: names and programs, as JSON."""
    programs = [(str(name), int(program)) for name, program in json.loads(sys.argv[1])]
    time.sleep(LEASE)
    with clearing():
        clear(programs)


if __name__ == "__main__":
    main()
