"""A configuration from three flags: every host behind an inside interface is a standalone VM.
Runs in the engine process, before the loop begins.

"Behind" is determined by this host's routing: the networks that it reaches through the interface,
which are the only sources that replies could go back to. The networks on the outside interface
count as internet, private or not. The result passes the same checks as a file.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from ipaddress import IPv4Network, collapse_addresses
from typing import Any

from pyroute2 import IPRoute

from gateway.datapath.host.addresses_and_routes import ROUTE_PROTOCOL, real_name
from gateway.model.reading.load import Loaded, load_text

NAME = "command line"
"""What problems call the file that there is not."""
_MAIN_TABLE = 254
_UNICAST = 1


class NoNetworkError(Exception):
    """What is wrong with the interfaces; ``problems`` has a line for each thing."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


def from_flags(
    inside: Sequence[str],
    outside: str,
    public_ips: Sequence[str],
    *,
    internet_prefixes: Sequence[str] = (),
    settings: dict[str, Any],
) -> Loaded:
    """The configuration that flags stand for; ``settings``: further keys of ``gateway``.

    Raises NoNetworkError where the interfaces do not show what is behind them.
    """
    inside, outside = [real_name(name) for name in inside], real_name(outside)
    networks = _networks(inside, outside)
    problems = [f"{name}: there is no such interface" for name in networks if not _exists(name)]
    behind = [network for name in inside for network in networks.get(name, [])]
    if not problems and not behind:
        names = ", ".join(inside)
        problems = [f"{names}: no IPv4 address and no route, so no VM can be behind it"]
    if problems:
        raise NoNetworkError(problems)
    subnets = list(collapse_addresses(behind))
    beyond = [n for n in networks[outside] if not any(n.overlaps(subnet) for subnet in subnets)]
    internet = [*internet_prefixes, *(str(n) for n in beyond if n.is_private)]
    return load_text(
        json.dumps(document(inside, outside, public_ips, subnets, internet, settings)), NAME
    )


def document(
    inside: Sequence[str],
    outside: str,
    public_ips: Sequence[str],
    subnets: Sequence[IPv4Network],
    internet_prefixes: Sequence[str],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """The configuration as a file would have it."""
    names = [f"pip-{number}" for number, _ in enumerate(public_ips, 1)]
    return {
        "gateway": {
            "inside": list(inside),
            "outside": outside,
            "internetAddressPrefixes": list(dict.fromkeys(internet_prefixes)),
            **settings,
        },
        "virtualNetwork": {
            "addressPrefixes": [str(network) for network in subnets],
            "subnets": [
                {"name": f"subnet-{number}", "addressPrefix": str(network)}
                for number, network in enumerate(subnets, 1)
            ],
        },
        "publicIPAddresses": [
            {"name": name, "ipAddress": address}
            for name, address in zip(names, public_ips, strict=True)
        ],
        "defaultOutboundAccess": {"publicIPAddresses": names},
    }


def _networks(inside: Sequence[str], outside: str) -> dict[str, list[IPv4Network]]:
    """The networks that each interface leads to, without default routes."""
    found: dict[str, list[IPv4Network]] = {name: [] for name in (*inside, outside)}
    indices = {socket.if_nametoindex(name): name for name in found if _exists(name)}
    with IPRoute() as routing:
        for route in routing.get_routes(family=socket.AF_INET, table=_MAIN_TABLE):
            name = indices.get(route.get_attr("RTA_OIF"))
            destination = route.get_attr("RTA_DST")
            if route["type"] != _UNICAST or route["proto"] == ROUTE_PROTOCOL:
                continue  # the latter: a gateway's own, of one that runs or crashed
            if name is not None and destination is not None:
                found[name].append(IPv4Network(f"{destination}/{route['dst_len']}"))
    return found


def _exists(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True
