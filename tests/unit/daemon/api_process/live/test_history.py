"""The history's grid: means of rates, the latest of the rest, nulls where nobody looked."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.daemon.api_process.live import history
from gateway.daemon.api_process.live.history import STEP, STEPS, History
from tests.unit.daemon.serving import pool

START = 1000 * STEP


def window(
    kept: History, now: float, seconds: float, vm: str | None = None, limit: int = 100
) -> dict[str, Any]:
    head, pools = kept.pieces(now, 1_769_860_800.0, seconds, vm, limit)
    return {**head, "ports": list(pools)}


def test_a_step_has_the_mean_of_rates_and_the_latest_of_the_rest() -> None:
    kept = History()
    for second, (rate, flows) in enumerate([(10.0, 1), (20.0, 5), (60.0, 3)]):
        kept.add(START + second, {"packetsPerSecond": rate, "flows": flows}, [])
    seen = window(kept, START + 3, STEP)
    assert seen["gateway"]["packetsPerSecond"] == [30.0]
    assert seen["gateway"]["flows"] == [3]
    assert seen["gateway"]["bytesInPerSecond"] == [None]


def test_steps_without_a_sample_are_null_and_times_are_the_grids() -> None:
    kept = History()
    kept.add(START, {"flows": 1}, [pool("vm1", used=1)])
    kept.add(START + 2 * STEP, {"flows": 3}, [pool("vm1", used=30)])
    seen = window(kept, START + 3 * STEP + 1, 4 * STEP)
    assert seen["gateway"]["flows"] == [1, None, 3, None]
    assert seen["ports"] == [
        {
            "vm": "vm1", "publicIp": "203.0.113.10", "protocol": "Tcp",
            "method": "DefaultOutboundAccess",
            "allocated": [1024, None, 1024, None], "used": [1, None, 30, None],
            "coolDown": [1, None, 1, None], "failed": [0, None, 0, None],
        }
    ]  # fmt: skip
    assert seen["times"] == [
        "2026-01-31T11:59:44.000Z", "2026-01-31T11:59:49.000Z",
        "2026-01-31T11:59:54.000Z", "2026-01-31T11:59:59.000Z",
    ]  # fmt: skip


def test_what_is_older_than_the_rings_is_gone() -> None:
    kept = History()
    kept.add(START, {"flows": 1}, [pool("vm1"), pool("vm2")])
    kept.add(START + (STEPS - 1) * STEP, {"flows": 2}, [pool("vm2")])
    assert window(kept, START + (STEPS - 1) * STEP, STEPS * STEP)["gateway"]["flows"][0] == 1
    kept.add(START + STEPS * STEP, {"flows": 3}, [pool("vm2")])
    seen = window(kept, START + STEPS * STEP, STEPS * STEP)
    assert seen["gateway"]["flows"] == [*[None] * (STEPS - 2), 2, 3]
    assert [one["vm"] for one in seen["ports"]] == ["vm2"]
    # and long after, nothing of it is shown as if it were new
    assert set(window(kept, START + 3 * STEPS * STEP, 900)["gateway"]["flows"]) == {None}


def test_of_very_many_pools_the_most_used_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MAXIMUM_POOLS", 3)
    kept = History()
    kept.add(START, {}, [pool(f"vm{n}", used=n) for n in range(10)])
    seen = window(kept, START, STEP)
    assert [one["vm"] for one in seen["ports"]] == ["vm9", "vm8", "vm7"]
    assert [one["vm"] for one in window(kept, START, STEP, limit=1)["ports"]] == ["vm9"]
    assert [one["vm"] for one in window(kept, START, STEP, vm="vm8")["ports"]] == ["vm8"]
