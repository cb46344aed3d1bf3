"""Interfaces, neighbours, routes and per-interface sysctls, by pyroute2 and /proc/sys.

Public IPs are answered for on the outside interface by proxy neighbour entries. The kernel answers
a proxied address only if its route leads out of another interface, so each public IP has a /32
route through the inside; no packet takes it, since all are rewritten before routing.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gateway.datapath import devconf
from gateway.datapath.errors import DatapathError

ROUTE_PROTOCOL = 217  # tags our routes; iproute2 names no other program for it
_NTF_PROXY = 0x08
_SCOPE_LINK, _SCOPE_HOST = 253, 254
_TABLE_MAIN, _TABLE_LOCAL = 254, 255
_EXISTS, _ABSENT = 17, (2, 3)  # EEXIST; ENOENT, ESRCH


@dataclass(frozen=True)
class Link:
    """An interface as it is: index, hardware address, whether it is up, IPv4 addresses."""

    name: str
    index: int
    hardware: str
    up: bool
    addresses: tuple[IPv4Interface, ...]


def find_link(name: str) -> Link | None:
    """An interface of this network namespace, or None."""
    with IPRoute() as netlink:
        indices = netlink.link_lookup(ifname=name)
        if not indices:
            return None
        index = indices[0]
        (found,) = netlink.get_links(index)
        addresses = [
            IPv4Interface(f"{entry.get_attr('IFA_LOCAL')}/{entry['prefixlen']}")
            for entry in netlink.get_addr(family=socket.AF_INET, index=index)
        ]
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
    """Makes this host answer for public IPs on ``outside``: a neighbour entry and a route each."""

    def __init__(self, outside: str, inside: str) -> None:
        with IPRoute() as netlink:
            found = [netlink.link_lookup(ifname=name) for name in (outside, inside)]
        self._missing = [n for n, index in zip((outside, inside), found, strict=True) if not index]
        self._outside, self._inside = (index[0] if index else 0 for index in found)

    def add(self, addresses: Iterable[IPv4Address]) -> None:
        """Idempotent. Raises DatapathError."""
        if self._missing:
            raise DatapathError([f"{name}: there is no such interface" for name in self._missing])
        with IPRoute() as netlink:
            for address in addresses:
                try:
                    netlink.route("replace", **self._route(address))
                    netlink.neigh("replace", **self._neighbour(address))
                except NetlinkError as error:
                    raise DatapathError([f"{address}: cannot be answered for: {error}"]) from None

    def remove(self, addresses: Iterable[IPv4Address]) -> None:
        """Idempotent: what is gone already stays gone, what went with its interface too."""
        with IPRoute() as netlink:
            for address in addresses:
                for index, change, arguments in (
                    (self._outside, netlink.neigh, self._neighbour(address)),
                    (self._inside, netlink.route, self._route(address)),
                ):
                    if not index:
                        continue
                    try:
                        change("del", **arguments)
                    except NetlinkError as error:
                        if error.code not in _ABSENT:
                            raise DatapathError(
                                [f"{address}: cannot be removed: {error}"]
                            ) from None

    def _neighbour(self, address: IPv4Address) -> dict[str, object]:
        return {
            "dst": str(address),
            "ifindex": self._outside,
            "family": socket.AF_INET,
            "flags": _NTF_PROXY,
        }

    def _route(self, address: IPv4Address) -> dict[str, object]:
        return {
            "dst": f"{address}/32",
            "oif": self._inside,
            "scope": _SCOPE_LINK,
            "proto": ROUTE_PROTOCOL,
            "table": _TABLE_MAIN,
        }


class ProbeSource:
    """Makes an address this host's own without giving it to an interface: a local route.

    Programs may bind to it and answers to it are delivered, but no interface has it, so that the
    kernel never chooses it as a source by itself. The route names an inside interface, not lo,
    which may be down.
    """

    def __init__(self, address: IPv4Address, inside: str) -> None:
        self._address = address
        self._inside = inside

    def add(self) -> None:
        """Idempotent. Raises DatapathError."""
        with IPRoute() as netlink:
            try:
                netlink.route("replace", **self._route(netlink))
            except (NetlinkError, IndexError) as error:
                line = f"{self._address}: probes cannot be sent from it: {error}"
                raise DatapathError([line]) from None

    def remove(self) -> None:
        """Idempotent: what is gone already stays gone."""
        with IPRoute() as netlink:
            try:
                netlink.route("del", **self._route(netlink))
            except IndexError:
                return  # the interface went, and the route with it
            except NetlinkError as error:
                if error.code not in _ABSENT:
                    raise DatapathError([f"{self._address}: cannot be removed: {error}"]) from None

    def _route(self, netlink: IPRoute) -> dict[str, object]:
        index = netlink.link_lookup(ifname=self._inside)[0]
        return {
            "dst": f"{self._address}/32",
            "oif": index,
            "type": "local",
            "scope": _SCOPE_HOST,
            "proto": ROUTE_PROTOCOL,
            "table": _TABLE_LOCAL,
            "priority": index,  # another gateway here has a route of its own
        }


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
    return sysctl_path(interface, name).read_text().strip()


def wanted_sysctls(inside: Iterable[str], outside: str) -> list[tuple[str, str, str]]:
    """(interface, name, value) of those that are not right: per interface, never for the host.

    ``forwarding`` on our interfaces only: the global switch is not ours. ``rp_filter`` must be
    loose on inside interfaces, where a hairpin's translated source is routed elsewhere; the kernel
    takes the larger of the interface's value and "all". ``proxy_delay``: the kernel keeps whoever
    asks for a proxied address waiting, up to 0.8 s.
    """
    inside = tuple(inside)
    wanted = [
        (interface, "forwarding", "1")
        for interface in (*inside, outside)
        if read_sysctl(interface, "forwarding") != "1"
    ]
    strict_everywhere = read_sysctl("all", "rp_filter") == "1"
    for interface in inside:
        own = read_sysctl(interface, "rp_filter")
        if own == "1" or (strict_everywhere and own != "2"):
            wanted.append((interface, "rp_filter", "2"))
    if read_sysctl(outside, "proxy_delay") != "0":
        wanted.append((outside, "proxy_delay", "0"))
    return wanted


def write_sysctl(interface: str, name: str, value: str) -> None:
    """By netlink where /proc/sys is read-only, as in containers. Raises DatapathError."""
    try:
        sysctl_path(interface, name).write_text(value)
        return
    except OSError as error:
        reason = error
    try:
        devconf.write(interface, name, int(value))
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
        devconf.write(interface, name, int(read_sysctl(interface, name)))
    except OSError:
        return False
    return True
