"""Events as Azure's logs have them, field by field, and ours where Azure has none."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from gateway.core.events import (
    Event,
    FlowsEnded,
    FlowTableFull,
    HighSnatPortUsage,
    NoHealthyBackends,
    PacketsDropped,
    PortsExhausted,
    ProbeHealthChanged,
    SnatPortsReclaimed,
)
from gateway.daemon.channel.event_views import event_document
from gateway.model.profile import ExhaustionEvent
from gateway.schema.drop_reasons import DropReason

WALL = 1_770_000_000.25


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
    events: list[Event] = [
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


@pytest.mark.parametrize(
    ("shape", "category", "level", "resource"),
    [
        (
            ExhaustionEvent.ALERT,
            "LoadBalancerAlertEvent",
            "Warning",
            "publicIPAddresses/203.0.113.10",
        ),
        (ExhaustionEvent.HEALTH, "LoadBalancerHealthEvent", "Error", "loadBalancers/lb"),
        (None, "GatewayEvent", "Error", "loadBalancers/lb"),
    ],
)
def test_exhaustion_is_told_as_the_profile_and_the_method_have_it(
    shape: ExhaustionEvent | None, category: str, level: str, resource: str
) -> None:
    event = PortsExhausted(
        1.0,
        "vm1",
        "203.0.113.10",
        "Tcp",
        "198.51.100.7",
        443,
        12,
        "10.0.1.4",
        "loadBalancers/lb",
        shape,
    )
    document = event_document(event, WALL)
    assert (document["category"], document["level"], document["resource"]) == (
        category, level, resource,
    )  # fmt: skip
    assert document["properties"]["count"] == 12
    assert ("HealthEventType" in document["properties"]) is (shape is ExhaustionEvent.HEALTH)


def test_high_usage_is_a_health_event_with_its_numbers() -> None:
    event = HighSnatPortUsage(
        1.0, "vm1", "203.0.113.10", "Tcp", 800, 1024, "10.0.1.4", "loadBalancers/lb"
    )
    document = event_document(event, WALL)
    assert document["category"] == "LoadBalancerHealthEvent"
    assert document["operationName"].endswith("/HighSnatPortUsage")
    properties = document["properties"]
    assert (properties["used"], properties["allocated"], properties["vm"]) == (800, 1024, "vm1")
    assert "10.0.1.4" in properties["Description"]
    assert "203.0.113.10" in properties["Description"]


def test_what_a_reload_took_is_told_with_how_much() -> None:
    taken = event_document(SnatPortsReclaimed(1.0, "vm1", "203.0.113.10", 512, 37), WALL)
    assert taken["properties"] == {
        "vm": "vm1", "publicIp": "203.0.113.10", "ports": 512, "flowsBroken": 37,
    }  # fmt: skip
    assert taken["resource"] == "virtualMachines/vm1"
    ended = event_document(FlowsEnded(1.0, 3, "their subnet is gone"), WALL)
    assert ended["properties"] == {"flows": 3, "reason": "their subnet is gone"}
    full = event_document(FlowTableFull(1.0, 9), WALL)
    assert (full["level"], full["properties"]) == ("Error", {"count": 9})
