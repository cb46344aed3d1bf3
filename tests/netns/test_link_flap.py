"""An interface that goes down, or is made again, loses what it had; the daemon puts it back."""

from __future__ import annotations

import pytest

from tests.netns import gateway as gateway_module
from tests.netns.datapath.conftest import host_state
from tests.netns.gateway import DEFAULT, Gateway
from tests.netns.networks import wire_inside, wire_outside
from tests.netns.topology import OUTSIDE, ROUTER, SERVER, SERVER2, Topology, eventually


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


def state(net: Topology) -> dict[str, str]:
    """What the gateway may change; not the interfaces' own numbers and order."""
    found = host_state(net)
    del found["addresses"]
    return found


def make_again(net: Topology, interface: str) -> None:
    """As a hypervisor or a network manager does: another device by the same name."""
    if interface == "lan0":
        wire_inside(net)
        net.ip("lan", "link set gw master br0")
        net.ip("vm1", "neigh flush dev eth0")  # else it goes on with the old hardware address
    else:
        wire_outside(net)
        net.ip("gw", f"route replace default via {ROUTER}")
        net.ip("internet", f"route replace 10.0.0.0/8 via {OUTSIDE}")


@pytest.mark.parametrize("interface", ["lan0", "wan0"])
def test_an_interface_that_is_made_again_is_programmed_anew(
    fresh: Topology, interface: str
) -> None:
    fresh.sysctl("gw", "net/ipv4/conf/default/rp_filter", "1")  # what a new interface begins with
    fresh.ip("gw", f"link del {interface}")
    make_again(fresh, interface)
    before = state(fresh)
    gateway = Gateway(fresh)
    gateway.start()
    vm1 = fresh.client("vm1")
    vm1.open(5, SERVER)
    eventually(vm1.connections, lambda seen: seen["connected"] == 5)
    entries = ours(fresh)
    fresh.ip("gw", f"link del {interface}")
    event = gateway.event(operationName="HostChanged")
    assert event["properties"]["problems"] == [f"{interface}: there is no such interface"]
    private = (
        fresh.capture("internet", "eth0", "src net 10.0.0.0/8") if interface == "lan0" else None
    )
    make_again(fresh, interface)
    restored = eventually(
        lambda: [e["properties"] for e in gateway.events() if "interfaces" in e["properties"]]
    )
    assert restored == [{"interfaces": [interface]}]
    eventually(lambda: ours(fresh), lambda now: now == entries)
    # Connections from before live on, and so does the fast path, if it carried them.
    assert vm1.talk(patience=40.0) == 5
    assert vm1.peer("Tcp", SERVER).startswith(f"{DEFAULT}:")
    assert vm1.peer("Udp", SERVER2).startswith(f"{DEFAULT}:")
    assert gateway.losses() == {}
    if gateway_module.fast_path == "on":
        handled = gateway.status()["queue"]["handled"]
        assert vm1.talk() == 5
        assert gateway.status()["queue"]["handled"] == handled
    assert gateway.stop() == 0
    assert ours(fresh) == []
    assert state(fresh) == before
    if private is not None:
        assert private.lines() == []


@pytest.mark.parametrize("interface", ["lan0", "wan0"])
def test_an_end_without_one_of_the_interfaces_leaves_nothing_at_the_others(
    fresh: Topology, interface: str
) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    fresh.ip("gw", f"link del {interface}")
    assert gateway.stop() == 0
    assert ours(fresh) == []
    assert "snatgw" not in fresh.run("gw", "iptables-save")
    left = "wan0" if interface == "lan0" else "lan0"
    assert fresh.run("gw", "cat", f"/proc/sys/net/ipv4/conf/{left}/forwarding") == "0\n"


def test_a_start_after_a_crash_knows_what_an_interface_was_like_though_the_other_is_new(
    fresh: Topology,
) -> None:
    before = state(fresh)
    gateway = Gateway(fresh)
    gateway.start()
    gateway.kill()
    fresh.ip("gw", "link del lan0")
    make_again(fresh, "lan0")
    gateway.start()
    assert fresh.client("vm1").echo(SERVER) == "whole"
    assert gateway.stop() == 0
    assert ours(fresh) == []
    assert state(fresh) == before
