"""A VM without SNAT ports: what fails, what goes on, who is told, and how it ends."""

from __future__ import annotations

import json

from tests.netns.gateway import DEFAULT, Gateway
from tests.netns.topology import SERVER, SERVER2, Topology, eventually

PORTS, WANTED = 1024, 2000
SCALE = 5  # 15 of Azure's seconds are 3; what is established stays for 48


def test_2000_connections_to_one_destination_with_1024_ports(fresh: Topology) -> None:
    gateway = Gateway(fresh, timeScale=SCALE)
    gateway.start()
    vm1, vm2 = fresh.client("vm1"), fresh.client("vm2")
    answers = fresh.capture("vm1", "eth0", "icmp or tcp[tcpflags] & tcp-rst != 0")

    vm1.open(WANTED, SERVER)
    eventually(vm1.connections, lambda seen: seen["connected"] >= PORTS)
    # The kernel has sent a second SYN for those that got no answer to the first.
    eventually(lambda: gateway.ports("vm1", "Tcp")["failed"], lambda n: n >= 2 * (WANTED - PORTS))
    assert vm1.connections() == {"connected": PORTS, "pending": WANTED - PORTS, "failed": 0}
    assert answers.lines() == []

    record = gateway.ports("vm1", "Tcp")
    assert (record["allocated"], record["used"], record["free"], record["highWater"]) == (
        PORTS,
        PORTS,
        0,
        PORTS,
    )
    assert record["destinations"] == [{"remote": {"ip": SERVER, "port": None}, "used": PORTS}]
    publics = {f["public"]["port"] for f in gateway.flows("--vm", "vm1")}
    assert publics == set(range(1024, 2048))

    # What holds a port goes on; so does whatever does not need one of these.
    assert vm1.talk() == PORTS
    assert vm1.peer("Tcp", SERVER, patience=1) == "TimeoutError"  # another port, same address
    assert vm1.peer("Tcp", SERVER2).startswith(DEFAULT)
    assert vm1.peer("Udp", SERVER).startswith(DEFAULT)
    assert vm2.peer("Tcp", SERVER) != "TimeoutError"

    event = gateway.event(eventDescription="Ports exhausted")
    time, count = event.pop("time"), event["properties"].pop("count")
    assert time.endswith("Z")
    assert count == 1
    assert event == {
        "category": "LoadBalancerAlertEvent",
        "operationName": "LoadBalancerProbeHealthStatus",
        "level": "Warning",
        "resource": f"publicIPAddresses/{DEFAULT}",
        "properties": {
            "eventName": "Resource Limits Hit",
            "eventDescription": "Ports exhausted",
            "eventProperties": {"public ip address": DEFAULT},
            "vm": "vm1",
            "protocol": "Tcp",
            "remote": {"ip": SERVER, "port": 7},
        },
    }
    log = (gateway.state / "events.jsonl").read_text().splitlines()
    logged = [e for e in map(json.loads, log) if e["category"] == "LoadBalancerAlertEvent"]
    assert logged[0]["time"] == time

    # RST holds a port for 15 of Azure's seconds; then those that failed get through by themselves.
    vm1.reset(PORTS)
    assert {f["state"] for f in gateway.flows("--vm", "vm1", "--remote", f"{SERVER}:7")} == {
        "CoolDown"
    }
    assert vm1.connections() == {"connected": 0, "pending": WANTED - PORTS, "failed": 0}
    eventually(vm1.connections, lambda seen: seen["connected"] == WANTED - PORTS)
    assert vm1.talk() == WANTED - PORTS
    # Those refused since the first: one event a minute of Azure's, with their number.
    events = eventually(
        lambda: [
            e["properties"]["count"]
            for e in gateway.events()
            if e["category"] == "LoadBalancerAlertEvent"
        ],
        lambda counts: len(counts) > 1,
    )
    failed = gateway.ports("vm1", "Tcp")["failed"]
    assert sum(events) <= failed
    assert len(events) < 10
    assert gateway.losses() == {}


def test_udp_has_ports_of_its_own_and_idle_ones_come_back(fresh: Topology) -> None:
    gateway = Gateway(fresh, timeScale=60)  # idle after 4 seconds
    gateway.start()
    vm1 = fresh.client("vm1")
    vm1.keep_sending(SERVER)
    eventually(lambda: gateway.ports("vm1", "Udp"), lambda record: record["failed"] > 0)
    record = gateway.ports("vm1", "Udp")
    assert record["highWater"] == PORTS
    assert gateway.ports("vm1", "Tcp")["used"] == 0
    vm1.stop()
    eventually(lambda: gateway.ports("vm1", "Udp")["free"], lambda free: free == PORTS)
    assert vm1.peer("Udp", SERVER) == f"{DEFAULT}:1024"
    gateway.event(eventDescription="Ports exhausted", protocol="Udp")
