"""Many short connections over a network that loses segments, beside the kernel's own masquerade.

    vm1 (SNAT) vm2 (load balancer) vm3 (own address) ── gw ──┐
                                                             ├── internet: drops what comes and goes
    vm4 ─────────────────────────────── masquerade ──────────┘

What a client loses, its TCP sends again. What is repeated must not be taken for new: no client may
see what masquerade's does not.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.netns.gateway import INSTANCE, Gateway
from tests.netns.topology import SERVER, Topology

ROUTER_PORTS = (("internet", "eth0"), ("internet", "eth4"))
EACH = 60
"""Connections of each VM in a round; half of them are half-closed by the client."""
CLIENTS = ("vm1", "vm2", "vm3", "vm4")
SYN_ACKS = "-p tcp --tcp-flags SYN,ACK SYN,ACK -m statistic --mode nth --every 2 --packet 0"
ANY = "-p tcp -m statistic --mode random --probability 0.06"


@pytest.fixture(scope="module")
def gateway(mode: None) -> Iterator[Gateway]:
    with Topology() as net:
        net.add("vm4", "masquerade")
        net.wire("vm4/eth0 10.0.1.7/24", "lan/vm4")
        net.wire("masquerade/eth0 10.0.1.2/24", "lan/masquerade")
        for port in ("vm4", "masquerade"):
            net.ip("lan", f"link set {port} master br0")
        net.wire("masquerade/eth1 198.18.4.1/24", "internet/eth4 198.18.4.254/24")
        net.ip("vm4", "route add default via 10.0.1.2")
        net.ip("masquerade", "route add default via 198.18.4.254")
        net.sysctl("masquerade", "net/ipv4/conf/all/forwarding", "1")
        rule = "iptables -t nat -A POSTROUTING -o eth1 -j MASQUERADE"
        net.run("masquerade", "sh", "-c", rule)
        gateway = Gateway(net)
        gateway.start()
        yield gateway
        assert gateway.stop() == 0


def lose(net: Topology, rules: list[str]) -> None:
    """Drop what goes to the clients and what comes from them, before or behind either gateway."""
    net.run("internet", "iptables", "-F")
    for rule in rules:
        net.run("internet", "iptables", *rule.split(), "-j", "DROP")


@pytest.mark.parametrize(
    "rules",
    [
        [f"-A OUTPUT -o {port} {SYN_ACKS}" for port in ("eth0", "eth4")],
        [
            f"-A {chain} {way} {port} {ANY}"
            for port in ("eth0", "eth4")
            for chain, way in (("INPUT", "-i"), ("OUTPUT", "-o"))
        ],
    ],
    ids=["every other SYN-ACK", "6 % either way"],
)
def test_no_client_sees_what_masquerades_does_not(gateway: Gateway, rules: list[str]) -> None:
    net = gateway.net
    lose(net, rules)
    for vm in CLIENTS:
        net.client(vm).exchange_many(EACH, SERVER)
    seen = {vm: net.client(vm).exchanged() for vm in CLIENTS}
    assert seen == {vm: {"whole": EACH} for vm in CLIENTS}


def test_no_server_either(gateway: Gateway) -> None:
    """Connections that come in, to vm3's own address: the VM's SYN-ACKs are lost and repeated."""
    net = gateway.net
    lose(net, [f"-A INPUT -i eth0 {SYN_ACKS}"])
    net.client("vm3").slow_digest(99, 0.0)
    net.client("internet").exchange_many(EACH, INSTANCE, half_closed_to=99)
    assert net.client("internet").exchanged() == {"whole": EACH}


def test_what_is_repeated_late_is_not_new(gateway: Gateway) -> None:
    """Each SYN and SYN-ACK comes once more when the client has sent its request and its FIN, and
    waits for the answer."""
    net = gateway.net
    lose(net, [])
    for namespace, interface in (*((vm, "eth0") for vm in CLIENTS), *ROUTER_PORTS):
        net.client(namespace).repeat_openings(interface, 0.15)
    net.client("vm3").slow_digest(98, 0.5)
    net.client("internet").slow_digest(98, 0.5)
    for vm in CLIENTS:
        net.client(vm).exchange_many(EACH, SERVER, half_closed_to=98)
    seen = {vm: net.client(vm).exchanged() for vm in CLIENTS}
    assert seen == {vm: {"whole": EACH} for vm in CLIENTS}
    net.client("internet").exchange_many(EACH, INSTANCE, half_closed_to=98)
    assert net.client("internet").exchanged() == {"whole": EACH}
    # Every connection had one port: repeated SYNs took no other.
    ports = [(f["vm"], f["private"]["port"]) for f in gateway.flows() if f["remote"]["port"] == 98]
    assert len(ports) == len(set(ports)) == 3 * EACH
