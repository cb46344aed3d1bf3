"""No connection is lost over a restart, and with the fast path none stands still for a second."""

from __future__ import annotations

import pytest

from tests.netns import gateway as settings
from tests.netns.gateway import Gateway
from tests.netns.restarting import IDLE, WAYS, trial
from tests.netns.topology import Topology


@pytest.mark.parametrize("way", WAYS)
def test_connections_outlive_a_restart(fresh: Topology, way: str) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    seen = trial(gateway, WAYS[way], seconds=12)
    assert (seen.echoed, seen.failed, seen.same_ports) == (IDLE, 0, True), seen
    assert seen.iperf_error == "", seen
    if settings.fast_path == "on":
        assert seen.standstill == 0, seen
    assert gateway.losses() == {}
