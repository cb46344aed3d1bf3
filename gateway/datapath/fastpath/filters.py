"""The fast path's filters on tc ingress: put there, taken away, found again by priority."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

FILTER = "snatgw"
PRIORITY, HANDLE = 0xAC57, 1
_INGRESS = 0xFFFFFFF2  # TC_H_CLSACT, TC_H_MIN_INGRESS
_ALL = 0x0003  # ETH_P_ALL; pyroute2 turns it into network order


def attach(interface: str, program: int) -> None:
    """Run a program (its descriptor) on what an interface receives, instead of an earlier one.

    Raises OSError or NetlinkError.
    """
    index = socket.if_nametoindex(interface)
    with IPRoute() as route:
        try:
            route.tc("add", "clsact", index)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
        route.tc(
            "replace-filter",
            "bpf",
            index,
            parent=_INGRESS,
            prio=PRIORITY,
            handle=HANDLE,
            fd=program,
            name=FILTER,
            direct_action=True,
            protocol=_ALL,
        )


def detach(interfaces: Iterable[str]) -> None:
    """Remove our filters from interfaces, as far as these are there and have one.

    The clsact qdisc stays: somebody else may use it by now.
    """
    with IPRoute() as route:
        for name in interfaces:
            with contextlib.suppress(OSError, NetlinkError):
                route.tc(
                    "del-filter",
                    "bpf",
                    socket.if_nametoindex(name),
                    parent=_INGRESS,
                    prio=PRIORITY,
                    handle=HANDLE,
                    protocol=_ALL,
                )
