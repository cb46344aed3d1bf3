"""What netfilter cannot lose: no private address leaves, whatever becomes of the rules."""

from __future__ import annotations

import time

import pytest

from tests.netns.datapath.conftest import (
    PUBLIC,
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
TO_PUBLIC = f"IP(dst='{PUBLIC}')/UDP(dport=9)"


def filters(net: Namespaces) -> str:
    return net.run("gw", "tc", "filter", "show", "dev", "wan0", "egress")


def shell(net: Namespaces, text: str) -> None:
    net.run("gw", "sh", "-c", text)


@pytest.mark.parametrize("others", [FLUSH, OPEN])
@pytest.mark.parametrize("alive", [True, False])
def test_what_vms_send_does_not_leave_without_rules(
    net: Namespaces, others: str, alive: bool
) -> None:
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    gateway = Gateway(net)
    if not alive:
        gateway.kill()
    shell(net, others)
    udp_echo(net, "remote")
    wire = Capture(net, "remote", "eth0", "ip")
    udp_ask(net, "vm", REMOTE, patience=0.5)
    net.run("vm", "ping", "-c", "1", "-W", "1", REMOTE, check=False)
    assert udp_ask(net, "gw", REMOTE) == "whole"  # the host's own
    assert [line for line in wire.lines() if VM in line] == []
    assert "0xac57" in filters(net)


def test_the_host_is_as_before_and_so_is_its_traffic(net: Namespaces) -> None:
    gateway = Gateway(net)
    assert "0xac57" in filters(net)
    gateway.remove()
    assert "bytecode" not in filters(net)


def test_a_reply_that_has_lost_its_way_inside_does_not_leave(net: Namespaces) -> None:
    """Translated to its private destination, with the inside address gone: the way is out again."""
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    Gateway(net)
    net.ip("gw", f"route add default via {REMOTE}")
    net.ip("gw", "addr flush dev lan0")
    wire = Capture(net, "remote", "eth0", "ip")
    net.python("remote", SEND, TO_PUBLIC)
    net.run("gw", "ping", "-c", "1", "-W", "5", REMOTE)
    assert [line for line in wire.lines() if VM in line] == []


@pytest.mark.parametrize(
    "blow", ["qdisc del dev wan0 clsact", "filter del dev wan0 egress", "filter del dev wan0 egress prio 1"]
)  # fmt: skip
def test_a_guard_that_somebody_takes_away_is_put_back(net: Namespaces, blow: str) -> None:
    gateway = Gateway(net)
    shell(net, f"tc {blow}")
    assert "0xac57" not in filters(net)
    assert gateway.ask("refresh") == []
    assert "0xac57" in filters(net)
    assert gateway.ask("guard")["restored"] == 1


def test_an_interface_made_again_has_it(net: Namespaces) -> None:
    gateway = Gateway(net)
    net.ip("gw", "link del wan0")
    gateway.ask("refresh")
    wire_small_outside(net)
    assert gateway.ask("refresh") == []
    assert "0xac57" in filters(net)
    assert gateway.ask("guard")["restored"] == 0  # nobody took it away
    udp_echo(net, "remote")
    assert udp_ask(net, "vm", REMOTE) == "whole"


def test_what_it_drops_is_counted(net: Namespaces) -> None:
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    gateway = Gateway(net)
    assert gateway.ask("guard")["dropped"] == 0
    shell(net, FLUSH)
    net.python("vm", SEND, f"[IP(dst='{REMOTE}')/UDP(dport=9)] * 7")
    assert gateway.ask("guard")["dropped"] == 7
    shell(net, "tc qdisc del dev wan0 clsact")
    gateway.ask("refresh")
    shell(net, FLUSH)
    net.python("vm", SEND, f"[IP(dst='{REMOTE}')/UDP(dport=9)] * 2")
    assert gateway.ask("guard")["dropped"] == 9


def test_what_was_told_is_not_told_again_by_the_next(net: Namespaces) -> None:
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    gateway = Gateway(net)
    shell(net, FLUSH)
    net.python("vm", SEND, f"[IP(dst='{REMOTE}')/UDP(dport=9)] * 7")
    assert gateway.ask("guard")["dropped"] == 7
    gateway.ask("told")
    for _ in range(2):
        gateway.kill()
        gateway = Gateway(net)
        assert gateway.ask("guard")["dropped"] == 0
    gateway.kill()
    shell(net, FLUSH)
    net.python("vm", SEND, f"[IP(dst='{REMOTE}')/UDP(dport=9)] * 3")
    gateway = Gateway(net)
    state = gateway.ask("guard")
    assert (state["dropped"], state["meanwhile"], state["shared"]) == (3, 3, False)
    gateway.ask("told")
    gateway.ask("leave")
    gateway = Gateway(net)
    assert gateway.ask("guard")["dropped"] == 0


def test_what_others_filters_drop_is_not_taken_for_its_own(net: Namespaces) -> None:
    gateway = Gateway(net)
    assert not gateway.ask("guard")["shared"]
    policer = "police rate 8bit burst 1 conform-exceed drop"
    shell(net, f"tc filter add dev wan0 ingress protocol ip matchall action {policer} || "
          "tc filter add dev wan0 ingress protocol ip bpf da bytecode '1,6 0 0 2,'")  # fmt: skip
    net.run("remote", "ping", "-c", "2", "-i", "0.1", "-W", "1", "203.0.113.1", check=False)
    state = gateway.ask("guard")
    assert state["dropped"] >= 1
    assert state["shared"]


def test_a_filter_of_somebody_elses_keeps_its_place(net: Namespaces) -> None:
    shell(net, "tc qdisc add dev wan0 clsact")
    shell(net, "tc filter add dev wan0 egress prio 1 protocol all u32 match u32 0 0")
    before = filters(net)
    gateway = Gateway(net)
    assert "pref 2 bpf" in filters(net)
    udp_echo(net, "remote")
    assert udp_ask(net, "vm", REMOTE) == "whole"
    gateway.remove()
    assert filters(net) == before


def test_where_none_can_stand_it_is_said(net: Namespaces) -> None:
    shell(net, "tc qdisc add dev wan0 ingress")
    gateway = Gateway(net)
    assert gateway.greeting == "ready"
    assert "no guard" in gateway.ask("guard")["problem"]


def test_a_stop_that_may_be_half_a_restart_leaves_it_for_a_while(net: Namespaces) -> None:
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    before = host_state(net)
    Gateway(net).ask("leave")
    assert host_state(net) == before
    wire = Capture(net, "remote", "eth0", "udp")
    net.python("vm", SEND, f"IP(dst='{REMOTE}')/UDP(dport=9)")
    net.run("vm", "ping", "-c", "1", "-W", "1", REMOTE, check=False)
    # The next one has a guard of its own, which the first one's end does not take away.
    second = Gateway(net)
    time.sleep(16)
    assert "0xac57" in filters(net)
    second.ask("leave")
    assert wire.lines() == []
    end = time.monotonic() + 60
    while "bytecode" in filters(net):
        assert time.monotonic() < end
        time.sleep(0.2)
    net.run("vm", "ping", "-c", "1", "-W", "5", REMOTE)  # forwarded, as before there was a gateway


def test_a_lease_does_not_outlast_a_change_of_sides(net: Namespaces) -> None:
    """The next gateway's inside is the outside of the one before."""
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    Gateway(net).ask("leave")
    assert "0xac57" in filters(net)
    turned = Gateway(net, inside=["wan0"], outside="lan0", prefixes=["203.0.113.0/24"], pairs={})
    assert turned.greeting == "ready"
    assert "bytecode" not in filters(net)


def test_a_stop_leaves_none_where_the_host_does_not_forward(net: Namespaces) -> None:
    Gateway(net).ask("leave")
    assert "bytecode" not in filters(net)


def test_rules_of_iptables_legacy_are_looked_after(net: Namespaces) -> None:
    """Of which the kernel tells nobody."""
    names = ("iptables", "ip6tables")
    over = " && ".join(
        f"mount --bind $(which {name}-legacy{end}) $(which {name}{end})"
        for name in names
        for end in ("", "-save", "-restore")
    )
    gateway = Gateway(net, before=over)
    assert gateway.greeting == "ready"
    assert "snatgw-wan0" in net.run("gw", "iptables-legacy-save")
    assert gateway.ask("refresh") == []
    net.run("gw", "iptables-legacy", "-t", "mangle", "-F")
    net.run("gw", "iptables-legacy", "-t", "raw", "-R", "PREROUTING", "1", "-j", "ACCEPT")
    assert gateway.ask("refresh") == []
    saved = net.run("gw", "iptables-legacy-save")
    assert "-A PREROUTING -j snatgw-wan0-raw" in saved
    assert "-A snatgw-wan0-fwd -i lan0 -o wan0 -g snatgw-wan0-queue" in saved
    udp_echo(net, "remote")
    assert udp_ask(net, "vm", REMOTE) == "whole"


def test_a_flush_right_after_a_flush_is_not_taken_for_right(net: Namespaces) -> None:
    gateway = Gateway(net)
    shell(net, FLUSH)
    racer = net.start("gw", "sh", "-c", f"for i in 1 2 3 4 5 6 7 8; do sleep 0.03; {FLUSH}; done")
    gateway.ask("refresh")
    racer.wait(20)
    gateway.ask("refresh")
    assert gateway.ask("refresh") == []
    saved = net.run("gw", "iptables-save")
    assert "-A snatgw-wan0-fwd -i lan0 -o wan0 -g snatgw-wan0-queue" in saved
    assert "-A FORWARD -j snatgw-wan0-fwd" in saved


WHY_NOT = "from gateway.datapath.guard.egress_guard import why_not; print(why_not('wan0') or 'can')"


def test_trying_whether_one_can_stand_leaves_nothing(net: Namespaces) -> None:
    qdiscs = ("gw", "tc", "qdisc", "show", "dev", "wan0")
    before = net.run(*qdiscs)
    assert net.python("gw", WHY_NOT) == "can\n"
    assert net.run(*qdiscs) == before
    Gateway(net)
    standing = filters(net)
    assert net.python("gw", WHY_NOT) == "can\n"
    assert filters(net) == standing
    assert "clsact" in net.run(*qdiscs)


def test_an_ingress_qdisc_is_in_its_way(net: Namespaces) -> None:
    shell(net, "tc qdisc add dev wan0 ingress")
    assert net.python("gw", WHY_NOT) == "File exists\n"


def test_trying_does_not_look_like_meddling_to_a_live_gateway(net: Namespaces) -> None:
    Gateway(net)
    monitor = net.start("gw", "tc", "monitor")
    assert net.python("gw", WHY_NOT) == "can\n"
    shell(net, "tc filter add dev wan0 egress prio 9 protocol all u32 match u32 0 0")
    assert monitor.stdout is not None
    assert "u32" in monitor.stdout.readline()
