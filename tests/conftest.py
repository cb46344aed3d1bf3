"""Which tests may run side by side, and where random examples come from.

Several processes may share the tests (``pytest -n``): a file's tests stay in one process, since
they share what it built; what the whole machine has only one of is a folder's. Each of the two
modes of a network test is a file of its own in this.

A commit's tests say the same every time they run: Hypothesis draws its examples from what a test is
called and says. ``scripts/test explore`` has it look for new ones.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True)
if "SNATGW_TEST_EXPLORE" not in os.environ:
    settings.load_profile("same")

ROOT = Path(__file__).parent
ALONE = ("docker", "web", "netns/lab", "netns/install")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.relative_to(ROOT).as_posix()
        folder = next((f for f in ALONE if path.startswith(f"{f}/")), None)
        mode = item.callspec.params.get("mode", "") if hasattr(item, "callspec") else ""
        item.add_marker(pytest.mark.xdist_group(folder or f"{path}-{mode}".replace(" ", "-")))
