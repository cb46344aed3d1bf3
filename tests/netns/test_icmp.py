"""Errors, TTL and MTU, as real kernels and programs make and understand them."""

from __future__ import annotations

import re

import pytest

from tests.netns.gateway import INSTANCE, Gateway
from tests.netns.topology import FAR, INSIDE, NARROW, ROUTER, SERVER, Topology, eventually

MEGABYTE = 1 << 20


@pytest.mark.parametrize("vm", ["vm1", "vm2", "vm3"])
@pytest.mark.parametrize("kind", ["", "-T -p 7", "-U -p 7"])
def test_traceroute_sees_every_hop(town: Gateway, vm: str, kind: str) -> None:
    output = town.net.run(vm, "traceroute", "-n", *kind.split(), "-w", "5", "-q", "1", FAR)
    hops = [line.split()[1] for line in output.splitlines()[1:]]
    assert hops == [INSIDE, ROUTER, NARROW, FAR]


def test_icmp_traceroute_works_through_an_instance_level_public_ip(town: Gateway) -> None:
    output = town.net.run("vm3", "traceroute", "-n", "-I", "-w", "5", "-q", "1", FAR)
    hops = [line.split()[1] for line in output.splitlines()[1:]]
    assert hops == [INSIDE, ROUTER, NARROW, FAR]


def test_ttl_falls_by_one_each_way(town: Gateway) -> None:
    vm = town.net.capture("vm1", "eth0", "udp")
    internet = town.net.capture("internet", "eth0", "udp")
    assert town.net.client("vm1").echo(SERVER) == "whole"
    (sent, received), (arrived, left) = vm.packets(), internet.packets()
    assert (sent["IP"].ttl - arrived["IP"].ttl, left["IP"].ttl - received["IP"].ttl) == (1, 1)


@pytest.mark.parametrize("vm", ["vm1", "vm2", "vm3"])
def test_port_unreachable_reaches_the_socket(town: Gateway, vm: str) -> None:
    assert town.net.client(vm).echo(SERVER, port=9999) == "ConnectionRefusedError"


@pytest.mark.parametrize("vm", ["vm1", "vm3"])
def test_path_mtu_discovery_beyond_the_gateway(town: Gateway, vm: str) -> None:
    """The router's "fragmentation needed" reaches the VM, whose kernel then knows the path."""
    client = town.net.client(vm)
    assert client.upload(FAR, 5 * MEGABYTE)
    assert "mtu 1280" in town.net.ip(vm, f"route get {FAR}")
    assert client.download(FAR, 5 * MEGABYTE)


@pytest.mark.parametrize("vm", ["vm1", "vm3"])
def test_path_mtu_discovery_behind_the_gateway(fresh: Topology, vm: str) -> None:
    """The gateway's own "fragmentation needed" reaches the server, and tells no private address."""
    gateway = Gateway(fresh)
    fresh.ip("gw", "link set lan0 mtu 1280")
    gateway.start()
    wire = fresh.capture("internet", "eth0", "icmp")
    assert fresh.client(vm).download(SERVER, 5 * MEGABYTE)
    publics = {f["public"]["ip"] for f in gateway.flows("--vm", vm)}
    errors = wire.packets()
    assert {(e["ICMP"].type, e["ICMP"].code, e["ICMP"].nexthopmtu) for e in errors} == {
        (3, 4, 1280)
    }
    assert {e["IP in ICMP"].dst for e in errors} == publics
    (public,) = publics
    assert re.search("mtu 1280", fresh.ip("internet", f"route get {public} from {SERVER}"))


def test_ping_is_dropped_by_snat_and_said_so(town: Gateway) -> None:
    wire = town.net.capture("internet", "eth0", "icmp")
    answer = town.net.run("vm1", "ping", "-c", "2", "-i", "0.2", "-W", "1", SERVER, check=False)
    assert "2 packets transmitted, 0 received" in answer
    assert wire.lines() == []
    event = town.event(reason="IcmpEchoThroughSnat", vm="vm1")
    assert event["properties"]["destination"] == SERVER


def test_ping_passes_an_instance_level_public_ip(town: Gateway) -> None:
    wire = town.net.capture("internet", "eth0", "icmp")
    answer = town.net.run("vm3", "ping", "-c", "2", "-i", "0.2", "-W", "10", SERVER)
    assert "2 received" in answer
    assert {frame["IP"].src for frame in wire.packets()} == {INSTANCE, SERVER}


def test_a_lab_may_translate_ping(fresh: Topology) -> None:
    Gateway(fresh, icmpEcho="translate").start()
    for vm in ("vm1", "vm2"):
        assert "2 received" in fresh.run(vm, "ping", "-c", "2", "-i", "0.2", "-W", "10", SERVER)


def test_the_gateway_itself_answers_its_vms(town: Gateway) -> None:
    town.net.run("vm1", "ping", "-c", "1", "-W", "10", INSIDE)
    eventually(lambda: town.net.run("gw", "ping", "-c", "1", "-W", "10", SERVER))
