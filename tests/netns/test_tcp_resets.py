"""Idle connections of real programs: who is told that the flow is no more, and who is not."""

from __future__ import annotations

import subprocess
from typing import Any

from gateway.core.flows.resets import ROOM
from tests.netns.current import LINK, attach, current
from tests.netns.gateway import Gateway
from tests.netns.test_capture import Capturing, comment, way
from tests.netns.topology import OUTSIDE, SERVER, Topology, eventually

PORT = 7777
SCALE = 80  # 4 minutes of Azure's are 3 seconds
MANY = 8_000
ENDED = "ConnectionResetError"


def allowing(port: int) -> dict[str, Any]:
    """A group that lets a TCP port in from the internet."""
    rule = {
        "name": "allow",
        "priority": 100,
        "direction": "Inbound",
        "access": "Allow",
        "protocol": "Tcp",
        "sourceAddressPrefix": "Internet",
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "destinationPortRange": str(port),
    }
    return {"name": "web", "securityRules": [rule]}


def outbound(gateway: Gateway, vm: str) -> tuple[Any, Any, dict[str, Any]]:
    """A connection of a VM's to outside: the two programs that hold its ends, and the flow."""
    server, client = gateway.net.client("internet"), gateway.net.client(vm)
    server.await_one(PORT)
    assert client.begin(SERVER, PORT) == "hello"
    return client, server, listed(gateway, client)


def listed(gateway: Gateway, client: Any) -> dict[str, Any]:
    """The flow of the connection that a client holds. It is busy until it was looked at: on a busy
    machine the command takes longer than a flow may idle."""
    client.keep_talking()
    (flow,) = gateway.flows()
    client.stop()
    return flow


def test_a_rule_that_asks_has_both_ends_told_when_their_flow_idles_out(fresh: Topology) -> None:
    gateway = current(fresh, timeScale=SCALE)
    gateway.start()
    client, server, flow = outbound(gateway, "vm1")
    assert flow["method"] == "OutboundRule"
    assert client.fate(20) == ENDED
    assert server.fate(5) == ENDED
    assert gateway.flows() == []
    assert gateway.status()["tcpResets"] == {
        "sent": 2,
        "failed": 0,
        "waiting": 0,
        "suppressed": 0,
    }
    assert gateway.losses() == {}


def test_the_remote_is_told_by_a_public_ip_that_is_a_private_address(fresh: Topology) -> None:
    gateway = current(fresh, timeScale=SCALE)
    publics = {p["name"]: p for p in gateway.configuration["publicIPAddresses"]}
    publics["pip-rule"]["ipAddress"] = "192.168.77.10"
    subprocess.run(
        fresh.command("internet", "ip", "route", "add", "192.168.77.0/24", "via", OUTSIDE),
        check=True,
    )
    gateway.start()
    client, server, _ = outbound(gateway, "vm1")
    assert client.fate(20) == ENDED
    assert server.fate(5) == ENDED
    assert gateway.status()["tcpResets"]["failed"] == 0


def test_a_rule_that_does_not_ask_ends_silently(fresh: Topology) -> None:
    gateway = current(fresh, timeScale=SCALE)
    gateway.start()
    client, server, _ = outbound(gateway, "vm2")
    eventually(lambda: gateway.flows() == [])
    assert client.fate(1.5) == "TimeoutError"
    assert server.fate(0.5) == "TimeoutError"
    assert gateway.status()["tcpResets"]["sent"] == 0


def test_a_load_balancing_rule_that_asks_has_client_and_backend_told(fresh: Topology) -> None:
    gateway = current(fresh, timeScale=SCALE)
    document = gateway.configuration
    rule = document["loadBalancers"][0]["loadBalancingRules"][0]
    rule |= {"enableTcpReset": True, "backendPort": PORT}
    document["virtualNetwork"]["subnets"][0]["networkSecurityGroup"] = "web"
    document["networkSecurityGroups"] = [allowing(PORT)]
    gateway.start()
    backend, client = fresh.client("vm2"), fresh.client("internet")
    backend.await_one(PORT)
    assert client.begin(LINK, 80) == "hello"
    assert client.fate(20) == ENDED
    assert backend.fate(5) == ENDED
    assert gateway.losses() == {}


def test_an_inbound_nat_rule_that_asks_has_both_told_and_a_capture_shows_it(
    fresh: Topology,
) -> None:
    gateway = current(fresh, timeScale=SCALE)
    document = gateway.configuration
    document["virtualNetwork"]["subnets"][0]["networkSecurityGroup"] = "web"
    document["networkSecurityGroups"] = [allowing(PORT)]
    document["loadBalancers"][0]["inboundNatRules"] = [
        {
            "name": "ssh",
            "frontendIPConfiguration": "fe-link",
            "protocol": "Tcp",
            "frontendPort": 50001,
            "virtualMachine": "vm1",
            "backendPort": PORT,
            "enableTcpReset": True,
        }
    ]
    gateway.start()
    backend, client = fresh.client("vm1"), fresh.client("internet")
    backend.await_one(PORT)
    capture = Capturing(gateway)  # which may take longer to begin than the flow idles
    assert client.begin(LINK, 50001) == "hello"
    flow = listed(gateway, client)
    assert flow["method"] == "InboundNatRule"
    assert client.fate(20) == ENDED
    assert backend.fate(5) == ENDED
    eventually(lambda: capture.file.read_bytes().count(b"reason=IdleTimeout") == 2)
    capture.end()
    resets = [p for p in capture.packets() if "reason=IdleTimeout" in p["frame.comment"]]
    about = {"flow": str(flow["id"]), "vm": "vm1", "method": "InboundNatRule"}
    told = about | {"verdict": "sent", "reason": "IdleTimeout"}
    assert sorted((way(p), p["ip.src"], p["ip.dst"]) for p in resets) == [
        ("inside out", flow["remote"]["ip"], flow["private"]["ip"]),
        ("outside out", LINK, flow["remote"]["ip"]),
    ]
    assert all(comment(p) == told for p in resets)
    assert all(p["tcp.checksum.status"] == "1" for p in resets)
    assert gateway.losses() == {}


def test_a_nat_gateway_tells_who_sends_to_a_flow_that_is_no_more(fresh: Topology) -> None:
    gateway = current(fresh, timeScale=SCALE)
    attach(gateway)
    gateway.start()
    client, server, flow = outbound(gateway, "vm1")
    assert flow["method"] == "NatGateway"
    eventually(lambda: gateway.flows() == [])
    assert client.fate(1) == "TimeoutError"  # it ended silently
    assert client.fate(5, stray=True) == ENDED
    assert server.fate(1) == "TimeoutError"
    assert server.fate(5, stray=True) == ENDED
    assert gateway.status()["drops"] == {"TcpWithoutFlow": 1, "InboundWithoutFlow": 1}
    assert gateway.losses() == {}


def test_very_many_that_idle_out_together_are_told_and_others_notice_nothing(
    fresh: Topology,
) -> None:
    gateway = current(fresh, timeScale=24)
    rule = gateway.configuration["loadBalancers"][0]["outboundRules"][0]
    rule["allocatedOutboundPorts"] = MANY
    gateway.start()
    vm1, vm3 = fresh.client("vm1"), fresh.client("vm3")
    vm3.keep_asking(SERVER)
    for _ in range(MANY // 1000):
        vm1.open(1000, SERVER)
        eventually(vm1.connections, lambda count: count["pending"] == 0)
    told = {"sent": 2 * MANY, "failed": 0, "waiting": 0, "suppressed": 0}
    most = 0

    def resets() -> dict[str, int]:
        nonlocal most
        seen: dict[str, int] = gateway.status()["tcpResets"]
        most = max(most, seen["waiting"])
        return seen

    assert eventually(resets, lambda seen: seen["sent"] >= 2 * MANY) == told
    assert most <= ROOM
    ended = {"connected": 0, "pending": 0, "failed": MANY}
    eventually(vm1.connections, lambda seen: seen == ended)  # what was sent is under way still
    (counts,) = vm3.stop()
    assert counts["sent"] == counts["answered"] > 0
    assert gateway.losses() == {}
