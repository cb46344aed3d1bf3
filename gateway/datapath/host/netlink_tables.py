"""The kernel's tables of interfaces, addresses, routes and proxy neighbours, read in microseconds.

For looks that are repeated while packets wait: one request each over rtnetlink, filtered by the
kernel where it can (a router's routing table may have a million entries), and of the answer only
what is asked for. Whatever changes something goes through ``addresses_and_routes.py``.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface
from struct import Struct
from typing import NamedTuple

from gateway.datapath.host.closing import Closing
from gateway.datapath.host.netlink import DUMP, Kernel, attribute, attributes

_GETLINK, _GETADDR, _GETROUTE, _GETNEIGH = 18, 22, 26, 30  # linux/rtnetlink.h

_LINK = Struct("=BxHiII")  # ifinfomsg
_ADDRESS = Struct("=BBBBi")  # ifaddrmsg
_ROUTE = Struct("=BBBBBBBBI")  # rtmsg
_NEIGHBOUR = Struct("=B3xiHBB")  # ndmsg
_INDEX = Struct("=I")

_IFLA_ADDRESS, _IFLA_IFNAME = 1, 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 6, 7, 15
_NDA_DST = 1
_NTF_PROXY = 0x08
_UP, _NOARP, _LOWER_UP = 1, 1 << 7, 1 << 16  # linux/if.h: IFF_…


class LinkState(NamedTuple):
    """An interface: whether it is still the same one, and up."""

    number: int
    hardware: bytes
    up: bool
    carries: bool  # up, and so is what it is plugged into; and it speaks ARP


class Route(NamedTuple):
    """An IPv4 route; ``source`` is what the kernel sends from along it, if it is set."""

    destination: IPv4Address
    length: int
    table: int
    type: int
    interface: int
    metric: int
    source: IPv4Address | None


class Tables(Closing):
    """A socket to ask by. Every method raises OSError where the kernel does not answer."""

    def __init__(self) -> None:
        self._kernel = Kernel()
        self._kernel.filter_strictly(seconds=5.0)

    def link(self, name: str) -> LinkState | None:
        """An interface by its own name; None: there is none."""
        request = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        request += attribute(_IFLA_IFNAME, name.encode() + b"\0")
        try:
            for answer in self._ask(_GETLINK, 0, request):
                _, _, index, flags, _ = _LINK.unpack_from(answer)
                hardware = attributes(answer[_LINK.size :]).get(_IFLA_ADDRESS, b"")
                carries = flags & (_UP | _NOARP | _LOWER_UP) == _UP | _LOWER_UP
                return LinkState(index, hardware, bool(flags & _UP), carries)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
        return None

    def addresses(self) -> dict[int, list[IPv4Interface]]:
        """Every IPv4 address of this host, by its interface's index, in the kernel's order."""
        found: dict[int, list[IPv4Interface]] = {}
        for answer in self._ask(_GETADDR, DUMP, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
            _, length, _, _, index = _ADDRESS.unpack_from(answer)
            said = attributes(answer[_ADDRESS.size :])
            local = said.get(_IFA_LOCAL) or said.get(_IFA_ADDRESS)
            if local is not None:
                found.setdefault(index, []).append(IPv4Interface((local, length)))
        return found

    def routes(self, protocol: int, table: int) -> list[Route]:
        """The IPv4 routes of one origin (RTA protocol) in one table.

        Both are for the kernel to look for: other tables are not walked, and of this one nothing
        else comes, however many routes a routing daemon has there.
        """
        request = routes_request(protocol, table)
        try:
            answers = list(self._ask(_GETROUTE, DUMP, request))
        except OSError as error:
            if error.errno != errno.ENOENT:  # there is no such table yet
                raise
            return []
        return [
            route
            for answer in answers
            if answer[5] == protocol
            and (route := _route(answer)) is not None
            and route.table == table
        ]

    def way_to(self, destination: IPv4Address) -> int | None:
        """The interface that this host's own packets would leave by; None: there is no route."""
        request = _ROUTE.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0)
        request += attribute(_RTA_DST, destination.packed)
        try:
            for answer in self._ask(_GETROUTE, 0, request):
                route = _route(answer)
                return None if route is None else route.interface
        except OSError as error:
            if error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES):
                raise
        return None

    def proxies(self, interface: int) -> set[IPv4Address]:
        """The addresses that an interface answers ARP for in others' place, entry by entry."""
        request = _NEIGHBOUR.pack(socket.AF_INET, 0, 0, _NTF_PROXY, 0)
        found = set()
        for answer in self._ask(_GETNEIGH, DUMP, request):
            family, index, _, flags, _ = _NEIGHBOUR.unpack_from(answer)
            if family == socket.AF_INET and index == interface and flags & _NTF_PROXY:
                found.add(IPv4Address(attributes(answer[_NEIGHBOUR.size :])[_NDA_DST]))
        return found

    def close(self) -> None:
        """Close the connection to the kernel."""
        self._kernel.close()

    def _ask(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        """The answers' bodies: of one object, or of a dump, which is whole."""
        return iter(self._kernel.whole(kind, flags, body))


def routes_request(protocol: int, table: int) -> bytes:
    """What a dump of routes asks for: a filter, which the kernel applies if strict."""
    head = _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, protocol, 0, 0, 0)
    return head + attribute(_RTA_TABLE, _INDEX.pack(table))


def _route(answer: bytes) -> Route | None:
    _, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(answer)
    said = attributes(answer[_ROUTE.size :])

    def number(name: int) -> int:
        return _INDEX.unpack(said[name])[0] if name in said else 0

    source = said.get(_RTA_PREFSRC)
    return Route(
        IPv4Address(said.get(_RTA_DST, b"\0\0\0\0")),
        length,
        number(_RTA_TABLE) or table,
        kind,
        number(_RTA_OIF),
        number(_RTA_PRIORITY),
        None if source is None else IPv4Address(source),
    )
