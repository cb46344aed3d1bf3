"""Azure's time and the host's two clocks are one line."""

from __future__ import annotations

import time

import pytest

from gateway.daemon.engine_process.clock import Clock


def test_scale_seconds_pass_in_one() -> None:
    clock = Clock(base=100.0, scale=60.0)
    assert clock.azure(100.0) == 0.0
    assert clock.azure(101.5) == 90.0


def test_a_time_of_the_engines_has_a_unix_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 102.0)
    monkeypatch.setattr(time, "time", lambda: 5000.0)
    clock = Clock(base=100.0, scale=60.0)
    assert clock.unix(clock.azure(102.0)) == 5000.0
    assert clock.unix(clock.azure(101.0)) == 4999.0
