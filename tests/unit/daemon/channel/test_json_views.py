"""The contract's JSON, field by field."""

from __future__ import annotations

from gateway.daemon.channel.json_views import flow_document, port_document
from tests.unit.daemon.serving import flow, pool

WALL = 1_770_000_000.25


def test_a_flow() -> None:
    assert flow_document(flow(5)) == {
        "id": 5,
        "protocol": "Tcp",
        "state": "Established",
        "direction": "Outbound",
        "method": "DefaultOutboundAccess",
        "vm": "vm1",
        "private": {"ip": "10.0.1.4", "port": 40005},
        "public": {"ip": "203.0.113.10", "port": 1029},
        "remote": {"ip": "198.51.100.7", "port": 443},
        "packetsOut": 3,
        "bytesOut": 180,
        "packetsIn": 2,
        "bytesIn": 120,
        "ageSeconds": 12.346,
        "idleSeconds": 1.0,
        "expiresInSeconds": 239.0,
        "offloaded": False,
        "awaitingRemoval": False,
    }


def test_a_flow_without_a_public_side_and_one_of_a_rare_protocol() -> None:
    document = flow_document(flow(1, public_ip=None, protocol=99))
    assert document["public"] is None
    assert document["protocol"] == "Protocol99"
    assert flow_document(flow(1, protocol=1))["protocol"] == "Icmp"


def test_ports_show_the_ten_busiest_destinations() -> None:
    many = tuple((f"198.51.100.{n}", 443, 20 - n) for n in range(12))
    document = port_document(pool("vm1", destinations=many))
    busiest = document.pop("destinations")
    assert document == {
        "vm": "vm1",
        "publicIp": "203.0.113.10",
        "protocol": "Tcp",
        "method": "DefaultOutboundAccess",
        "allocated": 1024,
        "used": 3,
        "free": 1021,
        "highWater": 7,
        "failed": 0,
        "coolDown": 1,
        "ranges": ["1032-2055"],
        "reserved": ["1024-1031"],
    }
    assert len(busiest) == 10
    assert busiest[0] == {"remote": {"ip": "198.51.100.0", "port": 443}, "used": 20}


def test_a_destination_without_a_port_has_null() -> None:
    (destination,) = port_document(pool("vm1"))["destinations"]
    assert destination == {"remote": {"ip": "198.51.100.7", "port": None}, "used": 3}
