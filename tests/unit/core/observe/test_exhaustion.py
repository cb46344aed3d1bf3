"""Shortage of ports: as which event it is told, of whom, and how often."""

from __future__ import annotations

import pytest

from gateway.core.events import Event, HighSnatPortUsage, PortsExhausted
from gateway.core.observe.exhaustion import ExhaustionMonitor
from gateway.core.snat.allocations import PortAllocation
from gateway.core.snat.plan import FlowPolicy
from gateway.model.profile import PROFILES, ExhaustionEvent, Method
from gateway.schema.protocols import TCP, UDP
from tests.unit.core.flows.making import PRIVATE, PUBLIC, REMOTE, vm

ORIGINAL = PRIVATE + REMOTE + bytes((0x9C, 0x40, 0x01, 0xBB))
AZURE_2017, CURRENT = PROFILES["azure-2017"], PROFILES["azure-current"]


def allocation(method: Method, name: str = "vm1", protocol: int = TCP) -> PortAllocation:
    terms = FlowPolicy(method, 240.0, "loadBalancers/lb")
    return PortAllocation.own(vm(name), PUBLIC, protocol, terms, [range(1024, 1032)])


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.mark.parametrize(
    ("profile", "method", "shape"),
    [
        ("azure-2017", Method.LOAD_BALANCER, ExhaustionEvent.ALERT),
        ("azure-2017", Method.DEFAULT_OUTBOUND_ACCESS, ExhaustionEvent.ALERT),
        ("azure-current", Method.LOAD_BALANCER, ExhaustionEvent.HEALTH),
        ("azure-current", Method.OUTBOUND_RULE, ExhaustionEvent.HEALTH),
        ("azure-current", Method.NAT_GATEWAY, None),
        ("azure-current", Method.DEFAULT_OUTBOUND_ACCESS, None),
    ],
)
def test_the_event_is_the_one_that_azure_would_write(
    events: list[Event], profile: str, method: Method, shape: ExhaustionEvent | None
) -> None:
    monitor = ExhaustionMonitor(PROFILES[profile], 10, events.append)
    monitor.exhausted(allocation(method), TCP, ORIGINAL, 5.0)
    assert events == [
        PortsExhausted(
            5.0, "vm1", "203.0.113.10", "Tcp", "198.51.100.1", 443, 1, "10.0.1.4",
            "loadBalancers/lb", shape,
        )
    ]  # fmt: skip


def test_a_flood_is_one_event_at_once_and_one_an_interval_for_each_kind(
    events: list[Event],
) -> None:
    monitor = ExhaustionMonitor(AZURE_2017, 2, events.append)
    of_lb = allocation(Method.LOAD_BALANCER)
    for _ in range(4):
        monitor.exhausted(of_lb, TCP, ORIGINAL, 0.0)
    monitor.exhausted(allocation(Method.LOAD_BALANCER, protocol=UDP), UDP, ORIGINAL, 0.0)
    monitor.exhausted(allocation(Method.LOAD_BALANCER, "vm2"), TCP, ORIGINAL, 0.0)
    assert monitor.unsampled == 1  # vm2's: there is room for two kinds
    interval = AZURE_2017.exhaustion_event_interval
    monitor.look(interval - 0.1)
    monitor.look(interval)
    seen = [(e.time, e.protocol, e.count) for e in events if isinstance(e, PortsExhausted)]
    assert seen == [(0.0, "Tcp", 1), (0.0, "Udp", 1), (interval, "Tcp", 3)]


def test_high_usage_is_told_of_load_balancers_with_what_is_used(events: list[Event]) -> None:
    monitor = ExhaustionMonitor(CURRENT, 10, events.append)
    used = allocation(Method.OUTBOUND_RULE)
    used.pools[TCP].take_exactly(REMOTE, 1024)
    monitor.high(used, TCP, 1.0)
    used.pools[TCP].take_exactly(REMOTE, 1025)
    monitor.high(used, TCP, 2.0)
    monitor.high(allocation(Method.NAT_GATEWAY), TCP, 2.0)
    monitor.look(1.0 + CURRENT.exhaustion_event_interval)
    assert [(e.used, e.allocated, e.vm) for e in events if isinstance(e, HighSnatPortUsage)] == [
        (1, 8, "vm1"),
        (2, 8, "vm1"),
    ]
    assert len(events) == 2
