"""Topologies for tests: one that is shared by those that leave it as it is, or a fresh one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.netns.gateway import Gateway
from tests.netns.topology import Topology


def pytest_configure() -> None:
    if os.geteuid() != 0:
        raise pytest.UsageError("tests/netns needs root: sudo scripts/test")


@pytest.fixture
def fresh() -> Iterator[Topology]:
    """A topology without a gateway, for tests of starting and ending."""
    with Topology() as net:
        yield net


@pytest.fixture(scope="package")
def town() -> Iterator[Gateway]:
    """A topology with the usual gateway running, for tests that leave it as it is."""
    with Topology() as net:
        gateway = Gateway(net)
        gateway.start()
        yield gateway
        assert gateway.losses() == {}
        assert gateway.stop() == 0
