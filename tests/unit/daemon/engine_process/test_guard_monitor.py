"""What the guard stops is counted once, and told of now and then."""

from __future__ import annotations

from typing import Any

from gateway.daemon.engine_process.guard_monitor import INTERVAL, GuardMonitor
from gateway.daemon.engine_process.host import GuardState
from gateway.schema.drop_reasons import DropReason


class Guarded:
    """A diverted host, as far as its guard goes."""

    def __init__(self) -> None:
        self.state = GuardState()
        self.told = 0

    def guard_drops_reported(self) -> None:
        self.told += 1

    def guard(self) -> GuardState:
        return self.state


def test_what_it_stops_is_counted_once_and_told_of_now_and_then() -> None:
    host, counted, events = Guarded(), [], []

    def own_event(operation: str, level: str, properties: dict[str, Any]) -> None:
        events.append((operation, properties))

    watch = GuardMonitor(host, lambda reason, n: counted.append((reason, n)), own_event)  # type: ignore[arg-type]
    watch.tick(0.0)
    assert (counted, events) == ([], [])
    for dropped, real in ((5, 1.0), (8, 2.0), (8, 3.0), (9, 1.0 + INTERVAL)):
        host.state = GuardState("", dropped)
        watch.tick(real)
    assert counted == [(DropReason.PRIVATE_ADDRESS_OUTSIDE, n) for n in (5, 3, 1)]
    plain = {"whileNoGatewayRan": False, "otherFilters": False}
    assert events == [
        ("GuardDroppedPackets", {"count": 5, "total": 5, **plain}),
        ("GuardDroppedPackets", {"count": 4, "total": 9, **plain}),
    ]
    assert host.told == 2
    assert watch.status() == {"active": True, "dropped": 9, "restored": 0}


def test_what_it_stopped_while_no_gateway_ran_is_told_as_such() -> None:
    host, counted, events = Guarded(), [], []

    def own_event(operation: str, level: str, properties: dict[str, Any]) -> None:
        events.append(properties)

    watch = GuardMonitor(host, lambda reason, n: counted.append(n), own_event)  # type: ignore[arg-type]
    host.state = GuardState("", 9, meanwhile=7)
    watch.tick(1.0)
    watch.tick(1.0 + INTERVAL)
    assert [(e["count"], e["total"], e["whileNoGatewayRan"]) for e in events] == [
        (7, 7, True),
        (2, 9, False),
    ]
    assert counted == [2]


def test_what_others_filters_may_have_dropped_is_no_drop_of_the_gateways() -> None:
    host, counted, events = Guarded(), [], []

    def own_event(operation: str, level: str, properties: dict[str, Any]) -> None:
        events.append(properties)

    watch = GuardMonitor(host, lambda reason, n: counted.append(n), own_event)  # type: ignore[arg-type]
    host.state = GuardState("", 4, shared=True)
    watch.tick(1.0)
    assert counted == []
    assert [(e["count"], e["otherFilters"]) for e in events] == [(4, True)]


def test_that_it_was_taken_away_is_told() -> None:
    host, events = Guarded(), []

    def own_event(operation: str, level: str, properties: dict[str, Any]) -> None:
        events.append((operation, properties))

    watch = GuardMonitor(host, lambda reason, n: None, own_event)  # type: ignore[arg-type]
    host.state = GuardState("", 0, 2)
    watch.tick(0.0)
    watch.tick(1.0)
    assert events == [("GuardRestored", {"times": 2})]
    host.state = GuardState("the kernel has no such thing", kind="")
    assert watch.status() == {"active": False, "reason": "the kernel has no such thing"}


def test_that_one_can_be_had_at_last_is_told_once() -> None:
    host, events = Guarded(), []

    def own_event(operation: str, level: str, properties: dict[str, Any]) -> None:
        events.append((operation, level, properties))

    watch = GuardMonitor(host, lambda reason, n: None, own_event)  # type: ignore[arg-type]
    host.state = GuardState("no place at tc", kind="")
    watch.tick(0.0)
    host.state = GuardState("no place at tc", kind="nftables", gained=1)
    watch.tick(1.0)
    watch.tick(2.0)
    status = {"active": True, "dropped": 0, "restored": 0}
    assert watch.status() == {**status, "kind": "nftables", "reason": "no place at tc"}
    host.state = GuardState(gained=2)
    watch.tick(3.0)
    assert watch.status() == status
    assert events == [
        ("GuardGained", "Informational", {"kind": kind}) for kind in ("nftables", "tc")
    ]
