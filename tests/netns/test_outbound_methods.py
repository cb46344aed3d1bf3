"""Each way out, as a server on the internet sees it."""

from __future__ import annotations

import pytest

from tests.netns.gateway import DEFAULT, FRONTENDS, INSTANCE, Gateway
from tests.netns.topology import SERVER, SERVER2, Topology

PROTOCOLS = ("Udp", "Tcp")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_standalone_vm_leaves_by_default_snat(town: Gateway, protocol: str) -> None:
    vm1 = town.net.client("vm1")
    address, port = vm1.peer(protocol, SERVER, port=40000).split(":")
    assert address == DEFAULT
    (flow,) = (
        f
        for f in town.flows("--vm", "vm1", "--protocol", protocol)
        if f["private"]["port"] == 40000
    )
    assert flow["method"] == "DefaultOutboundAccess"
    assert flow["public"] == {"ip": DEFAULT, "port": int(port)}
    assert flow["remote"] == {"ip": SERVER, "port": 37}
    assert (flow["packetsOut"] > 0, flow["packetsIn"] > 0) == (True, True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_ports_of_default_snat_are_the_lowest_of_the_allocation(
    town: Gateway, protocol: str
) -> None:
    town.net.client("vm1").peer(protocol, SERVER2)
    used = town.ports("vm1", protocol)
    assert (used["allocated"], used["publicIp"]) == (1024, DEFAULT)
    ports = {f["public"]["port"] for f in town.flows("--vm", "vm1", "--protocol", protocol)}
    assert ports <= set(range(1024, 2048))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_load_balanced_vm_leaves_by_any_of_its_frontends(town: Gateway, protocol: str) -> None:
    vm2 = town.net.client("vm2")
    seen = {vm2.peer(protocol, SERVER).split(":")[0] for _ in range(40)}
    assert seen == set(FRONTENDS)
    assert {f["method"] for f in town.flows("--vm", "vm2")} == {"LoadBalancer"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_instance_level_public_ip_keeps_ports(town: Gateway, protocol: str) -> None:
    vm3 = town.net.client("vm3")
    for port in (80, 1023, 40001, 65535):
        assert vm3.peer(protocol, SERVER, port=port) == f"{INSTANCE}:{port}"
    assert {f["method"] for f in town.flows("--vm", "vm3")} == {"InstanceLevelPublicIP"}


def test_a_vm_that_no_file_names_stands_alone(town: Gateway) -> None:
    town.net.ip("vm1", "addr replace 10.0.1.77/24 dev eth0")
    seen = town.net.client("vm1").peer("Udp", SERVER, source="10.0.1.77")
    assert seen.startswith(DEFAULT + ":")
    assert town.ports("10.0.1.77", "Udp")["method"] == "DefaultOutboundAccess"


def test_public_ips_are_answered_for_on_the_outside_wire(town: Gateway) -> None:
    mac = town.net.ip("gw", "-br link show wan0").split()[2]
    publics = [DEFAULT, *FRONTENDS, INSTANCE]
    assert town.net.client("internet").who_has(publics) == [mac] * 4


def test_three_flags_are_enough(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    publics = ["203.0.113.50", "203.0.113.51"]
    gateway.start(
        "--inside", "lan0", "--outside", "wan0", "--public-ip", ",".join(publics),
        "--state-directory", str(gateway.state),
    )  # fmt: skip
    for vm in ("vm1", "vm2", "vm3"):
        assert fresh.client(vm).peer("Tcp", SERVER).split(":")[0] in publics
    assert {f["method"] for f in gateway.flows()} == {"DefaultOutboundAccess"}
    assert {f["vm"] for f in gateway.flows()} == {"10.0.1.4", "10.0.1.5", "10.0.1.6"}
    assert gateway.stop() == 0


def test_unsolicited_packets_reach_no_vm_but_by_its_own_public_ip(town: Gateway) -> None:
    town.net.client("vm3").listen(5353)
    internet = town.net.client("internet")
    assert internet.echo(DEFAULT, port=5353, patience=0.3) == "TimeoutError"
    assert town.status()["drops"]["InboundWithoutFlow"] > 0
    # No network security group stands in front of vm3: a Basic public IP is open.
    assert internet.echo(INSTANCE, port=5353) == "whole"
