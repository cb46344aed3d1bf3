"""What the kernel tells of changes to its own tables: that something changed, not what.

Netlink multicast: a socket that becomes readable. Messages are thrown away unread; whoever is
interested looks at the table itself, which is also right when messages were lost.
"""

from __future__ import annotations

import socket

_ROUTE, _RTMGRP_LINK = 0, 1  # linux/netlink.h, linux/rtnetlink.h
_NETFILTER, _NFNLGRP_NFTABLES = 12, 7  # linux/netlink.h, linux/netfilter/nfnetlink.h


class Notices:
    """One multicast group of this network namespace."""

    def __init__(self, protocol: int, groups: int) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._socket.bind((0, groups))

    def fileno(self) -> int:
        """The socket to poll for reading."""
        return self._socket.fileno()

    def any(self) -> bool:
        """Whether there were any since the last time. Waits for nothing."""
        seen = False
        while True:
            try:
                self._socket.recv(4096)
            except BlockingIOError:
                return seen
            except OSError:  # ENOBUFS: more than fitted
                pass
            seen = True

    def close(self) -> None:
        self._socket.close()


def of_links() -> Notices:
    """Interfaces went up, down, away or came back."""
    return Notices(_ROUTE, _RTMGRP_LINK)


def of_rules() -> Notices:
    """Rules of nf_tables changed, by ``nft`` or by the ``iptables`` that is built on it."""
    return Notices(_NETFILTER, 1 << _NFNLGRP_NFTABLES - 1)
