"""Where tc has no place for the guard: nf_tables' egress; where there is none either: closed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.datapath.conftest import (
    REMOTE,
    VM,
    Capture,
    Gateway,
    host_state,
    udp_ask,
    udp_echo,
)
from tests.netns.datapath.topology import Namespaces
from tests.netns.networks import wire_small_outside

FLUSH = "nft flush ruleset"
OPEN = "for c in FORWARD POSTROUTING; do iptables -t mangle -I $c -j ACCEPT; done"
SEND = "import sys; from scapy.all import *; send(eval(sys.argv[1]), verbose=0)"
SEND_FRAME = """
import sys
from scapy.all import *
try:
    sendp(eval(sys.argv[1]), iface="wan0", verbose=0)
    print("sent")
except OSError as error:
    print(error.errno)
"""
FLOOD = """
import socket, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(60_000):
    sender.sendto(b"flood", ("203.0.113.2", 9))
    time.sleep(0.002)
"""
SEVEN = f"[IP(dst='{REMOTE}')/UDP(dport=9)] * 7"
NO_TC = "tc qdisc add dev wan0 ingress"
FREE_TC = "tc qdisc del dev wan0 ingress"


def shell(net: Namespaces, text: str) -> None:
    net.run("gw", "sh", "-c", text)


def no_nft(net: Namespaces) -> subprocess.Popen[str]:
    """Somebody owns the table that the gateway wants; nobody does once the process ends."""
    owner = net.start("gw", "nft", "-i")
    assert owner.stdin is not None
    owner.stdin.write("add table netdev snatgw-wan0-guard { flags owner; }\n")
    owner.stdin.flush()
    until(lambda: "snatgw-wan0-guard" in net.run("gw", "nft", "list", "tables"))
    return owner


def until(met: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not met():
        assert time.monotonic() < end
        time.sleep(0.1)


def forwarding(net: Namespaces) -> str:
    return net.run("gw", "cat", "/proc/sys/net/ipv4/conf/lan0/forwarding").strip()


@pytest.mark.parametrize("others", [FLUSH, OPEN, "iptables -t mangle -F"])
def test_nft_keeps_private_addresses_in_where_tc_cannot(net: Namespaces, others: str) -> None:
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    shell(net, NO_TC)
    gateway = Gateway(net)
    assert gateway.ask("guard")["kind"] == "EgressTable"
    udp_echo(net, "remote")
    assert udp_ask(net, "vm", REMOTE) == "whole"
    wire = Capture(net, "remote", "eth0", "ip")
    shell(net, others)
    net.python("vm", SEND, SEVEN)
    assert udp_ask(net, "gw", REMOTE) == "whole"  # the host's own
    assert gateway.ask("guard")["dropped"] == 7
    assert gateway.ask("refresh") == []
    assert udp_ask(net, "vm", REMOTE) == "whole"
    assert [line for line in wire.lines() if VM in line] == []
    assert gateway.ask("guard")["dropped"] == 7
    gateway.remove()
    assert "netdev" not in net.run("gw", "nft", "list", "ruleset")


def test_replies_and_errors_with_private_addresses_stay_in(net: Namespaces) -> None:
    shell(net, NO_TC)
    gateway = Gateway(net)
    shell(net, FLUSH)
    quote = f"IP(src='{REMOTE}', dst='{VM}')/UDP(dport=9)"
    for packet in (
        "IP(src='203.0.113.1', dst='10.0.1.9')/UDP(dport=9)",
        f"IP(dst='{REMOTE}')/ICMP(type=3, code=3)/{quote}",
        f"IP(dst='{REMOTE}')/ICMP(type=3, code=3)/IP(src='{VM}', dst='{REMOTE}')/UDP(dport=9)",
    ):
        net.python("gw", SEND_FRAME, f"Ether(dst='02:00:00:00:00:01')/{packet}")
    assert gateway.ask("guard")["dropped"] == 3


def test_dead_daemons_leave_it_and_what_it_dropped_is_told_once(net: Namespaces) -> None:
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    shell(net, NO_TC)
    Gateway(net).kill()
    shell(net, OPEN)
    wire = Capture(net, "remote", "eth0", "ip")
    net.python("vm", SEND, SEVEN)
    gateway = Gateway(net)
    state = gateway.ask("guard")
    assert (state["dropped"], state["meanwhile"]) == (7, 7)
    gateway.ask("told")
    gateway.kill()
    assert Gateway(net).ask("guard")["dropped"] == 0
    assert [line for line in wire.lines() if VM in line] == []


def test_a_stop_that_may_be_half_a_restart_leaves_it_too(net: Namespaces) -> None:
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    shell(net, NO_TC)
    Gateway(net).ask("leave")
    wire = Capture(net, "remote", "eth0", "udp")
    net.python("vm", SEND, SEVEN)
    until(lambda: "netdev" not in net.run("gw", "nft", "list", "ruleset"))
    assert wire.lines() == []
    net.run("vm", "ping", "-c", "1", "-W", "5", REMOTE)


def test_without_any_guard_nothing_is_forwarded_until_rules_stand(net: Namespaces) -> None:
    """From the end of one daemon to the rules of the next, on a host that forwards by itself."""
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    shell(net, NO_TC)
    owner = no_nft(net)
    before = host_state(net)
    gateway = Gateway(net)
    assert gateway.ask("guard")["kind"] is None
    assert "Operation not permitted" in gateway.ask("guard")["problem"]
    wire = Capture(net, "remote", "eth0", f"udp and src {VM}")
    flood = net.start("vm", sys.executable, "-c", FLOOD)
    for _ in range(2):
        assert forwarding(net) == "1"
        gateway.ask("leave")
        assert forwarding(net) == "0"
        gateway = Gateway(net)
    gateway.kill()
    gateway = Gateway(net)
    flood.kill()
    flood.wait()
    assert wire.lines() == []
    gateway.ask("leave")
    assert "snatgw" not in net.run("gw", "iptables-save")
    until(lambda: forwarding(net) == "1")
    assert host_state(net) == before
    owner.kill()
    owner.wait()


def test_without_any_guard_rules_that_are_flushed_close_it(net: Namespaces) -> None:
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    shell(net, NO_TC)
    no_nft(net)
    gateway = Gateway(net)
    shell(net, FLUSH)
    assert gateway.ask("refresh") == []
    udp_echo(net, "remote")
    assert udp_ask(net, "vm", REMOTE) == "whole"
    gateway.remove()
    assert forwarding(net) == "1"


def test_what_could_not_be_had_at_the_start_is_tried_again(net: Namespaces) -> None:
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    shell(net, NO_TC)
    owner = no_nft(net)
    gateway = Gateway(net)
    owner.kill()
    owner.wait()
    until(lambda: gateway.ask("refresh") == [] and gateway.ask("guard")["kind"] == "EgressTable")
    assert gateway.ask("guard")["gained"] == 1
    shell(net, FLUSH)
    net.python("vm", SEND, SEVEN)
    assert gateway.ask("guard")["dropped"] == 7
    shell(net, FREE_TC)
    until(lambda: gateway.ask("refresh") == [] and gateway.ask("guard")["kind"] == "Guard")
    state = gateway.ask("guard")
    assert (state["gained"], state["dropped"], state["problem"], state["restored"]) == (2, 7, "", 1)
    assert "netdev" not in net.run("gw", "nft", "list", "ruleset")
    shell(net, FLUSH)
    net.python("vm", SEND, SEVEN)
    assert gateway.ask("guard")["dropped"] == 14
    gateway.remove()
    assert "bytecode" not in net.run("gw", "tc", "filter", "show", "dev", "wan0", "egress")


@pytest.mark.parametrize("kind", ["Guard", "EgressTable"])
def test_an_interface_made_again_is_nobodys_meddling(net: Namespaces, kind: str) -> None:
    if kind == "EgressTable":
        shell(net, NO_TC)
    gateway = Gateway(net)
    net.ip("gw", "link del wan0")
    gateway.ask("refresh")
    wire_small_outside(net)
    if kind == "EgressTable":
        shell(net, NO_TC)
    assert gateway.ask("refresh") == []
    state = gateway.ask("guard")
    assert (state["kind"], state["restored"]) == (kind, 0)
    shell(net, FLUSH)
    net.python("vm", SEND, SEVEN)
    assert gateway.ask("guard")["dropped"] == 7


def test_nothing_is_written_into_the_home_of_who_starts_it(net: Namespaces, tmp_path: Path) -> None:
    """``nft -i`` keeps a history there, which would be root's."""
    shell(net, NO_TC)
    gateway = Gateway(net, before=f"export HOME={tmp_path}")
    assert "snatgw-wan0-owned" in net.run("gw", "nft", "list", "tables")
    gateway.kill()
    until(lambda: "snatgw-wan0-owned" not in net.run("gw", "nft", "list", "tables"))
    assert not (tmp_path / ".nft.history").exists()
