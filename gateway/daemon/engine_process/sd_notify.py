"""systemd's readiness protocol (sd_notify(3)), for as much of it as a gateway needs.
Runs in the engine process.
"""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Notify the service manager, e.g. ``READY=1``. Does nothing without one; never fails."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path or path[0] not in "/@":
        return
    address = "\0" + path[1:] if path[0] == "@" else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.sendto(state.encode(), address)
    except OSError:
        return  # the service manager is gone
