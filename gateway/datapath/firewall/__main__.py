"""``python -m gateway.datapath.firewall CROSSING``: obstacles as JSON.

For a daemon that must not wait: reading a host's rules takes long where there are many.
"""

from __future__ import annotations

import json
import sys
from ipaddress import IPv4Address, IPv4Network

from gateway.datapath.firewall.obstacles import obstacles
from gateway.datapath.firewall.packet_paths import Crossing
from gateway.datapath.firewall.ruleset_dump import read_host


def main() -> None:
    """Look, and print what was found: an array of JSON."""
    given = json.loads(sys.argv[1])
    crossing = Crossing(
        tuple(given["inside"]),
        given["outside"],
        tuple(map(IPv4Address, given["publicIps"])),
        tuple(map(IPv4Network, given["privatePrefixes"])),
        tuple(map(IPv4Network, given.get("subnets", ()))),
        given.get("hairpin", False),
    )
    found = obstacles(read_host(), crossing)
    print(json.dumps([{"sentence": one.sentence, "certain": one.certain} for one in found]))


if __name__ == "__main__":
    main()
