"""Packets of real hosts through the diversion: every way in, whole, and nothing beside it."""

from __future__ import annotations

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
from tests.netns.networks import add_second_inside, add_second_outside


def test_both_directions_are_translated(net: Namespaces, gateway: Gateway) -> None:
    server = udp_echo(net, "remote")
    assert udp_ask(net, "vm", REMOTE) == "whole"
    assert server.stdout is not None
    assert server.stdout.readline() == f"{PUBLIC} 100\n"
    assert [arrival for arrival, _ in gateway.ask("seen")] == ["OUTBOUND", "INBOUND"]


def test_unsolicited_packets_reach_the_handler(net: Namespaces, gateway: Gateway) -> None:
    udp_echo(net, "vm")
    assert udp_ask(net, "remote", PUBLIC) == "whole"
    assert [arrival for arrival, _ in gateway.ask("seen")] == ["INBOUND", "OUTBOUND"]


def test_public_ips_are_answered_for_on_the_outside_wire(net: Namespaces, gateway: Gateway) -> None:
    arping = "import sys; from scapy.all import *; a = srp1(Ether(dst='ff:ff:ff:ff:ff:ff')/ARP(pdst=sys.argv[1]), iface='eth0', timeout=5, verbose=0); print(a and a.hwsrc)"
    mac = net.ip("gw", "-br link show wan0").split()[2]
    assert net.python("remote", arping, PUBLIC).strip() == mac


@pytest.mark.parametrize("size", [1472, 8000, 60000])
def test_a_datagram_arrives_in_one_piece_both_ways(
    net: Namespaces, gateway: Gateway, size: int
) -> None:
    udp_echo(net, "remote")
    assert udp_ask(net, "vm", REMOTE, size) == "whole"
    assert gateway.ask("seen") == [["OUTBOUND", size + 28], ["INBOUND", size + 28]]


def test_a_vm_reaches_its_own_public_ip(net: Namespaces, gateway: Gateway) -> None:
    udp_echo(net, "vm")
    assert udp_ask(net, "vm", PUBLIC) == "whole"
    assert {arrival for arrival, _ in gateway.ask("seen")} == {"HAIRPIN"}


def test_hairpin_passes_strict_reverse_path_filtering(net: Namespaces) -> None:
    net.sysctl("gw", "net/ipv4/conf/all/rp_filter", "1")
    Gateway(net)
    udp_echo(net, "vm")
    assert udp_ask(net, "vm", PUBLIC) == "whole"


def test_errors_of_this_host_about_inbound_packets_are_diverted(
    net: Namespaces, gateway: Gateway
) -> None:
    wire = Capture(net, "remote", "eth0", "icmp")
    ask = "import sys; from scapy.all import *; send(IP(dst=sys.argv[1], ttl=1)/UDP(dport=7)/b'x', verbose=0)"
    net.python("remote", ask, PUBLIC)
    net.run("remote", "ping", "-c", "1", "-W", "5", PUBLIC)  # comes after
    assert ["LOCAL_ERROR", 57] in gateway.ask("seen")
    assert [line for line in wire.lines() if "time exceeded" in line]


def test_packets_are_forwarded_where_the_host_drops_by_policy(net: Namespaces) -> None:
    net.run("gw", "iptables", "-P", "FORWARD", "DROP")
    Gateway(net)
    udp_echo(net, "remote")
    assert udp_ask(net, "vm", REMOTE) == "whole"


def test_a_handler_that_raises_costs_the_packet_and_no_more(
    net: Namespaces, gateway: Gateway
) -> None:
    udp_echo(net, "remote")
    gateway.ask("raise")
    wire = Capture(net, "remote", "eth0", "udp")
    assert udp_ask(net, "vm", REMOTE, patience=0.3) == "TimeoutError"
    assert udp_ask(net, "vm", REMOTE, patience=0.3) == "TimeoutError"
    statistics = gateway.ask("statistics")
    assert (statistics["handled"], statistics["handler_errors"]) == (2, 2)
    assert "on purpose" in statistics["lastError"]
    assert wire.lines() == []


FLOOD = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[2])): s.sendto(bytes(int(sys.argv[3])), (sys.argv[1], 9))
"""


def test_packets_beyond_the_queues_length_are_counted(net: Namespaces, gateway: Gateway) -> None:
    gateway.ask("pause")
    net.python("vm", FLOOD, REMOTE, "12000", "1")
    statistics = gateway.ask("statistics")
    lost = statistics["kernel_dropped"] + statistics["user_dropped"]
    assert statistics["waiting"] + lost == 12000
    assert statistics["kernel_dropped"] > 0


def test_packets_beyond_the_sockets_buffer_are_counted(net: Namespaces, gateway: Gateway) -> None:
    net.run("remote", "iptables", "-A", "INPUT", "-p", "udp", "--dport", "9", "-j", "DROP")
    gateway.ask("pause")
    net.python("vm", FLOOD, REMOTE, "1000", "60000")
    lost = gateway.ask("statistics")["user_dropped"]
    assert lost > 0
    gateway.ask("resume")
    while gateway.ask("statistics")["waiting"]:
        pass
    udp_echo(net, "remote")
    assert udp_ask(net, "vm", REMOTE) == "whole"
    statistics = gateway.ask("statistics")
    assert statistics["overflows"] > 0
    assert (statistics["handled"], statistics["user_dropped"]) == (1002 - lost, lost)


def test_an_update_moves_the_public_ip(net: Namespaces, gateway: Gateway) -> None:
    server = udp_echo(net, "remote")
    gateway.ask(f"update 203.0.113.11 {VM}")
    assert udp_ask(net, "vm", REMOTE) == "whole"
    assert server.stdout is not None
    assert server.stdout.readline() == "203.0.113.11 100\n"
    assert PUBLIC not in str(host_state(net))


@pytest.mark.parametrize("interface", ["lan0", "wan0"])
def test_public_ips_come_back_after_an_interface_was_down(
    net: Namespaces, gateway: Gateway, interface: str
) -> None:
    udp_echo(net, "vm")
    before = host_state(net)
    assert gateway.ask("refresh") == []
    net.ip("gw", f"link set {interface} down")
    if interface == "lan0":
        assert gateway.ask("refresh") != []  # no route leads out of it now
    net.ip("gw", f"link set {interface} up")
    assert gateway.ask("refresh") == []
    assert host_state(net) == before
    net.ip("remote", "neigh flush all")
    assert udp_ask(net, "remote", PUBLIC) == "whole"


def test_two_gateways_side_by_side(net: Namespaces) -> None:
    add_second_inside(net)
    add_second_outside(net)
    net.ip("vm2", "route add default via 10.1.1.1")
    before = host_state(net)
    first = Gateway(net)
    alone = host_state(net)
    second = Gateway(
        net, inside=["lan1"], outside="wan1", pairs={"198.51.100.10": "10.1.1.4"}, prefixes=["10.1.0.0/16"]
    )  # fmt: skip
    udp_echo(net, "remote")
    udp_echo(net, "remote2")
    assert udp_ask(net, "vm", REMOTE) == "whole"
    assert udp_ask(net, "vm2", "198.51.100.2") == "whole"
    second.remove()
    assert host_state(net) == alone
    assert udp_ask(net, "vm", REMOTE) == "whole"
    first.remove()
    assert host_state(net) == before


class TestNothingPassesBeside:
    """Each of these packets would be a way round the engine."""

    SEND = "import sys; from scapy.all import *; send(eval(sys.argv[1]), verbose=0)"

    @pytest.mark.parametrize(
        "packet",
        [
            f"IP(src='{PUBLIC}', dst='{REMOTE}')/UDP(dport=9)",
            f"IP(src='10.9.9.9', dst='{REMOTE}')/UDP(dport=9)",
            # answered by the gateway itself, from its private address
            f"IP(src='{REMOTE}', dst='10.0.1.1')/TCP(dport=9)",
            f"IP(src='{REMOTE}', dst='10.0.1.1')/UDP(dport=9)",
            f"IP(src='{REMOTE}', dst='10.0.1.1')/ICMP()",
        ],
    )
    def test_forged_sources_from_inside(
        self, net: Namespaces, gateway: Gateway, packet: str
    ) -> None:
        wire = Capture(net, "remote", "eth0", "ip")
        net.python("vm", self.SEND, packet)
        net.run("vm", "ping", "-c", "1", "-W", "5", REMOTE)
        assert [line for line in wire.lines() if "ICMP echo" not in line or "10.0." in line] == []

    @pytest.mark.parametrize(
        "packet",
        [
            f"IP(dst='{VM}')/UDP(dport=9)",
            "IP(dst='10.0.77.1')/UDP(dport=9)",
            f"IP(src='10.0.1.9', dst='{PUBLIC}')/UDP(dport=9)",
            f"IP(src='{PUBLIC}', dst='{PUBLIC}')/UDP(dport=9)",
        ],
    )
    def test_private_or_public_ends_from_outside(
        self, net: Namespaces, gateway: Gateway, packet: str
    ) -> None:
        net.ip("remote", f"route replace {VM} via 203.0.113.1")
        wire = Capture(net, "vm", "eth0", "udp")
        net.python("remote", self.SEND, packet)
        net.run("remote", "ping", "-c", "1", "-W", "5", PUBLIC)
        assert wire.lines() == []

    def test_the_gateway_is_no_router_between_others(
        self, net: Namespaces, gateway: Gateway
    ) -> None:
        net.add("office")
        net.wire("gw/eth9 192.0.2.1/24", "office/eth0 192.0.2.2/24")
        net.ip("remote", "route add 192.0.2.0/24 via 203.0.113.1")
        net.ip("office", "route add default via 192.0.2.1")
        wire = Capture(net, "office", "eth0", "icmp")
        net.run("remote", "ping", "-c", "1", "-W", "1", "192.0.2.2", check=False)
        net.run("vm", "ping", "-c", "1", "-W", "1", "192.0.2.2", check=False)
        assert wire.lines() == []

    def test_ipv6_is_not_forwarded_from_inside(self, net: Namespaces, gateway: Gateway) -> None:
        net.sysctl("gw", "net/ipv6/conf/all/forwarding", "1")
        net.ip("gw", "addr add fd01::1/64 dev lan0 nodad")
        net.ip("gw", "addr add fd02::1/64 dev wan0 nodad")
        net.ip("vm", "addr add fd01::4/64 dev eth0 nodad")
        net.ip("remote", "addr add fd02::2/64 dev eth0 nodad")
        net.ip("vm", "-6 route add default via fd01::1")
        net.ip("remote", "-6 route add default via fd02::1")
        net.run("vm", "ping", "-6", "-c", "1", "-W", "5", "fd01::1")
        wire = Capture(net, "remote", "eth0", "icmp6 and host fd01::4")
        net.run("vm", "ping", "-6", "-c", "1", "-W", "1", "fd02::2", check=False)
        assert wire.lines() == []

    def test_no_redirects_go_to_the_inside(self, net: Namespaces, gateway: Gateway) -> None:
        net.ip("vm", "addr add 10.0.1.5/24 dev eth0")
        udp_echo(net, "vm")
        wire = Capture(net, "vm", "eth0", "icmp[icmptype] == icmp-redirect or arp host " + PUBLIC)
        assert udp_ask(net, "vm", PUBLIC) == "whole"
        assert udp_ask(net, "vm", PUBLIC) == "whole"
        assert wire.lines() == []


def test_host_and_vms_still_talk_under_the_hosts_stateful_firewall(net: Namespaces) -> None:
    net.run("gw", "iptables", "-P", "INPUT", "DROP")
    net.run(
        "gw",
        "iptables",
        *["-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"],
    )
    Gateway(net)
    net.run("gw", "ping", "-c", "1", "-W", "5", VM)
