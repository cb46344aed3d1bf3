"""Makes a container's network ready for the gateway that its configuration describes, then runs it.

Docker numbers interfaces as it likes, keeps a network's gateway address to itself, and picks one of
the networks for the default route. So, before `snatgw run` and with nothing but NET_ADMIN:

0. what forwards already (a container inherits that from its host) stops: it has no rules yet;
1. the interface with an address in the virtual network gets the name in `gateway.inside`, the one
   that is left (not that of the network for operators) the name in `gateway.outside`;
2. the addresses of SNATGW_ADDRESSES, to which VMs and servers route, go to the interface that is
   in the same network; a default route that leads to one of them or into the inside goes;
3. SNATGW_DEFAULT_ROUTE, an address on the outside, becomes the default route.

Anything but `run` as a command is an ordinary snatgw command: `docker run --rm snatgw check …`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any, NoReturn

import yaml

from gateway.datapath import devconf

CONFIGURATION = os.environ.get("SNATGW_CONFIG", "/etc/snatgw/gateway.yaml")
ADDRESSES = "SNATGW_ADDRESSES"
DEFAULT_ROUTE = "SNATGW_DEFAULT_ROUTE"
OUTSIDE = "SNATGW_OUTSIDE"


def fail(*problems: str) -> NoReturn:
    for problem in problems:
        print(f"snatgw: {problem}", file=sys.stderr)
    sys.exit(1)


def ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        fail(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Link:
    """An interface of this container that has an IPv4 address."""

    def __init__(self, described: dict[str, Any]) -> None:
        self.name: str = described["ifname"]
        self.addresses = [
            IPv4Interface(f"{entry['local']}/{entry['prefixlen']}")
            for entry in described["addr_info"]
        ]

    def is_in(self, networks: list[IPv4Network]) -> bool:
        return any(own.ip in network for own in self.addresses for network in networks)

    def rename(self, name: str) -> None:
        """Its routes by way of others are put back; its addresses stay by themselves."""
        if self.name == name:
            return
        routes = json.loads(ip("-j", "-4", "route", "show", "dev", self.name))
        ip("link", "set", self.name, "down")
        ip("link", "set", self.name, "name", name)
        ip("link", "set", name, "up")
        self.name = name
        for route in routes:
            if "gateway" in route:
                ip("route", "replace", route["dst"], "via", route["gateway"], "dev", name)


def close() -> None:
    """Let nothing pass until the daemon opens its interfaces."""
    for setting in Path("/proc/sys/net/ipv4/conf").glob("*/forwarding"):
        interface = setting.parent.name
        if interface not in ("all", "default", "lo") and setting.read_text().strip() != "0":
            try:
                devconf.write(interface, "forwarding", 0)
            except OSError as error:
                fail(f"{interface}: forwarding cannot be turned off: {error.strerror}; it takes "
                     "NET_ADMIN")  # fmt: skip


def links() -> list[Link]:
    described = json.loads(ip("-j", "-4", "address", "show"))
    return [Link(entry) for entry in described if entry["ifname"] != "lo"]


def read_configuration() -> tuple[list[str], str, list[IPv4Network]]:
    """(inside, outside, the virtual network). What is wrong beyond that, `snatgw run` explains."""
    try:
        document = yaml.safe_load(Path(CONFIGURATION).read_text())
        gateway, network = document["gateway"], document["virtualNetwork"]
        prefixes = [IPv4Network(prefix) for prefix in network["addressPrefixes"]]
        return list(gateway["inside"]), str(gateway["outside"]), prefixes
    except OSError as error:
        fail(f"{CONFIGURATION}: {error.strerror}; mount the configuration there")
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        os.execvp("snatgw", ["snatgw", "check", "-c", CONFIGURATION])


def name_interfaces(inside: list[str], outside: str, prefixes: list[IPv4Network]) -> None:
    """Give the interfaces the configuration's names, or say which network is missing."""
    found = links()
    named = {link.name for link in found}
    if named.issuperset([*inside, outside]):
        return
    facing = [link for link in found if link.is_in(prefixes)]
    if OUTSIDE in os.environ:
        others = [link for link in found if link.is_in([IPv4Network(os.environ[OUTSIDE])])]
    else:
        others = [link for link in found if link not in facing]
    listed = ", ".join(f"{link.name} {link.addresses[0]}" for link in found) or "none"
    if len(facing) != len(inside):
        fail(
            f"gateway.inside = {', '.join(inside)}: {len(inside)} wanted and {len(facing)} of this "
            f"container's interfaces are in {', '.join(map(str, prefixes))}: {listed}"
        )
    if len(others) != 1:
        fail(
            f"gateway.outside = {outside}: {len(others)} interfaces may be it; set {OUTSIDE} to "
            f"the network of the one, as in {OUTSIDE}=198.51.100.0/24: {listed}"
        )
    for link, name in zip([*facing, *others], [*inside, outside], strict=True):
        link.rename(name)


def add_addresses(inside: list[str]) -> None:
    wanted = [IPv4Interface(text) for text in os.environ.get(ADDRESSES, "").split()]
    for address in wanted:
        for link in links():
            if address.ip in {own.ip for own in link.addresses}:
                break
            if link.is_in([address.network]):
                ip("address", "add", str(address), "dev", link.name)
                break
        else:
            fail(f"{ADDRESSES}: {address}: this container is in no such network")
    own = {address.ip for link in links() for address in link.addresses}
    for route in json.loads(ip("-j", "-4", "route", "show", "default")):
        if IPv4Address(route.get("gateway", "0.0.0.0")) in own or route["dev"] in inside:
            ip("route", "del", "default", "dev", route["dev"])


def main() -> NoReturn:
    command = sys.argv[1:]
    if command == ["run"]:
        close()
        inside, outside, prefixes = read_configuration()
        name_interfaces(inside, outside, prefixes)
        add_addresses(inside)
        if DEFAULT_ROUTE in os.environ:
            ip("route", "replace", "default", "via", os.environ[DEFAULT_ROUTE], "dev", outside)
        command = ["run", "-c", CONFIGURATION]
    os.execvp("snatgw", ["snatgw", *command])


if __name__ == "__main__":
    main()
