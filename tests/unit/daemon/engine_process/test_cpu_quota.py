"""Processor time by affinity and by control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.daemon.engine_process.cpu_quota import processors


@pytest.fixture(autouse=True)
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3})


def written(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4.0),
        ({"self": "0::/\n"}, 4.0),
        ({"self": "0::/\n", "cpu.max": "50000 100000\n"}, 0.5),
        ({"self": "0::/a/b\n", "a/b/cpu.max": "max 100000\n", "a/cpu.max": "150000 100000\n"}, 1.5),
        ({"self": "0::/a\n", "a/cpu.max": "800000 100000\n"}, 4.0),
        ({"self": "0::/a\n", "a/cpu.max": "nonsense"}, 4.0),
        (
            {
                "self": "5:memory:/x\n4:cpu,cpuacct:/x\n",
                "cpu/x/cpu.cfs_quota_us": "25000\n",
                "cpu/x/cpu.cfs_period_us": "100000\n",
                "cpu/cpu.cfs_quota_us": "-1\n",
                "cpu/cpu.cfs_period_us": "100000\n",
            },
            0.25,
        ),
    ],
)
def test_the_least_counts(files: dict[str, str], expected: float, tmp_path: Path) -> None:
    root = written(tmp_path, files)
    assert processors(root / "self", root) == expected


def test_this_very_process_has_some() -> None:
    assert 0 < processors() <= 4
