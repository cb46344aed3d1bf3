"""Our jumps among rules of the host: ahead of what would let packets pass beside the queue, behind
what the host does to packets."""

from __future__ import annotations

import sys
from typing import IO

import pytest

from tests.netns.datapath.conftest import PUBLIC, REMOTE, Capture, Gateway, udp_ask, udp_echo
from tests.netns.datapath.topology import Namespaces

SYN = "import socket; s = socket.socket(); s.settimeout(0.2); s.connect_ex(('203.0.113.2', 9))"
DATAGRAM = "import socket; s = socket.socket(type=2); s.sendto(b'x', ('203.0.113.10', 9))"


def places(net: Namespaces, table: str, chain: str) -> list[str]:
    return net.run("gw", "iptables", "-t", table, "-S", chain).splitlines()[1:]


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_hosts_own_changes_to_packets_stay(net: Namespaces, when: str) -> None:
    rules = (
        "iptables -t mangle -A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 777",
        "iptables -t mangle -A FORWARD -o wan0 -j DSCP --set-dscp 0x2e",
        "iptables -t mangle -A PREROUTING -i wan0 -j TTL --ttl-set 33",
    )
    if when == "after":
        gateway = Gateway(net)
    for rule in rules:
        net.run("gw", *rule.split())
    if when == "before":
        gateway = Gateway(net)
    gateway.ask("refresh")
    outside = verbose(net, "remote", "tcp")
    net.python("vm", SYN)
    seen = outside.readline() + outside.readline()
    assert "tos 0xb8" in seen
    assert f"{PUBLIC}." in seen
    assert "mss 777" in seen
    inside = verbose(net, "vm", "udp")
    net.python("remote", DATAGRAM)
    assert "ttl 32," in inside.readline()  # and forwarded


def verbose(net: Namespaces, namespace: str, expression: str) -> IO[str]:
    """What tcpdump prints of packets, all of it, from now on."""
    command = f"exec tcpdump -nvvlU --immediate-mode -i eth0 {expression} 2>&1"
    output = net.start(namespace, "sh", "-c", command).stdout
    assert output is not None
    while "listening on" not in output.readline():
        pass
    return output


@pytest.mark.parametrize(
    ("table", "chain"),
    [
        ("mangle", "FORWARD"),
        ("mangle", "PREROUTING"),
        ("mangle", "OUTPUT"),
        ("mangle", "POSTROUTING"),
        ("raw", "PREROUTING"),
    ],
)
def test_a_rule_put_ahead_of_ours_does_not_stay_there(
    net: Namespaces, table: str, chain: str
) -> None:
    gateway = Gateway(net)
    udp_echo(net, "remote")
    before = places(net, table, chain)
    accept = ("iptables", "-t", table, "-I", chain, "-j", "ACCEPT")
    net.run("gw", *accept)
    gateway.ask("refresh")
    assert places(net, table, chain) == [*before, f"-A {chain} -j ACCEPT"]
    wire = Capture(net, "remote", "eth0", "net 10.0.0.0/16")
    for _ in range(3):
        assert udp_ask(net, "vm", REMOTE) == "whole"
    assert wire.lines() == []
    assert gateway.ask("refresh") == []
    assert places(net, table, chain) == [*before, f"-A {chain} -j ACCEPT"]
    net.run("gw", *(word.replace("-I", "-D") for word in accept))
    gateway.ask("refresh")
    assert places(net, table, chain) == before
    gateway.remove()
    assert places(net, table, chain) == []


def test_nothing_leaves_untranslated_while_a_jump_is_moved(net: Namespaces) -> None:
    """Rules come and go that shift ours up and down, 60 times under a stream of packets; the host
    forwards by itself, so that what is not diverted leaves."""
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    gateway = Gateway(net)
    udp_echo(net, "remote")
    noise = net.start(
        "vm",
        sys.executable,
        "-uc",
        "import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        f"s.sendto(b'x', ('{REMOTE}', 9)); print()\n"
        f"while True: s.sendto(b'x', ('{REMOTE}', 9)); time.sleep(0.0005)",
    )
    assert noise.stdout is not None
    noise.stdout.readline()
    wire = Capture(net, "remote", "eth0", "net 10.0.0.0/16")
    rule = ("FORWARD", "-i", "lan0", "-j", "DSCP", "--set-dscp", "0x2e")
    for _ in range(30):
        net.run("gw", "iptables", "-t", "mangle", "-A", *rule)
        gateway.ask("refresh")
        net.run("gw", "iptables", "-t", "mangle", "-D", *rule)
        gateway.ask("refresh")
    noise.kill()
    assert udp_ask(net, "vm", REMOTE, patience=30) == "whole"
    assert wire.lines() == []


def test_nor_does_one_of_ipv6(net: Namespaces) -> None:
    gateway = Gateway(net)
    net.run("gw", "ip6tables", "-t", "mangle", "-I", "FORWARD", "-j", "ACCEPT")
    gateway.ask("refresh")
    listed = net.run("gw", "ip6tables", "-t", "mangle", "-S", "FORWARD").splitlines()[1:]
    assert listed == ["-A FORWARD -j snatgw-wan0-fwd", "-A FORWARD -j ACCEPT"]
