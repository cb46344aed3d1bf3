"""Faces look at a full table while packets flow: nobody waits for them."""

from __future__ import annotations

from tests.netns.gateway import Gateway
from tests.netns.topology import SERVER, SERVER2, Topology

FLOWS = 64_000


def test_a_listing_of_64000_flows_stalls_no_packet(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    vm1, vm2 = fresh.client("vm1"), fresh.client("vm2")
    assert vm1.scatter(FLOWS, "198.19.0.0/16", pace_by=SERVER) == FLOWS // 250
    vm2.keep_asking(SERVER2)
    flows = [f for f in gateway.flows("--vm", "vm1") if f["remote"]["ip"] != SERVER]
    assert len({f["id"] for f in flows}) == len(flows) == FLOWS
    # One port does for all of them: no two have the same destination.
    assert {f["public"]["port"] for f in flows} == {1024}
    assert len(gateway.flows("--sort", "-bytes", "--limit", "5")) == 5
    (count,) = vm2.stop()
    assert count["sent"] == count["answered"]
    assert gateway.losses() == {}
    assert gateway.stop() == 0
