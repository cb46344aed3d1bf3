"""Which tests may run side by side, and where random examples come from.

Several processes may share the tests (``pytest -n``): a file's tests stay in one process, since
they share what it built; what the whole machine has only one of is a folder's. Each of the two
modes of a network test is a file of its own in this. What takes longest by itself begins first.

A commit's tests say the same every time they run: Hypothesis draws its examples from what a test is
called and says. ``scripts/test explore`` has it look for new ones. Neither measures how long one takes,
which on a busy machine says nothing.
"""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests import keeping

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.workermanage import WorkerController

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("new", deadline=None)
# Hypothesis' own profile for CI draws the same ones, too, so it is named either way.
settings.load_profile("new" if "SNATGW_TEST_EXPLORE" in os.environ else "same")

ALONE = ("docker", "netns/install", "web", "netns/lab")
"""Folders of which each is one process's, the longest first."""
_MODE = re.compile(r"\[(fast|slow) path")


def group_of(test: str) -> str:
    """What a test (its node id) shares a process with."""
    path = test.partition("::")[0].removeprefix("tests/")
    folder = next((f for f in ALONE if path.startswith(f"{f}/")), None)
    mode = _MODE.search(test)
    return folder or path + (mode[1] if mode else "")


class _InGroups(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    if config.getvalue("dist") != "loadscope":
        return None
    config.option.loadscopereorder = False  # by the number of tests, which says nothing here
    return _InGroups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(ALONE)}
    items.sort(key=lambda item: order.get(group_of(item.nodeid), len(ALONE)))


def pytest_addoption(parser: pytest.Parser) -> None:
    keeping.add_option(parser)


def pytest_configure(config: pytest.Config) -> None:
    keeping.check_option(config)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # As a shell's ``&`` has it; programs that the tests interrupt would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, call: pytest.CallInfo[object]
) -> None:
    """Before the fixtures of a failed test end."""
    keeping.keep(node, call)


_process_of: dict[str, str] = {}


def pytest_testnodedown(node: WorkerController) -> None:
    """One that crashed has a successor, which goes on with its groups."""
    for group in [group for group, process in _process_of.items() if process == node.gateway.id]:
        del _process_of[group]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Processes that share a group would build everything twice, and get in each other's way."""
    node = getattr(report, "node", None)
    if node is None or node.config.getvalue("dist") != "loadscope":
        return
    process = _process_of.setdefault(group_of(report.nodeid), node.gateway.id)
    if process != node.gateway.id:
        raise RuntimeError(f"{report.nodeid} ran in {node.gateway.id}, others of it in {process}")
