"""One gateway an interface: a claim that ends with the process that made it.

An abstract Unix socket's name is unique in a network namespace and vanishes with its owner, also
after a SIGKILL. So there is no stale lock to clean up, and the same interface name in another
namespace is another claim.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from gateway.datapath.errors import DatapathError
from gateway.datapath.host.closing import Closing


def _name(interface: str) -> str:
    return f"\0snatgw/{interface}"


def is_claimed(interface: str) -> bool:
    """Whether a live gateway of this network namespace has the interface."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(_name(interface))
        except OSError:
            return True
    return False


class InterfaceLocks(Closing):
    """The interfaces of one gateway, held until ``close`` or the end of the process."""

    def __init__(self, interfaces: Iterable[str]) -> None:
        """Raises DatapathError naming each interface that another gateway has."""
        self._sockets: list[socket.socket] = []
        problems = []
        for interface in interfaces:
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind(_name(interface))
            except OSError:
                claim.close()
                problems.append(f"{interface}: another gateway on this host has this interface")
            else:
                self._sockets.append(claim)
        if problems:
            self.close()
            raise DatapathError(problems)

    def close(self) -> None:
        """Let others have the interfaces."""
        for claim in self._sockets:
            claim.close()
        self._sockets.clear()
