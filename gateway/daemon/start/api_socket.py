"""The Unix socket that the API is served on: made, guarded against a second daemon, removed.
Runs in the engine process, before the loop begins.

A socket on which a process answers belongs to a live daemon and is left alone; one on which none
does is what a crash left, and is replaced. The engine process makes it, because its directory
belongs to root; the API process only accepts on it.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
from pathlib import Path

MODE = 0o660
GROUP = "snatgw"
BACKLOG = 128


class ApiSocketError(Exception):
    """Why there can be no socket at that path, in one line."""


def open_api_socket(path: Path) -> socket.socket:
    """A listening socket at ``path``; raises ApiSocketError."""
    if len(os.fsencode(path)) > 107:
        raise ApiSocketError(f"{path}: too long for a Unix socket, at most 107 bytes are allowed")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        mask = os.umask(0o177)
        try:
            listener.bind(os.fspath(path))
        finally:
            os.umask(mask)
        give_to_group(path)
        path.chmod(MODE)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ApiSocketError(f"{path}: {error.strerror or error}") from error
    except ApiSocketError:
        listener.close()
        raise
    return listener


def remove_api_socket(path: Path) -> None:
    """Remove the socket file; one that is gone already is no error."""
    path.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ApiSocketError(f"{path}: exists and is no socket; remove it or choose another --api")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a live daemon's backlog may be full: that is an answer, too
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                path.unlink(missing_ok=True)
                return
            if error.errno != errno.EAGAIN:
                raise
    raise ApiSocketError(f"{path}: another daemon answers there; stop it or choose another --api")


def give_to_group(target: Path | int) -> None:
    """Let the group ``snatgw``, if there is one, have a path or an open file beside root.

    Without CAP_CHOWN (a container with few capabilities) it stays root's alone.
    """
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(target, -1, grp.getgrnam(GROUP).gr_gid)
