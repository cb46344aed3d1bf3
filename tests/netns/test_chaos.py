"""Nothing private leaves, whatever others do to the host; ``scripts/trial-chaos`` does it longer."""

from __future__ import annotations

import pytest

from tests.netns.chaos import run
from tests.netns.gateway import Gateway
from tests.netns.topology import Topology


@pytest.mark.parametrize("forwarding", ["1", "0"])
def test_nothing_private_leaves_whatever_happens_to_the_host(
    fresh: Topology, forwarding: str
) -> None:
    seen = run(Gateway(fresh), faults=12, seed=2017, forwarding=forwarding, pause=0.3)
    assert seen.private == 0, seen
    assert seen.served, seen
