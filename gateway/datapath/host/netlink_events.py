"""The kernel's notifications of changes to its own tables: that something changed, not what.

Netlink multicast: a socket that becomes readable. A message is read only for whether it may
matter; the subscriber reads the table itself, which is also right when messages were
lost.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

from gateway.datapath.host.addresses_and_routes import ROUTE_PROTOCOL

_ROUTE, _RTMGRP_TC = 0, 0x8  # linux/netlink.h, linux/rtnetlink.h
_NETFILTER, _NFNLGRP_NFTABLES = 12, 7  # linux/netlink.h, linux/netfilter/nfnetlink.h


# linux/rtnetlink.h: RTNLGRP_LINK, _NEIGH, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_NETCONF
_NETWORK_GROUPS = (1, 3, 5, 7, 24)
_NEWROUTE, _NEWNEIGH, _KINDS = 24, 28, 4  # each followed by DEL, GET, SET
_NTF_PROXY = 0x08
_STATIC = 4  # RTPROT_STATIC; below it the kernel's, and those of who names none
_HEADER = 16  # bytes of nlmsghdr
READS = 512
"""Messages that one look reads: others wait for the next, and packets come in between."""


class NetlinkEvents:
    """Multicast groups of this network namespace. ``matters``: of a message, as it is."""

    def __init__(
        self, protocol: int, groups: int, matters: Callable[[bytes], bool] = lambda message: True
    ) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        self._socket.bind((0, groups))
        self._matters = matters

    def fileno(self) -> int:
        """The socket to poll for reading."""
        return self._socket.fileno()

    def any(self) -> bool:
        """Whether there were any since the last time. Waits for nothing."""
        seen = False
        for _ in range(READS):
            try:
                message = self._socket.recv(4096)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more than fitted
                seen = True
                continue
            seen = seen or self._matters(message)
        return seen

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def of_network() -> NetlinkEvents:
    """Interfaces, addresses, routes, proxy neighbours or per-interface settings changed."""
    groups = sum(1 << group - 1 for group in _NETWORK_GROUPS)
    return NetlinkEvents(_ROUTE, groups, may_matter)


def may_matter(message: bytes) -> bool:
    """Routes come by the thousand where a routing daemon runs, neighbours wherever packets go: of
    a daemon's routes only default ones and those of single addresses; of neighbours proxies."""
    kind = int.from_bytes(message[4:6], sys.byteorder)
    if _NEWROUTE <= kind < _NEWROUTE + _KINDS:
        length, protocol = message[_HEADER + 1], message[_HEADER + 5]
        return length in (0, 32) or protocol <= _STATIC or protocol == ROUTE_PROTOCOL
    if _NEWNEIGH <= kind < _NEWNEIGH + _KINDS:
        return bool(message[_HEADER + 10] & _NTF_PROXY)
    return True


def of_filters() -> NetlinkEvents:
    """Filters and queueing disciplines changed."""
    return NetlinkEvents(_ROUTE, _RTMGRP_TC)


def of_forwarding() -> NetlinkEvents:
    """Forwarding was turned on or off, for an interface or for the host."""
    return NetlinkEvents(_ROUTE, 1 << _NETWORK_GROUPS[-1] - 1)


def of_rules() -> NetlinkEvents:
    """Rules of nf_tables changed, by ``nft`` or by the ``iptables`` that is built on it."""
    return NetlinkEvents(_NETFILTER, 1 << _NFNLGRP_NFTABLES - 1)
