"""Who takes the rules away again and again, or puts others ahead, is not fought at any speed."""

from __future__ import annotations

import time

from gateway.datapath.host.reconciler import PAUSE, RULES_LIMIT
from tests.netns.datapath.conftest import REMOTE, VM, Capture, Gateway, udp_ask, udp_echo
from tests.netns.datapath.topology import Namespaces

FLUSH = ("iptables", "-t", "mangle", "-F")
AHEAD = ("iptables", "-t", "mangle", "-I", "PREROUTING", "-j", "ACCEPT")


def forwarding(net: Namespaces) -> str:
    return net.run("gw", "cat", "/proc/sys/net/ipv4/conf/lan0/forwarding").strip()


def until_over(gateway: Gateway, *, closed: bool, net: Namespaces) -> None:
    """Looks again until the rules were set again."""
    began, end = time.monotonic(), time.monotonic() + 60
    while forwarding(net) != "1" if closed else time.monotonic() < began + PAUSE:
        assert time.monotonic() < end
        time.sleep(0.5)
        gateway.ask("refresh")


def test_rules_that_are_removed_again_and_again_are_set_now_and_then(net: Namespaces) -> None:
    gateway = Gateway(net)
    for _ in range(RULES_LIMIT - 1):
        net.run("gw", *FLUSH)
        assert gateway.ask("refresh") == []
    net.run("gw", *FLUSH)
    (said,) = gateway.ask("refresh")
    assert "removes this gateway's netfilter rules again and again" in said
    assert forwarding(net) == "1"  # they stand
    net.run("gw", *FLUSH)
    wire = Capture(net, "remote", "eth0", "ip")
    assert gateway.ask("refresh") == [said]
    assert forwarding(net) == "0"  # they do not, and nothing is forwarded
    assert udp_ask(net, "vm", REMOTE, patience=0.3) != "whole"
    until_over(gateway, closed=True, net=net)
    udp_echo(net, "remote")
    assert udp_ask(net, "vm", REMOTE) == "whole"
    assert [line for line in wire.lines() if VM in line] == []


def test_rules_that_are_put_ahead_again_and_again_are_passed_now_and_then(net: Namespaces) -> None:
    gateway = Gateway(net)
    said: list[str] = []
    for _ in range(RULES_LIMIT):
        net.run("gw", *AHEAD)
        said = gateway.ask("refresh")
    assert "its own are moved every" in said[0]
    net.run("gw", *AHEAD)
    assert gateway.ask("refresh") == said
    rules = [line for line in net.run("gw", "iptables-save", "-t", "mangle").splitlines() if line.startswith("-A PREROUTING")]  # fmt: skip
    assert "ACCEPT" in rules[0]
    until_over(gateway, closed=False, net=net)
    gateway.ask("refresh")
    rules = [line for line in net.run("gw", "iptables-save", "-t", "mangle").splitlines() if line.startswith("-A PREROUTING")]  # fmt: skip
    assert "snatgw-wan0-pre" in rules[0]


def test_chains_and_comments_of_others_that_are_no_text_are_left_alone(net: Namespaces) -> None:
    chain = '"$(printf "gr\\374n")"'
    commands = f"iptables -t mangle -N {chain} && iptables -t mangle -A {chain} -j RETURN"
    net.run("gw", "sh", "-c", commands)
    gateway = Gateway(net)
    assert gateway.greeting == "ready"
    comment = '"$(printf "two\\nlines\\013\\302\\205")"'
    odd = f"iptables -t mangle -A {chain} -m comment --comment {comment} -j ACCEPT"
    net.run("gw", "sh", "-c", odd)
    assert gateway.ask("refresh") == []
    udp_echo(net, "remote")
    assert udp_ask(net, "vm", REMOTE) == "whole"
