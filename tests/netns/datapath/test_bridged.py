"""An inside interface that is a bridge of this host, whose frames netfilter sees (Docker has
``bridge-nf-call-iptables`` on): what it carries between its ports is no business of the gateway's."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.netns.datapath.conftest import PUBLIC, REMOTE, VM, Gateway, udp_ask, udp_echo
from tests.netns.datapath.topology import Namespaces
from tests.netns.networks import VM2, build_bridged

LISTEN = """
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10)
s.bind(("", 67)); print("up", flush=True)
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("=4s4s", socket.inet_aton("239.1.2.3"), socket.inet_aton("10.0.1.5")))
print("joined", flush=True)
while True: print(s.recvfrom(99)[0].decode(), flush=True)
"""
SEND = """
import sys
from scapy.all import *
for src, dst, mac, what in (
    ("0.0.0.0", "255.255.255.255", "ff:ff:ff:ff:ff:ff", "discover"),
    ("10.0.1.4", "10.0.1.255", "ff:ff:ff:ff:ff:ff", "broadcast"),
    ("10.0.1.4", "239.1.2.3", "01:00:5e:01:02:03", "multicast"),
):
    sendp(Ether(dst=mac)/IP(src=src, dst=dst)/UDP(sport=68, dport=67)/what.encode(), iface="eth0", verbose=0)
"""


@pytest.fixture(params=["0", "1"])
def net(request: pytest.FixtureRequest) -> Iterator[Namespaces]:
    """vm and vm2 are ports of br0, which is the gateway's inside interface."""
    namespaces = Namespaces()
    try:
        build_bridged(namespaces, netfilter_sees_frames=request.param == "1")
        yield namespaces
    finally:
        namespaces.remove()


def test_neighbours_of_one_bridge_talk_past_the_gateway(net: Namespaces) -> None:
    net.run("gw", "iptables", "-P", "FORWARD", "DROP")  # as Docker has it
    gateway = Gateway(net, inside=["br0"])
    assert gateway.greeting == "ready"
    udp_echo(net, "vm2")
    assert udp_ask(net, "vm", VM2) == "whole"
    assert udp_ask(net, "vm", VM2, 8000) == "whole"
    assert gateway.ask("seen") == []


def test_broadcasts_and_multicasts_stay_on_the_bridge_and_whole(net: Namespaces) -> None:
    gateway = Gateway(net, inside=["br0"])
    listener = net.start("vm2", sys.executable, "-c", LISTEN)
    assert listener.stdout is not None
    assert [listener.stdout.readline(), listener.stdout.readline()] == ["up\n", "joined\n"]
    net.python("vm", SEND)
    seen = [listener.stdout.readline().strip() for _ in range(3)]
    assert seen == ["discover", "broadcast", "multicast"]
    assert gateway.ask("seen") == []


def test_what_is_routed_is_translated_as_ever(net: Namespaces) -> None:
    gateway = Gateway(net, inside=["br0"], pairs={PUBLIC: VM, "203.0.113.11": VM2})
    udp_echo(net, "remote")
    udp_echo(net, "vm2")
    for size in (100, 8000):
        assert udp_ask(net, "vm", REMOTE, size) == "whole"
    assert {arrival for arrival, _ in gateway.ask("seen")} == {"OUTBOUND", "INBOUND"}
    assert udp_ask(net, "vm", "203.0.113.11") == "whole"
    assert udp_ask(net, "remote", "203.0.113.11") == "whole"
    assert "HAIRPIN" in {arrival for arrival, _ in gateway.ask("seen")}
    assert "LATERAL" not in {arrival for arrival, _ in gateway.ask("seen")}
