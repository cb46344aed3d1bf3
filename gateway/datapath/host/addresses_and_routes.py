"""Interfaces, neighbours, routes and per-interface sysctls, by pyroute2 and /proc/sys.

The outside interface answers ARP for public IPs by proxy neighbour entries (proxy ARP). The kernel
answers a proxied address only if its route leads out of another interface, so each public IP has
/32 routes through the inside; no packet takes them, since all are rewritten before routing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gateway.datapath.errors import DatapathError
from gateway.datapath.host import sysctl
from gateway.datapath.host.netlink_tables import Route, Tables

ROUTE_PROTOCOL = 217  # tags our routes; iproute2 names no other program for it
_NTF_PROXY = 0x08
_SCOPE_LINK, _SCOPE_HOST = 253, 254
_TABLE_MAIN, _TABLE_LOCAL = 254, 255
_UNICAST, _LOCAL = 1, 2  # linux/rtnetlink.h: RTN_…
_ABSENT = (2, 3, 19)  # ENOENT, ESRCH, ENODEV


@dataclass(frozen=True)
class Link:
    """An interface as it is: index, hardware address, whether it is up, IPv4 addresses."""

    name: str
    index: int
    hardware: str
    up: bool
    addresses: tuple[IPv4Interface, ...]


def find_link(name: str) -> Link | None:
    """An interface of this network namespace, or None. Raises OSError."""
    with IPRoute() as netlink:
        try:
            indices = netlink.link_lookup(ifname=name)
            if not indices:
                return None
            index = indices[0]
            (found,) = netlink.get_links(index)
            addresses = [
                IPv4Interface(f"{entry.get_attr('IFA_LOCAL')}/{entry['prefixlen']}")
                for entry in netlink.get_addr(family=socket.AF_INET, index=index)
            ]
        except NetlinkError as error:
            if error.code not in _ABSENT:
                raise OSError(error.code, os.strerror(abs(error.code)), name) from None
            return None  # it went meanwhile
        hardware = found.get_attr("IFLA_ADDRESS") or ""
        return Link(name, index, hardware, bool(found["flags"] & 1), tuple(addresses))


def real_name(name: str) -> str:
    """An interface's own name, by which /proc and netfilter know it; ``name`` may be another one
    (``altname``). Without such an interface it is ``name`` itself."""
    with IPRoute() as netlink:
        found = netlink.link_lookup(ifname=name) or netlink.link_lookup(altname=name)
    try:
        return socket.if_indextoname(found[0]) if found else name
    except OSError:
        return name


def host_addresses() -> dict[IPv4Address, str]:
    """Every IPv4 address of this host, with the interface's name."""
    with IPRoute() as netlink:
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in netlink.get_links()}
        return {
            IPv4Address(entry.get_attr("IFA_LOCAL")): names.get(entry["index"], "?")
            for entry in netlink.get_addr(family=socket.AF_INET)
        }


class PublicAddresses:
    """Makes this host answer for public IPs on ``outside``: a neighbour entry for each, and a route
    by each interface inside, the first of them preferred, so that none depends on one of them.

    The routes' source is the outside interface's own address: this host's programs send from it.
    """

    def __init__(self, outside: str, inside: Sequence[str]) -> None:
        self._outside, self._inside = outside, tuple(inside)

    def routes(self, addresses: Iterable[IPv4Address], tables: Tables) -> list[Route]:
        """What there must be, as things are: by the interfaces that are up."""
        outside = tables.link(self._outside)
        own = [] if outside is None else tables.addresses().get(outside.number, [])
        ways = [
            (link.number, place)
            for place, name in enumerate(self._inside)
            if (link := tables.link(name)) is not None and link.up
        ]
        source = own[0].ip if own else None
        return [
            Route(address, 32, _TABLE_MAIN, _UNICAST, index, place, source)
            for address in addresses
            for index, place in ways
        ]

    def standing(self, tables: Tables) -> list[Route]:
        """All that any gateway has set."""
        return tables.routes(ROUTE_PROTOCOL, _TABLE_MAIN)

    def add(self, addresses: Iterable[IPv4Address]) -> None:
        """Idempotent, and as far as interfaces are there and up. Raises DatapathError."""
        addresses = tuple(addresses)
        with Tables() as tables:
            outside = tables.link(self._outside)
            routes = self.routes(addresses, tables)
            wanted = {(route.destination, route.interface, route.metric) for route in routes}
            others = [
                route
                for route in self.standing(tables)
                if route.destination in addresses
                and (route.destination, route.interface, route.metric) not in wanted
            ]
        if outside is None:
            raise DatapathError([f"{self._outside}: there is no such interface"])
        if addresses and not routes:
            line = f"{addresses[0]}: cannot be answered for: no inside interface is up"
            raise DatapathError([line])
        with IPRoute() as netlink:
            try:
                for route in routes:
                    netlink.route("replace", **_arguments(route, _SCOPE_LINK))
                for address in addresses:
                    netlink.neigh("replace", **_proxy(address, outside.number))
                for route in others:  # of an earlier gateway, with other interfaces inside
                    _remove(netlink.route, route.destination, _arguments(route, _SCOPE_LINK))
            except NetlinkError as error:
                raise DatapathError([f"public IPs cannot be answered for: {error}"]) from None

    def remove(self, addresses: Iterable[IPv4Address]) -> None:
        """Idempotent: what is gone already stays gone, what went with its interface too."""
        addresses = set(addresses)
        with Tables() as tables, IPRoute() as netlink:
            outside = tables.link(self._outside)
            for route in self.standing(tables):
                if route.destination in addresses:
                    _remove(netlink.route, route.destination, _arguments(route, _SCOPE_LINK))
            for address in addresses if outside is not None else ():
                assert outside is not None
                _remove(netlink.neigh, address, _proxy(address, outside.number))


class ProbeSource:
    """Makes an address this host's own without giving it to an interface: local routes.

    Programs may bind to it and answers to it are delivered, but no interface has it, so that the
    kernel never chooses it as a source on its own. The routes name the inside interfaces, each of
    them, not lo, which may be down.
    """

    def __init__(self, address: IPv4Address, inside: Sequence[str]) -> None:
        self._address = address
        self._inside = tuple(inside)

    def routes(self, tables: Tables) -> list[Route]:
        """What there must be, as things are. Another gateway here has routes of its own."""
        links = [link for name in self._inside if (link := tables.link(name)) is not None]
        return [
            Route(self._address, 32, _TABLE_LOCAL, _LOCAL, link.number, link.number, None)
            for link in links
        ]

    def stands(self, tables: Tables) -> bool:
        """Whether all of them are there."""
        standing = tables.routes(ROUTE_PROTOCOL, _TABLE_LOCAL)
        return set(standing).issuperset(self.routes(tables))

    def add(self) -> None:
        """Idempotent. Raises DatapathError."""
        with Tables() as tables:
            routes = self.routes(tables)
        with IPRoute() as netlink:
            for route in routes:
                try:
                    netlink.route("replace", **_arguments(route, _SCOPE_HOST))
                except NetlinkError as error:
                    line = f"{self._address}: probes cannot be sent from it: {error}"
                    raise DatapathError([line]) from None

    def remove(self) -> None:
        """Idempotent: what is gone already stays gone."""
        with Tables() as tables:
            routes = self.routes(tables)
        with IPRoute() as netlink:
            for route in routes:
                _remove(netlink.route, self._address, _arguments(route, _SCOPE_HOST))


def _arguments(route: Route, scope: int) -> dict[str, object]:
    arguments: dict[str, object] = {
        "dst": f"{route.destination}/{route.length}",
        "oif": route.interface,
        "type": "local" if route.type == _LOCAL else "unicast",
        "scope": scope,
        "proto": ROUTE_PROTOCOL,
        "table": route.table,
        "priority": route.metric,
    }
    if route.source is not None:
        arguments["prefsrc"] = str(route.source)
    return arguments


def _proxy(address: IPv4Address, interface: int) -> dict[str, object]:
    return {
        "dst": str(address),
        "ifindex": interface,
        "family": socket.AF_INET,
        "flags": _NTF_PROXY,
    }


def _remove(change: Callable[..., object], address: IPv4Address, arguments: Any) -> None:
    try:
        change("del", **arguments)
    except NetlinkError as error:
        if error.code not in _ABSENT:
            raise DatapathError([f"{address}: cannot be removed: {error}"]) from None


def routed_by_itself(address: IPv4Address) -> bool:
    """Whether this host has a route for this one address that is not a gateway's."""
    with IPRoute() as netlink:
        return any(
            route["dst_len"] == 32
            and route.get_attr("RTA_DST") == str(address)
            and route["proto"] != ROUTE_PROTOCOL
            for route in netlink.get_routes(family=socket.AF_INET)
        )


OPTIONAL_SYSCTLS = frozenset({"proxy_delay"})  # better with them, and works without


def sysctl_path(interface: str, name: str) -> Path:
    """``net.ipv4.conf.<interface>.<name>``; an interface's name may have dots."""
    group = "neigh" if name == "proxy_delay" else "conf"
    return Path("/proc/sys/net/ipv4") / group / interface / name


def read_sysctl(interface: str, name: str) -> str:
    """A setting of an interface, as the kernel has it now."""
    return sysctl_path(interface, name).read_text().strip()


def wanted_sysctls(inside: Iterable[str], outside: str) -> list[tuple[str, str, str]]:
    """(interface, name, value) of those that are not right: per interface, never for the host;
    of interfaces that are there.

    ``forwarding`` on our interfaces only: the global switch is not ours. ``rp_filter`` must be
    loose on inside interfaces, where a hairpin's translated source is routed elsewhere; the kernel
    takes the larger of the interface's value and "all". ``proxy_delay``: the kernel keeps those who
    asks for a proxied address waiting, up to 0.8 s.
    """
    inside = tuple(name for name in inside if sysctl_path(name, "forwarding").exists())
    outsides = (outside,) if sysctl_path(outside, "forwarding").exists() else ()
    wanted = [
        (interface, "forwarding", "1")
        for interface in (*inside, *outsides)
        if read_sysctl(interface, "forwarding") != "1"
    ]
    strict_everywhere = read_sysctl("all", "rp_filter") == "1"
    for interface in inside:
        own = read_sysctl(interface, "rp_filter")
        if own == "1" or (strict_everywhere and own != "2"):
            wanted.append((interface, "rp_filter", "2"))
    for interface in outsides:
        if read_sysctl(interface, "proxy_delay") != "0":
            wanted.append((interface, "proxy_delay", "0"))
    return wanted


def write_sysctl(interface: str, name: str, value: str) -> None:
    """By netlink where /proc/sys is read-only, as in containers. Raises DatapathError."""
    try:
        sysctl_path(interface, name).write_text(value)
        return
    except OSError as error:
        reason = error
    try:
        sysctl.write(interface, name, int(value))
    except OSError:
        if name in OPTIONAL_SYSCTLS:
            return
        problem = (
            f"net.ipv4.conf.{interface}.{name} must be {value} and cannot be written "
            f"({reason.strerror}); in a container set it from outside (sysctls:)"
        )
        raise DatapathError([problem]) from None


def sysctl_is_writable(interface: str, name: str) -> bool:
    """Whether ``write_sysctl`` would succeed. Changes nothing."""
    try:
        with sysctl_path(interface, name).open("r+"):
            return True
    except OSError:
        pass
    try:
        sysctl.write(interface, name, int(read_sysctl(interface, name)))
    except OSError:
        return False
    return True
