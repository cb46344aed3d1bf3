"""Topologies for tests: one that is shared by those that leave it as it is, or a fresh one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.netns import gateway
from tests.netns.gateway import Gateway
from tests.netns.topology import Topology


def pytest_configure() -> None:
    if os.geteuid() != 0:
        raise pytest.UsageError("tests/netns needs root: sudo scripts/test")


@pytest.fixture(autouse=True, scope="module", params=["fast path", "slow path"])
def mode(request: pytest.FixtureRequest) -> None:
    """Every test of this folder runs twice: live flows carried by eBPF, and by the engine."""
    gateway.fast_path = "on" if request.param == "fast path" else "off"


@pytest.fixture
def fresh() -> Iterator[Topology]:
    """A topology without a gateway, for tests of starting and ending."""
    with Topology() as net:
        yield net


@pytest.fixture(scope="module")
def town(mode: None) -> Iterator[Gateway]:
    """A topology with the usual gateway running, for tests that leave it as it is."""
    with Topology() as net:
        usual = Gateway(net)
        usual.start()
        yield usual
        assert usual.losses() == {}
        assert usual.stop() == 0
