"""An interface that goes down loses its routes and proxy entries; the daemon puts them back."""

from __future__ import annotations

import pytest

from tests.netns.gateway import Gateway
from tests.netns.topology import ROUTER, SERVER, Topology, eventually


def ours(net: Topology) -> list[str]:
    """What makes the host answer for public IPs."""
    return sorted(
        net.ip("gw", "neigh show proxy").splitlines()
        + net.ip("gw", "-4 route show proto 217").splitlines()
    )


@pytest.mark.parametrize("interface", ["lan0", "wan0"])
def test_public_ips_are_answered_for_again_after_an_interface_was_down(
    fresh: Topology, interface: str
) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    before = ours(fresh)
    assert len(before) >= 2
    fresh.ip("gw", f"link set {interface} down")
    assert ours(fresh) != before
    fresh.ip("gw", f"link set {interface} up")
    fresh.ip("gw", f"route replace default via {ROUTER}")  # the administrator's own
    eventually(lambda: ours(fresh), lambda now: now == before)
    assert fresh.client("vm1").echo(SERVER) == "whole"
    assert gateway.stop() == 0
