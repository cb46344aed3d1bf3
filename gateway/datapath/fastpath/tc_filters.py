"""The fast path's filters on tc ingress: installed, removed, found again by priority."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable
from struct import Struct

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gateway.datapath.fastpath.map_layout import LAYOUT

FILTER = f"snatgw/{LAYOUT}"
PRIORITY, HANDLE = 0xAC57, 1
_INGRESS = 0xFFFFFFF2  # TC_H_CLSACT, TC_H_MIN_INGRESS
_number = Struct("=I")
_PROGRAM_ID = 11  # TCA_BPF_ID, which pyroute2 does not know
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

    The clsact qdisc stays: another program may use it by now.
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


def attached(interface: str) -> int | None:
    """The id of the program that an earlier daemon left on an interface, if its maps have our
    layout. Raises OSError or NetlinkError."""
    index = socket.if_nametoindex(interface)
    with IPRoute() as route:
        for message in route.get_filters(index=index, parent=_INGRESS):
            options = message.get_attr("TCA_OPTIONS")
            if options is None or options.get_attr("TCA_BPF_NAME") != FILTER:
                continue
            for _, value, *_ in options["attrs"]:
                header = value.get("header", {}) if isinstance(value, dict) else {}
                if header.get("type") == _PROGRAM_ID:
                    return int(_number.unpack_from(value.data, value.offset + 4)[0])
    return None
