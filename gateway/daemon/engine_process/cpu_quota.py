"""How much processor time this process may have: by its affinity, and by its control groups.
Runs in the engine process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
GROUPS = Path("/proc/self/cgroup")


def processors(groups: Path = GROUPS, root: Path = ROOT) -> float:
    """Processors; a fraction where a control group (``docker run --cpus``, ``CPUQuota=``) limits.

    What cannot be read limits nothing.
    """
    return min([float(len(os.sched_getaffinity(0))), *_quotas(groups, root)])


def _quotas(groups: Path, root: Path) -> Iterator[float]:
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        here = top / path.lstrip("/")
        for group in (here, *here.parents):
            if group.is_relative_to(top):
                yield from _quota(group)


def _quota(group: Path) -> Iterator[float]:
    """Version 2 of control groups has ``cpu.max``, version 1 two files."""
    try:
        if (limit := group / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        if quota.strip() not in ("max", "-1"):
            yield int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return
