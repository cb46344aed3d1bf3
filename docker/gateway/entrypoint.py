"""Makes a container's network ready for the gateway that its configuration describes, then runs it.

Docker numbers interfaces as it likes, keeps a network's gateway address to itself, and picks one of
the networks for the default route. So, before `snatgw run` and with nothing but NET_ADMIN:

1. what forwards already (a container inherits that from its host) stops: there are no rules yet;
2. the interface with an address in the virtual network is told to snatgw as the inside, the one
   that is left, or is in the network SNATGW_OUTSIDE, as the outside, whatever the file calls them;
3. the addresses of SNATGW_ADDRESSES, to which VMs and servers route, go to the interface that is
   in the same network; a default route that leads to one of them or into the inside goes;
4. SNATGW_DEFAULT_ROUTE, an address on the outside, becomes the default route.

Interfaces keep Docker's names. When a container ends, Docker takes out the interfaces that it
finds by name; one that is left goes with the network namespace, in which the kernel removes the
rules first and the interfaces milliseconds later: seen to let packets out untranslated.

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

from gateway.datapath.host import sysctl

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


def close() -> None:
    """Let nothing pass until the daemon opens its interfaces."""
    for setting in Path("/proc/sys/net/ipv4/conf").glob("*/forwarding"):
        interface = setting.parent.name
        if interface not in ("all", "default", "lo") and setting.read_text().strip() != "0":
            try:
                sysctl.write(interface, "forwarding", 0)
            except OSError as error:
                fail(f"{interface}: forwarding cannot be turned off: {error.strerror}; it takes "
                     "NET_ADMIN")  # fmt: skip


def links() -> list[Link]:
    described = json.loads(ip("-j", "-4", "address", "show"))
    return [Link(entry) for entry in described if entry["ifname"] != "lo"]


def read_configuration() -> tuple[list[str], list[IPv4Network]]:
    """(inside, the virtual network). What is wrong beyond that, `snatgw run` explains."""
    try:
        document = yaml.safe_load(Path(CONFIGURATION).read_text())
        prefixes = [IPv4Network(text) for text in document["virtualNetwork"]["addressPrefixes"]]
        return list(document["gateway"]["inside"]), prefixes
    except OSError as error:
        fail(f"{CONFIGURATION}: {error.strerror}; mount the configuration there")
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        os.execvp("snatgw", ["snatgw", "check", "-c", CONFIGURATION])


def find_interfaces(named: list[str], prefixes: list[IPv4Network]) -> tuple[list[str], str]:
    """(inside, outside) as Docker calls them, or say which network is missing."""
    found = links()
    inside = [link.name for link in found if link.is_in(prefixes)]
    if OUTSIDE in os.environ:
        network = [IPv4Network(os.environ[OUTSIDE])]
        outside = [link.name for link in found if link.is_in(network)]
    else:
        outside = [link.name for link in found if link.name not in inside]
    listed = ", ".join(f"{link.name} {link.addresses[0]}" for link in found) or "none"
    if len(inside) != len(named):
        fail(
            f"gateway.inside = {', '.join(named)}: {len(named)} wanted, {len(inside)} of this "
            f"container's interfaces in {', '.join(map(str, prefixes))}: {listed}"
        )
    if len(outside) != 1:
        fail(
            f"gateway.outside: {len(outside)} interfaces may be it; set {OUTSIDE} to the network "
            f"of the one, as in {OUTSIDE}=198.51.100.0/24: {listed}"
        )
    return inside, outside[0]


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
        inside, outside = find_interfaces(*read_configuration())
        add_addresses(inside)
        if DEFAULT_ROUTE in os.environ:
            ip("route", "replace", "default", "via", os.environ[DEFAULT_ROUTE], "dev", outside)
        interfaces = ["--inside", ",".join(inside), "--outside", outside]
        command = ["run", "-c", CONFIGURATION, *interfaces]
    os.execvp("snatgw", ["snatgw", *command])


if __name__ == "__main__":
    main()
