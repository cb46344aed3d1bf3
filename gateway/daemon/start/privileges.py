"""What each process may still do once it has what it needs.
Runs in each process of the daemon as it starts.

The engine process keeps the two capabilities that packets and rules need. The API process, which
reads untrusted input, keeps nothing: no capability, no group, another user, irrevocably.
Where the program was started with less (a container), what is missing is simply not there to keep.
"""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterable

import pyprctl
from pyprctl import Cap

_ENGINE = frozenset({Cap.NET_ADMIN, Cap.NET_RAW})
_MAPS = frozenset({Cap.BPF})
SUPERVISOR = frozenset({Cap.KILL, Cap.SETUID, Cap.SETGID, Cap.SETPCAP, Cap.DAC_READ_SEARCH})
"""To start the API process as another user, to end it, and to read the configuration again."""
_CHANGE_USER = frozenset({Cap.SETUID, Cap.SETGID, Cap.CHOWN})
API_USERS = ("snatgw", "nobody")


def api_user() -> tuple[int, int]:
    """(user, group) that the API process runs as: ``snatgw`` if there is one, else ``nobody``.

    A program that may not change users (a container with few capabilities) keeps its own. To be
    asked before anything is given up.
    """
    if _CHANGE_USER - pyprctl.CapState.get_current().effective:
        return os.getuid(), os.getgid()
    for name in API_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    return 65534, 65534


def engine(*, maps: bool) -> frozenset[Cap]:
    """Rules, addresses and the packet queue; with a fast path, its maps.

    Kernels before 6.5 ask for CAP_BPF at every change of a map.
    """
    return _ENGINE | _MAPS if maps else _ENGINE


def keep_only(capabilities: Iterable[Cap]) -> None:
    """Give up every other capability, for this process and for all that it will ever start."""
    wanted = set(capabilities)
    _bound(wanted)
    state = pyprctl.CapState.get_current()
    kept = state.permitted & wanted
    state.permitted, state.effective, state.inheritable = kept, set(kept), set()
    state.set_current()


def drop_to(user: int, group: int) -> None:
    """Become ``user`` with no capability, no supplementary group and no way to gain any.

    Raises OSError where the process is neither that user nor allowed to become it.
    """
    _bound(set())  # takes a capability that the change of user removes
    if os.getuid() != user or os.getgid() != group:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    keep_only(())
    pyprctl.set_no_new_privs()
    # after a change of user the process may otherwise be traced by that user's other processes
    pyprctl.set_dumpable(False)


def _bound(wanted: set[Cap]) -> None:
    """Narrow what programs started from here can have, as far as this process may."""
    if pyprctl.cap_ambient_supported():
        pyprctl.cap_ambient_clear_all()
    if Cap.SETPCAP in pyprctl.CapState.get_current().effective:
        for capability in Cap.probe_supported() - wanted:
            if pyprctl.capbset_read(capability):
                pyprctl.capbset_drop(capability)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the process ``parent`` ends, however it ends.

    To be called after a change of user, which undoes it.
    """
    pyprctl.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)
