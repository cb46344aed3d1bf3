"""The gateway's own host, and its other networks, reach the public IPs as the outside does."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.netns.gateway import DEFAULT, FRONTENDS, INSTANCE, Gateway
from tests.netns.networks import OTHER, add_third_network
from tests.netns.servers import DIGEST, ECHO
from tests.netns.test_fail_closed import assert_no_private_address
from tests.netns.topology import INSIDE, OUTSIDE, SERVER, Topology, eventually

FIREWALL = (  # the last three as Docker has them for a bridge of its own
    "-A INPUT -i lan0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
    "-A INPUT -i lan0 -j DROP",
    "-P FORWARD DROP",
    "-A FORWARD -i dmz0 ! -o dmz0 -j ACCEPT",
    "-t nat -A POSTROUTING -s 192.168.50.0/24 ! -o dmz0 -j MASQUERADE",
)


def serve(net: Topology, vm: str, address: str) -> None:
    servers = net.start(vm, sys.executable, "-m", "tests.netns.servers", address)
    assert servers.stdout is not None
    assert servers.stdout.readline() == "up\n"


@pytest.fixture(scope="module")
def wide(mode: None) -> Iterator[Gateway]:
    """A gateway whose host has a third network, and a firewall of its own that keeps state."""
    with Topology() as net:
        add_third_network(net)
        serve(net, "vm2", "10.0.1.5")
        serve(net, "vm3", "10.0.1.6")
        for rule in FIREWALL:
            net.run("gw", "iptables", *rule.split())
        gateway = Gateway(net)
        rules = gateway.configuration["loadBalancers"][0]["loadBalancingRules"]
        rules[0] |= {"frontendPort": ECHO, "backendPort": ECHO}
        gateway.start()
        yield gateway
        assert gateway.losses() == {}
        assert gateway.stop() == 0


@pytest.mark.parametrize(("asker", "source"), [("gw", OUTSIDE), ("narrow", OTHER)])
def test_a_public_ip_is_reached(wide: Gateway, asker: str, source: str) -> None:
    client = wide.net.client(asker)
    for protocol in ("Tcp", "Udp"):
        assert client.peer(protocol, INSTANCE).rsplit(":", 1)[0] == source
    for size in (1, 1400, 20000):
        assert client.echo(INSTANCE, size) == "whole"
    assert client.upload(INSTANCE, 3 << 20)
    assert client.download(INSTANCE, 3 << 20)
    flows = wide.flows("--remote", source, "--protocol", "Tcp")
    assert flows
    assert {(f["vm"], f["direction"], f["public"]["ip"]) for f in flows} == {
        ("vm3", "Inbound", INSTANCE)
    }


@pytest.mark.parametrize("asker", ["gw", "narrow"])
def test_a_frontend_is_reached_and_keeps_connections(wide: Gateway, asker: str) -> None:
    client = wide.net.client(asker)
    client.open(5, FRONTENDS[0])
    eventually(client.connections, lambda seen: seen["connected"] == 5)
    for _ in range(3):
        assert client.talk() == 5


@pytest.mark.parametrize("asker", ["gw", "narrow"])
def test_an_error_from_a_vm_comes_back(wide: Gateway, asker: str) -> None:
    assert wide.net.client(asker).echo(INSTANCE, port=9) == "ConnectionRefusedError"


def test_what_is_not_listened_to_is_dropped_as_from_outside(wide: Gateway) -> None:
    for asker in ("gw", "narrow"):
        said = wide.net.client(asker).peer("Tcp", DEFAULT, patience=1)
        assert said == "TimeoutError"


def test_vms_talk_to_the_host_itself_as_before(wide: Gateway) -> None:
    for address in (OUTSIDE, INSIDE):
        wide.net.run("gw", "iptables", "-I", "INPUT", "-d", address, "-j", "ACCEPT")
        serve(wide.net, "gw", address)
        for vm in ("vm1", "vm3"):
            client = wide.net.client(vm)
            assert client.echo(address) == "whole"
            assert client.upload(address, 1 << 20)
            assert client.echo(address, port=4001) == "ConnectionRefusedError"


def test_a_vm_reaches_no_other_network_by_itself(wide: Gateway) -> None:
    serve(wide.net, "narrow", OTHER)
    wire = wide.net.capture("narrow", "dmz", "ip")
    client = wide.net.client("vm3")
    for _ in range(2):  # the second as a flow would have it, if there was one
        assert client.peer("Udp", OTHER, port=5000, patience=0.5) == "TimeoutError"
        assert client.peer("Tcp", OTHER, port=5000, patience=0.5) == "TimeoutError"
    assert_no_private_address(wire)
    drops = wide.status()["drops"]
    assert drops["RoutedElsewhere"] >= 2


def test_a_flow_to_outside_does_not_leave_by_another_network(fresh: Topology) -> None:
    """Where routing changes under it, it is dropped, not sent on as it is."""
    add_third_network(fresh)
    gateway = Gateway(fresh)
    gateway.start()
    client = fresh.client("vm1")
    assert client.udp_open(SERVER, ECHO) == "whole"
    client.open(1, SERVER, DIGEST)
    wire = fresh.capture("narrow", "dmz", "ip")
    fresh.ip("gw", f"route add {SERVER} via {OTHER}")
    for _ in range(3):
        assert client.udp_again() == "TimeoutError"
    assert wire.lines() == []
    assert gateway.stop() == 0


def test_nothing_passes_without_the_daemon(fresh: Topology) -> None:
    add_third_network(fresh)
    serve(fresh, "vm3", "10.0.1.6")
    gateway = Gateway(fresh)
    gateway.start()
    assert fresh.client("gw").echo(INSTANCE) == "whole"
    gateway.kill()
    for asker in ("gw", "narrow"):
        assert fresh.client(asker).peer("Udp", INSTANCE, patience=1) in (
            "TimeoutError",
            "PermissionError",
        )
    gateway.start()
    assert fresh.client("gw").echo(INSTANCE) == "whole"
    assert fresh.client("narrow").echo(INSTANCE) == "whole"
    assert gateway.stop() == 0
