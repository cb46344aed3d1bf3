"""Which tests may run side by side, where several processes share them (``pytest -n``).

A file's tests stay in one process, since they share what it built; what the whole machine has only
one of is a folder's. Each of the two modes of a network test is a file of its own in this.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent
ALONE = ("docker", "web", "netns/lab", "netns/install")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.relative_to(ROOT).as_posix()
        folder = next((f for f in ALONE if path.startswith(f"{f}/")), None)
        mode = item.callspec.params.get("mode", "") if hasattr(item, "callspec") else ""
        item.add_marker(pytest.mark.xdist_group(folder or f"{path}-{mode}".replace(" ", "-")))
