"""What the rules drop is counted, by reason, whichever iptables there is and whoever meddles."""

from __future__ import annotations

import pytest

from tests.netns.datapath.conftest import PUBLIC, REMOTE, Gateway
from tests.netns.datapath.topology import Namespaces
from tests.netns.topology import eventually

LEGACY = " && ".join(
    f"mount --bind $(which {name}-legacy{end}) $(which {name}{end})"
    for name in ("iptables", "ip6tables")
    for end in ("", "-save", "-restore")
)
SEND = r"""
import socket, sys
wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
source, to, times = sys.argv[1:]
head = b"\x45\0\0\x1c\0\0\0\0\x40\x11\0\0"
packet = head + socket.inet_aton(source) + socket.inet_aton(to) + b"\x04\0\0\x35\0\x08\0\0"
for _ in range(int(times)):
    wire.sendto(packet, (to, 0))
"""


def send(net: Namespaces, namespace: str, source: str, to: str, times: int = 1) -> None:
    net.python(namespace, SEND, source, to, str(times))


@pytest.mark.parametrize("before", ["true", LEGACY], ids=["nf_tables", "legacy"])
def test_drops_count_by_reason_over_reloads_and_meddling(net: Namespaces, before: str) -> None:
    gateway = Gateway(net, before=before)
    assert gateway.ask("dropped") == {}

    send(net, "remote", "10.0.1.9", PUBLIC, 5)
    send(net, "remote", REMOTE, "10.0.1.4", 3)
    send(net, "vm", PUBLIC, REMOTE, 2)
    wanted = {"SourceNotOutside": 5, "PublicAddressUnknown": 3, "SourceNotInVirtualNetwork": 2}
    assert_counts(gateway, wanted)

    command = "iptables" if before == "true" else "iptables-legacy"
    send(net, "remote", "10.0.1.9", PUBLIC, 4)  # not looked at before the rules are others
    gateway.ask("update 203.0.113.11 10.0.1.4")
    send(net, "remote", "10.0.1.9", "203.0.113.11", 2)
    assert_counts(gateway, wanted | {"SourceNotOutside": 11})

    net.run("gw", command, "-t", "raw", "-Z")
    send(net, "remote", "10.0.1.9", "203.0.113.11", 1)
    assert_counts(gateway, wanted | {"SourceNotOutside": 12})

    net.run("gw", command, "-t", "raw", "-F")
    gateway.ask("refresh")
    send(net, "remote", "10.0.1.9", "203.0.113.11", 20)
    assert_counts(gateway, wanted | {"SourceNotOutside": 32})
    assert "--comment SourceNotOutside -j DROP" in net.run("gw", f"{command}-save", "-c")


def assert_counts(gateway: Gateway, wanted: dict[str, int]) -> None:
    """Legacy tables are read the more seldom the longer it takes."""
    eventually(lambda: gateway.ask("dropped"), lambda seen: seen == wanted)
