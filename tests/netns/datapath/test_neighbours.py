"""Other programs' networks on the gateway's host: Docker's, libvirt's, LXD's, networkd's.

They start before or after the gateway, and have what they have without it, also when it has stopped.
"""

from __future__ import annotations

import pytest

from tests.netns.datapath.conftest import REMOTE, Gateway, host_state, udp_ask, udp_echo
from tests.netns.datapath.topology import Namespaces
from tests.netns.networks import add_container

# As they set it up; {net} has the address range, {bridge} the bridge's name.
DOCKER = """
sysctl -qw net.ipv4.ip_forward=1
iptables -N DOCKER; iptables -N DOCKER-ISOLATION-STAGE-1; iptables -N DOCKER-ISOLATION-STAGE-2; iptables -N DOCKER-USER
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
iptables -t nat -A DOCKER ! -i docker0 -p udp -m udp --dport 8007 -j DNAT --to-destination 172.17.0.2:7
iptables -P FORWARD DROP
iptables -I FORWARD -o docker0 -j DOCKER
iptables -I FORWARD -i docker0 ! -o docker0 -j ACCEPT
iptables -I FORWARD -i docker0 -o docker0 -j ACCEPT
iptables -I FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p udp -m udp --dport 7 -j ACCEPT
iptables -I FORWARD -j DOCKER-ISOLATION-STAGE-1
iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
iptables -A DOCKER-ISOLATION-STAGE-2 -j RETURN
iptables -A DOCKER-USER -j RETURN
iptables -I FORWARD -j DOCKER-USER
"""
LIBVIRT = """
sysctl -qw net.ipv4.ip_forward=1
iptables -N LIBVIRT_FWI; iptables -N LIBVIRT_FWO; iptables -N LIBVIRT_FWX
iptables -t nat -N LIBVIRT_PRT; iptables -t mangle -N LIBVIRT_PRT
iptables -I FORWARD -j LIBVIRT_FWO; iptables -I FORWARD -j LIBVIRT_FWI; iptables -I FORWARD -j LIBVIRT_FWX
iptables -t nat -I POSTROUTING -j LIBVIRT_PRT; iptables -t mangle -I POSTROUTING -j LIBVIRT_PRT
iptables -t mangle -A LIBVIRT_PRT -o docker0 -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill
iptables -A LIBVIRT_FWX -i docker0 -o docker0 -j ACCEPT
iptables -A LIBVIRT_FWI -d 172.17.0.0/16 -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A LIBVIRT_FWI -o docker0 -j REJECT --reject-with icmp-port-unreachable
iptables -A LIBVIRT_FWO -s 172.17.0.0/16 -i docker0 -j ACCEPT
iptables -A LIBVIRT_FWO -i docker0 -j REJECT --reject-with icmp-port-unreachable
iptables -t nat -A LIBVIRT_PRT -s 172.17.0.0/16 -d 224.0.0.0/24 -j RETURN
iptables -t nat -A LIBVIRT_PRT -s 172.17.0.0/16 ! -d 172.17.0.0/16 -p udp -j MASQUERADE --to-ports 1024-65535
"""
LXD = """
sysctl -qw net.ipv4.ip_forward=1
nft -f - <<'END'
table inet lxd {
    chain pstrt.docker0 {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 172.17.0.0/16 ip daddr != 172.17.0.0/16 masquerade
    }
    chain fwd.docker0 {
        type filter hook forward priority filter; policy accept;
        ip version 4 oifname "docker0" accept
        ip version 4 iifname "docker0" accept
    }
}
END
"""
NETWORKD = """
sysctl -qw net.ipv4.conf.docker0.forwarding=1 net.ipv4.conf.wan0.forwarding=1
nft -f - <<'END'
table ip io.systemd.nat {
    set masq_saddr { type ipv4_addr; flags interval; elements = { 172.17.0.0/16 } }
    chain postrouting {
        type nat hook postrouting priority srcnat + 1; policy accept;
        ip saddr @masq_saddr masquerade
    }
}
END
"""
KINDS = {"docker": DOCKER, "libvirt": LIBVIRT, "lxd": LXD, "networkd": NETWORKD}
OUTSIDE = "203.0.113.1"


def begin(net: Namespaces, kind: str) -> None:
    """A bridge, a container behind it with an echo server, and the rules."""
    add_container(net)
    net.run("gw", "sh", "-ec", KINDS[kind])
    udp_echo(net, "container")


def container_asks(net: Namespaces) -> str:
    return udp_ask(net, "container", REMOTE, patience=2)


PUBLISHED = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect(("203.0.113.1", 8007))
s.send(b"x"); print(s.recv(9).decode())
"""


def works(net: Namespaces, kind: str) -> None:
    assert container_asks(net) == "whole"
    if kind == "docker":
        assert net.python("remote", PUBLISHED) == "x\n"


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_starts_after_the_gateway_has_its_network_and_keeps_it(
    net: Namespaces, kind: str
) -> None:
    udp_echo(net, "remote")
    gateway = Gateway(net)
    assert gateway.greeting == "ready"
    begin(net, kind)
    gateway.ask("refresh")
    works(net, kind)
    assert udp_ask(net, "vm", REMOTE) == "whole"
    gateway.remove()
    works(net, kind)
    again = Gateway(net)
    works(net, kind)
    assert udp_ask(net, "vm", REMOTE) == "whole"
    again.kill()
    works(net, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_was_there_before_the_gateway_keeps_its_network(
    net: Namespaces, kind: str
) -> None:
    udp_echo(net, "remote")
    begin(net, kind)
    works(net, kind)
    before = host_state(net)
    gateway = Gateway(net)
    works(net, kind)
    assert udp_ask(net, "vm", REMOTE) == "whole"
    gateway.remove()
    works(net, kind)
    assert host_state(net) == before


def test_one_that_starts_after_a_crash_keeps_its_network_through_the_next_gateway(
    net: Namespaces,
) -> None:
    udp_echo(net, "remote")
    Gateway(net).kill()
    begin(net, "docker")
    again = Gateway(net)
    works(net, "docker")
    again.remove()
    works(net, "docker")


def test_a_host_that_ceases_to_forward_is_closed_again(net: Namespaces) -> None:
    gateway = Gateway(net)
    begin(net, "lxd")
    gateway.ask("refresh")
    assert "fwd -i wan0 -g snatgw-wan0-drop" not in net.run("gw", "iptables-save")
    net.sysctl("gw", "net/ipv4/ip_forward", "0")
    for interface in ("lan0", "wan0"):
        net.sysctl("gw", f"net/ipv4/conf/{interface}/forwarding", "1")
    gateway.ask("refresh")
    assert "fwd -i wan0 -g snatgw-wan0-drop" in net.run("gw", "iptables-save")
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    gateway.ask("refresh")
    assert "fwd -i wan0 -g snatgw-wan0-drop" not in net.run("gw", "iptables-save")


@pytest.mark.parametrize(
    ("setting", "theirs"),
    [("conf/wan0/forwarding", "0"), ("conf/lan0/rp_filter", "1"), ("neigh/wan0/proxy_delay", "8")],
)
def test_what_somebody_else_set_meanwhile_is_left_alone(
    net: Namespaces, setting: str, theirs: str
) -> None:
    net.sysctl("gw", "net/ipv4/conf/lan0/rp_filter", "1")
    gateway = Gateway(net)
    net.sysctl("gw", f"net/ipv4/{setting}", theirs)
    gateway.remove()
    assert net.run("gw", "cat", f"/proc/sys/net/ipv4/{setting}").strip() == theirs


def test_the_hosts_own_packets_from_addresses_of_other_interfaces_leave(net: Namespaces) -> None:
    """A loopback address that routers know, or a container's bridge that is masqueraded."""
    net.ip("gw", "addr add 192.168.7.1/32 dev lo")
    net.ip("remote", "route add 192.168.7.1 via 203.0.113.1")
    Gateway(net)
    udp_echo(net, "remote")
    ask = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5);"
        f"s.bind(('192.168.7.1', 0)); s.sendto(b'x', ('{REMOTE}', 7)); print(s.recv(9))"
    )
    assert net.python("gw", ask) == "b'x'\n"
