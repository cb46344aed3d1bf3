"""What stays on the host: nothing after ``remove``, a closed door after a crash."""

from __future__ import annotations

import sys

from tests.netns.datapath.conftest import (
    PUBLIC,
    READ_ONLY,
    REMOTE,
    VM,
    Capture,
    Gateway,
    host_state,
    udp_ask,
    udp_echo,
)
from tests.netns.datapath.topology import Namespaces
from tests.netns.networks import add_second_inside, add_second_outside


def prepare(net: Namespaces) -> dict[str, str]:
    """A host that has rules and settings of its own."""
    for table, rule in (
        ("raw", "PREROUTING -s 192.0.2.1 -j ACCEPT"),
        ("mangle", "FORWARD -s 192.0.2.1 -j ACCEPT"),
        ("filter", "FORWARD -s 192.0.2.1 -j ACCEPT"),
    ):
        net.run("gw", "iptables", "-t", table, "-A", *rule.split())
    net.sysctl("gw", "net/ipv4/conf/lan0/rp_filter", "1")
    net.sysctl("gw", "net/ipv4/conf/wan0/forwarding", "1")
    return host_state(net)


def test_remove_leaves_the_host_as_it_was(net: Namespaces) -> None:
    before = prepare(net)
    gateway = Gateway(net)
    assert host_state(net) != before
    gateway.remove()
    assert host_state(net) == before


def test_a_crash_leaves_the_door_closed_and_the_next_start_knows_the_originals(
    net: Namespaces,
) -> None:
    before = prepare(net)
    udp_echo(net, "remote")
    Gateway(net).kill()

    wire = Capture(net, "remote", "eth0", "ip")
    assert udp_ask(net, "vm", REMOTE, patience=0.5) == "TimeoutError"
    assert wire.lines() == []

    again = Gateway(net, pairs={"203.0.113.12": VM})  # changed in between
    assert udp_ask(net, "vm", REMOTE) == "whole"
    assert PUBLIC not in str(host_state(net))
    again.remove()
    assert host_state(net) == before


def test_a_start_with_other_interfaces_takes_down_what_the_crash_left(net: Namespaces) -> None:
    add_second_outside(net)
    before = prepare(net)
    Gateway(net).kill()
    again = Gateway(net, outside="wan1", pairs={"198.51.100.10": VM})
    udp_echo(net, "remote2")
    assert udp_ask(net, "vm", "198.51.100.2") == "whole"
    assert "wan0-" not in host_state(net)["iptables-save"]
    again.remove()
    assert host_state(net) == before


def test_a_dead_gateways_packets_do_not_go_to_another(net: Namespaces) -> None:
    """Its rules still name its queues: nobody else may take those numbers."""
    add_second_inside(net)
    add_second_outside(net)
    dead = Gateway(net)
    numbers = dead.ask("numbers")
    dead.kill()
    closed = host_state(net)["iptables-save"]
    other = Gateway(
        net, inside=["lan1"], outside="wan1", pairs={"198.51.100.10": "10.1.1.4"}, prefixes=["10.1.0.0/16"]
    )  # fmt: skip
    assert not {*other.ask("numbers").values()} & {*numbers.values()}
    udp_ask(net, "vm", REMOTE, patience=0.3)
    assert other.ask("seen") == []
    other.remove()
    assert host_state(net)["iptables-save"] == closed


def test_a_start_that_fails_halfway_is_undone(net: Namespaces) -> None:
    net.ip("gw", "link set lan0 down")  # it takes no route then
    before = host_state(net)
    gateway = Gateway(net)
    assert gateway.greeting[0].startswith(f"{PUBLIC}: cannot be answered for")
    assert host_state(net) == before


def test_a_read_only_proc_sys_is_set_and_restored_by_netlink(net: Namespaces) -> None:
    """In a container nothing needs to forward before the rules stand."""
    net.sysctl("gw", "net/ipv4/conf/lan0/rp_filter", "1")
    before = host_state(net)
    gateway = Gateway(net, before=READ_ONLY)
    assert gateway.greeting == "ready"
    for path, value in (
        ("conf/lan0/forwarding", "1"),
        ("conf/wan0/forwarding", "1"),
        ("conf/lan0/rp_filter", "2"),
        ("neigh/wan0/proxy_delay", "0"),
    ):
        assert net.run("gw", "cat", f"/proc/sys/net/ipv4/{path}").strip() == value, path
    udp_echo(net, "remote")
    assert udp_ask(net, "vm", REMOTE) == "whole"
    gateway.remove()
    assert host_state(net) == before


def test_an_unclean_end_on_a_host_that_forwarded_before_stays_closed(net: Namespaces) -> None:
    """Docker's hosts forward everything: the rules alone must hold, and through a restart."""
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    before = host_state(net)
    wire = Capture(net, "remote", "eth0", "net 10.0.0.0/16")
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
    net.run("vm", "ping", "-c", "1", "-W", "5", REMOTE)
    assert wire.lines()  # no gateway yet: the capture sees what it is to see

    Gateway(net).kill()
    wire = Capture(net, "remote", "eth0", "net 10.0.0.0/16")
    Gateway(net).kill()
    again = Gateway(net)
    again.ask("update 203.0.113.14 10.0.1.4")
    assert wire.lines() == []
    noise.kill()
    again.remove()
    assert host_state(net) == before
