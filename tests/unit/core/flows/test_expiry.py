"""Expiry: nothing early, all within a tick, and a bounded look at a time."""

from types import SimpleNamespace
from typing import Any

from gateway.core.flows.expiry import TICK, Expiry


class Clockwork:
    """Flows that are nothing but deadlines."""

    def __init__(self) -> None:
        self.expiry = Expiry()
        self.ended: list[str] = []

    def flow(self, name: str, last_seen: float, timeout: float) -> Any:
        class Fake(SimpleNamespace):
            def __hash__(self) -> int:  # type: ignore[override]  # as flows have it
                return object.__hash__(self)

        flow = Fake(name=name, last_seen=last_seen, timeout=timeout, bucket=None, offloaded=False)
        self.expiry.arm(flow, last_seen + timeout)  # type: ignore[arg-type]
        return flow

    def expire(self, now: float, limit: int = 1000) -> list[str]:
        self.ended = []
        self.expiry.expire(now, lambda flow: self.ended.append(flow.name), limit)  # type: ignore[attr-defined]
        return sorted(self.ended)


def test_nothing_expires_early_and_everything_within_a_tick() -> None:
    clock = Clockwork()
    clock.flow("a", 0, 240)
    clock.flow("b", 0.3, 240)
    assert clock.expire(240) == []
    assert clock.expire(240 + TICK) == ["a"]
    assert clock.expire(240.3) == []
    assert clock.expire(240.3 + TICK) == ["b"]
    assert not clock.expiry._buckets
    assert not clock.expiry._heap


def test_a_touched_flow_moves_on_when_its_bucket_falls_due() -> None:
    clock = Clockwork()
    flow = clock.flow("a", 0, 240)
    flow.last_seen = 100
    assert clock.expire(241) == []
    assert clock.expire(339.9) == []
    assert clock.expire(340.5) == ["a"]


def test_a_shorter_deadline_takes_the_place_of_the_longer() -> None:
    clock = Clockwork()
    flow = clock.flow("a", 0, 240)
    flow.timeout = 15
    clock.expiry.arm(flow, 15)
    assert clock.expire(15.5) == ["a"]
    assert clock.expire(1000) == []


def test_a_disarmed_flow_leaves_nothing_behind() -> None:
    clock = Clockwork()
    flow = clock.flow("a", 0, 240)
    clock.expiry.disarm(flow)
    assert all(not bucket for bucket in clock.expiry._buckets.values())
    assert clock.expire(1000) == []
    assert not clock.expiry._buckets


def test_the_limit_bounds_the_work_and_the_rest_follows() -> None:
    clock = Clockwork()
    for number in range(10):
        clock.flow(f"{number}", 0, 240)
    assert len(clock.expire(300, 4)) == 4
    assert len(clock.expire(300, 4)) == 4
    assert len(clock.expire(300, 4)) == 2
    assert clock.expire(300, 4) == []


def test_a_day_without_a_look_costs_what_expires() -> None:
    clock = Clockwork()
    clock.flow("a", 0, 240)
    clock.flow("b", 0, 15)
    assert clock.expire(86_400) == ["a", "b"]
