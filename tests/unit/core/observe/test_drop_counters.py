"""Drops: each is counted, few are told of, and who wants to see them all is asked first."""

from __future__ import annotations

import pytest

from gateway.core.events import Event, FlowTableFull, PacketsDropped
from gateway.core.observe.drop_counters import EVENT_INTERVAL, DropCounters
from gateway.schema.drop_reasons import DropReason
from tests.packets import build

PACKET = build("udp 10.0.1.4:5000 > 198.51.100.1:53")
OTHER = build("tcp 10.0.1.4:40000 > 198.51.100.2:443 syn")


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def drops(events: list[Event]) -> DropCounters:
    return DropCounters(3, events.append)


def test_the_verdict_is_to_drop_and_only_reasons_that_there_were_are_listed(
    drops: DropCounters,
) -> None:
    assert drops.counts == {}
    assert drops.drop(DropReason.MALFORMED, PACKET) is None
    drops.drop(DropReason.MALFORMED, b"")
    assert drops.counts == {"Malformed": 2}
    assert drops.unseen == {}


def test_the_first_is_told_at_once_and_the_rest_of_an_interval_together(
    drops: DropCounters, events: list[Event]
) -> None:
    reason = DropReason.DENIED_BY_SECURITY_RULE
    drops.now = 10.0
    for packet in (PACKET, PACKET, OTHER):
        drops.drop(reason, packet, "vm1", "nsg/deny")
    first = PacketsDropped(10.0, reason, "vm1", 17, "10.0.1.4", "198.51.100.1", 1, "nsg/deny")
    assert events == [first]
    drops.look(10.0 + EVENT_INTERVAL - 0.1)
    assert events == [first]
    drops.look(10.0 + EVENT_INTERVAL)
    assert events[1:] == [
        PacketsDropped(70.0, reason, "vm1", 6, "10.0.1.4", "198.51.100.2", 2, "nsg/deny")
    ]


def test_kinds_are_told_apart_by_reason_vm_and_rule_up_to_the_bound(
    drops: DropCounters, events: list[Event]
) -> None:
    reason = DropReason.DENIED_BY_SECURITY_RULE
    for vm, rule in (("vm1", "a/x"), ("vm2", "a/x"), ("vm1", "a/y"), ("vm3", "a/x")):
        drops.drop(reason, PACKET, vm, rule)
    assert [(e.vm, e.rule) for e in events if isinstance(e, PacketsDropped)] == [
        ("vm1", "a/x"), ("vm2", "a/x"), ("vm1", "a/y"),
    ]  # fmt: skip
    assert drops.unsampled == 1
    assert drops.counts == {"DeniedBySecurityRule": 4}


def test_exhaustion_is_counted_and_not_told_of_here(
    drops: DropCounters, events: list[Event]
) -> None:
    drops.drop(DropReason.PORTS_EXHAUSTED, PACKET, "vm1")
    assert drops.counts == {"PortsExhausted": 1}
    assert events == []


def test_a_full_table_has_an_event_of_its_own(drops: DropCounters, events: list[Event]) -> None:
    for _ in range(3):
        drops.drop(DropReason.FLOW_TABLE_FULL, PACKET, "vm1")
    drops.look(EVENT_INTERVAL)
    assert events == [FlowTableFull(0.0, 1), FlowTableFull(EVENT_INTERVAL, 2)]


def test_a_packet_too_short_for_addresses_has_none(
    drops: DropCounters, events: list[Event]
) -> None:
    drops.drop(DropReason.MALFORMED, PACKET[:9])
    assert events == [PacketsDropped(0.0, DropReason.MALFORMED, None, 0, "", "", 1)]


def test_who_asks_is_told_of_every_drop_until_nobody_asks(drops: DropCounters) -> None:
    told: list[tuple[DropReason, str | None, str | None]] = []
    drops.tell(lambda *drop: told.append(drop))
    assert drops.drop(DropReason.MALFORMED, PACKET) is None
    drops.drop(DropReason.DENIED_BY_SECURITY_RULE, PACKET, "vm1", "nsg/deny")
    drops.tell(None)
    drops.drop(DropReason.MALFORMED, PACKET)
    assert told == [
        (DropReason.MALFORMED, None, None),
        (DropReason.DENIED_BY_SECURITY_RULE, "vm1", "nsg/deny"),
    ]
    assert drops.counts == {"Malformed": 2, "DeniedBySecurityRule": 1}


def test_what_the_kernel_dropped_is_counted_apart_too_and_told_without_addresses(
    drops: DropCounters, events: list[Event]
) -> None:
    drops.drop(DropReason.FRAGMENT, PACKET)
    events.clear()
    drops.count_unseen(DropReason.FRAGMENT, 5)
    drops.count_unseen(DropReason.PRIVATE_ADDRESS_OUTSIDE, 2, report=False)
    assert drops.counts == {"Fragment": 6, "PrivateAddressOutside": 2}
    assert drops.unseen == {"Fragment": 5, "PrivateAddressOutside": 2}
    assert events == [PacketsDropped(0.0, DropReason.FRAGMENT, None, None, "", "", 5)]
