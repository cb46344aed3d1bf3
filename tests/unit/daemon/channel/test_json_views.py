"""The contract's JSON, field by field."""

from __future__ import annotations

import json
from datetime import datetime

from gateway.core.events import (
    FlowsEnded,
    FlowTableFull,
    NoHealthyBackends,
    PacketsDropped,
    PortsExhausted,
    ProbeHealthChanged,
    SnatPortsReclaimed,
)
from gateway.daemon.channel.event_views import event_document
from gateway.daemon.channel.json_views import flow_document, port_document
from gateway.schema.drop_reasons import DropReason
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


def test_exhaustion_has_the_shape_of_azures_alert() -> None:
    event = PortsExhausted(1.0, "vm1", "203.0.113.10", "Tcp", "198.51.100.7", 443, 12)
    assert event_document(event, WALL) == {
        "time": "2026-02-02T02:40:00.250Z",
        "category": "LoadBalancerAlertEvent",
        "operationName": "LoadBalancerProbeHealthStatus",
        "level": "Warning",
        "resource": "publicIPAddresses/203.0.113.10",
        "properties": {
            "eventName": "Resource Limits Hit",
            "eventDescription": "Ports exhausted",
            "eventProperties": {"public ip address": "203.0.113.10"},
            "vm": "vm1",
            "protocol": "Tcp",
            "remote": {"ip": "198.51.100.7", "port": 443},
            "count": 12,
        },
    }


def test_a_change_of_health_has_the_shape_of_azures_probe_event() -> None:
    event = ProbeHealthChanged(1.0, "lb", "p", "web", "vm1", False, "203.0.113.20", 81, 3, 1)
    document = event_document(event, WALL)
    assert document["category"] == document["operationName"] == "LoadBalancerProbeHealthStatus"
    assert (document["level"], document["resource"]) == ("Warning", "loadBalancers/lb")
    assert document["properties"] == {
        "publicIpAddress": "203.0.113.20",
        "port": "81",
        "totalDipCount": 3,
        "dipDownCount": 1,
        "healthPercentage": 66.666667,
        "rule": "web",
        "probe": "p",
        "vm": "vm1",
        "status": "Down",
    }


def test_a_rule_without_a_backend_is_a_health_event() -> None:
    document = event_document(NoHealthyBackends(1.0, "lb", "web", "203.0.113.20", "Tcp", 80), WALL)
    assert document["category"] == "LoadBalancerHealthEvent"
    assert document["operationName"].count("/") == 3
    properties = document["properties"]
    assert (properties["HealthEventType"], properties["Severity"]) == (
        "NoHealthyBackends",
        "Critical",
    )
    assert properties["Frontend Ip"] == "203.0.113.20"
    assert "completely unreachable" in properties["Description"]
    assert "Tcp:80" in properties["Description"]


def test_every_event_has_the_contracts_fields_and_goes_through_json() -> None:
    events = [
        PortsExhausted(1.0, "vm1", "203.0.113.10", "Tcp", "198.51.100.7", 443, 1),
        PacketsDropped(1.0, DropReason.MALFORMED, None, 6, "10.0.1.4", "198.51.100.7", 3),
        PacketsDropped(1.0, DropReason.TCP_WITHOUT_FLOW, "vm1", 6, "10.0.1.4", "192.0.2.1", 3),
        SnatPortsReclaimed(1.0, "vm1", "203.0.113.10", 512, 37),
        FlowTableFull(1.0, 9),
        ProbeHealthChanged(1.0, "lb", "p", "web", "vm1", True, "203.0.113.20", 80, 2, 0),
        NoHealthyBackends(1.0, "lb", "web", "203.0.113.20", "Tcp", 80),
        FlowsEnded(1.0, 3, "their subnet is gone"),
    ]
    for event in events:
        document = event_document(event, WALL)
        assert list(document) == [
            "time",
            "category",
            "operationName",
            "level",
            "resource",
            "properties",
        ]
        assert json.loads(json.dumps(document)) == document
        assert datetime.fromisoformat(document["time"]).timestamp() == WALL
    dropped = event_document(events[1], WALL)["properties"]
    assert dropped["reason"] == "Malformed"
    assert dropped["description"] == DropReason.MALFORMED.sentence
