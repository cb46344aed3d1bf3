"""No packet of a flow overtakes another, whoever carries them and whenever that changes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.netns.gateway import Gateway
from tests.netns.topology import SERVER, Topology

BURSTS = 300


@pytest.mark.parametrize("profile", ["azure-2017", "azure-current"])
def test_bursts_come_in_order(fresh: Topology, profile: str) -> None:
    """A flow is handed over in the middle of its first burst, there and back."""
    gateway = Gateway(fresh, profile=profile)
    gateway.start()
    vm = fresh.client("vm3")
    seen = vm.bursts(SERVER, BURSTS)
    assert seen == {"whole": BURSTS, "overtaken": 0, "farthest": 0}
    # In pieces that are cut up on their way to the engine: all of one have to pass first.
    segmented = vm.bursts(SERVER, BURSTS, pause=0.001, segmented=True)
    assert segmented == {"whole": 2 * BURSTS, "overtaken": 0, "farthest": 0}
    assert vm.bursts(SERVER, 50, pause=0.02) == {"whole": 100, "overtaken": 0, "farthest": 0}
    assert gateway.stop() == 0


def test_a_capture_that_comes_and_goes_reorders_nothing(fresh: Topology) -> None:
    """It takes live flows back and hands them over again."""
    gateway = Gateway(fresh)
    gateway.start()
    over = threading.Event()
    captures: list[Any] = []

    def capture() -> None:
        while not over.is_set():
            file = str(fresh.directory / f"{len(captures)}.pcapng")
            captures.append(gateway.cli("capture", "-w", file, "--vm", "vm3", "--duration", "0.1s"))

    thread = threading.Thread(target=capture)
    thread.start()
    try:
        seen = fresh.client("vm3").stream(SERVER, 8.0)
    finally:
        over.set()
        thread.join()
    assert len(captures) >= 3
    assert seen["sent"] > 1000
    assert (seen["overtaken"], seen["lost"]) == (0, 0)
    assert gateway.stop() == 0
