"""Builds and removes the lab's network namespaces with pyroute2.

Every interface is created inside the lab's namespaces: the host's own network is never touched,
and removing the namespaces removes the interfaces with them. Knows nothing of services or of
the gateway; `topology.py` says what there is to build.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyroute2 import NetNS, netns
from pyroute2.netlink.exceptions import NetlinkError

from gateway.lab import topology
from gateway.lab.topology import Interface, Lab, Node

NETNS_DIRECTORY = Path("/run/netns")


def existing(lab: Lab) -> list[str]:
    """The lab's existing namespaces, in topology's order."""
    return [name for name in lab.namespaces if (NETNS_DIRECTORY / name).exists()]


def build(lab: Lab) -> None:
    """Create the namespaces, wires, addresses, routes and the VMs' files under /etc/netns.

    Raises OSError or NetlinkError halfway on failure; `remove` cleans up after either.
    """
    for name in lab.namespaces:
        netns.create(name)
    with contextlib.ExitStack() as stack:
        handles = {
            role: stack.enter_context(_opened(lab.namespace(role))) for role in topology.ROLES
        }
        for node in topology.nodes():
            _build_bridges(handles[node.role], node)
        for near, far in topology.links():
            handles[near.role].link(
                "add",
                ifname=near.name,
                kind="veth",
                peer={"ifname": far.name, "net_ns_fd": lab.namespace(far.role)},
            )
            _configure(handles[near.role], near)
            _configure(handles[far.role], far)
        for node in topology.nodes():
            _address_node(handles[node.role], node)
    write_etc(lab)


def remove(lab: Lab) -> None:
    """Remove whatever of the lab's namespaces and /etc/netns files there is. Idempotent."""
    for name in existing(lab):
        try:
            netns.remove(name)
        except OSError:
            # A crash between creating the file and mounting on it leaves a plain file.
            (NETNS_DIRECTORY / name).unlink(missing_ok=True)
    for role in topology.ROLES:
        shutil.rmtree(lab.etc(role), ignore_errors=True)
    with contextlib.suppress(OSError):
        lab.etc_netns.rmdir()


def write_etc(lab: Lab) -> None:
    """Give everybody name resolution by the lab's internet, and the VMs each other's names.

    `nsswitch.conf` is covered too: with `hosts: resolve` the host's own resolver would answer,
    through a Unix socket that no network namespace hides.
    """
    names = "".join(f"{vm.address} {vm.name}\n" for vm in topology.VIRTUAL_MACHINES)
    for role in topology.ROLES:
        inside = role != topology.INTERNET
        directory = lab.etc(role)
        directory.mkdir(parents=True, exist_ok=True)
        files = {
            "resolv.conf": f"nameserver {topology.NAME_SERVER}\noptions timeout:2 attempts:3\n",
            "hosts": f"127.0.0.1 localhost\n::1 localhost\n{names if inside else ''}",
            "nsswitch.conf": "hosts: files dns\npasswd: files\ngroup: files\nservices: files\n",
        }
        for name, text in files.items():
            # `ip netns exec` fails for a file that has nothing in /etc to cover.
            if (Path("/etc") / name).exists():
                (directory / name).write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _opened(name: str) -> Iterator[Any]:
    handle = NetNS(name, flags=0)
    try:
        yield handle
    finally:
        handle.close()


def _index(handle: Any, name: str) -> int:
    found = handle.link_lookup(ifname=name)
    if not found:
        raise NetlinkError(19, f"interface {name} is not there")
    return int(found[0])


def _build_bridges(handle: Any, node: Node) -> None:
    for name, address in node.bridges:
        handle.link("add", ifname=name, kind="bridge")
        index = _index(handle, name)
        # Without a fixed address a bridge takes on that of its lowest port, and changes it.
        handle.link("set", index=index, address=_mac(name), state="up")
        _add_address(handle, index, address)


def _mac(name: str) -> str:
    return "02:00:" + ":".join(f"{byte:02x}" for byte in name.encode()[:4].ljust(4, b"\0"))


def _configure(handle: Any, interface: Interface) -> None:
    index = _index(handle, interface.name)
    if interface.bridge is not None:
        handle.link("set", index=index, master=_index(handle, interface.bridge))
    if interface.address is not None:
        _add_address(handle, index, interface.address)
    handle.link("set", index=index, state="up")


def _add_address(handle: Any, index: int, address: str) -> None:
    ip, _, length = address.partition("/")
    handle.addr("add", index=index, address=ip, prefixlen=int(length))


def _address_node(handle: Any, node: Node) -> None:
    loopback = _index(handle, "lo")
    handle.link("set", index=loopback, state="up")
    for address in node.own_addresses:
        _add_address(handle, loopback, f"{address}/32")
    if node.default_route is not None:
        handle.route("add", dst="default", gateway=node.default_route)
