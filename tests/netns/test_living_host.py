"""Other programs change the host while a gateway runs: it is restored, or reported, within seconds."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.netns.gateway import DEFAULT, FRONTENDS, INSTANCE, Gateway
from tests.netns.test_link_flap import ours
from tests.netns.topology import INSIDE, OUTSIDE, ROUTER, SERVER, Topology, eventually

PUBLICS = sorted([DEFAULT, *FRONTENDS, INSTANCE])


def problems(gateway: Gateway) -> list[str]:
    found: list[str] = gateway.status()["host"]["problems"]
    return found


def restored(gateway: Gateway) -> list[str]:
    """A line for each thing that was set again, of all events so far."""
    events = [e["properties"] for e in gateway.events() if e["operationName"] == "HostRestored"]
    return [line for properties in events for line in properties.get("restored", [])]


def findings(gateway: Gateway) -> list[dict[str, Any]]:
    """What ``diagnose`` says of the host's network."""
    said = gateway.document("diagnose")["findings"]
    return [finding for finding in said if "host's network" in finding["title"]]


def forget(net: Topology) -> None:
    """The router asks anew where the public IPs are."""
    net.ip("internet", "neigh flush dev eth0")


def works(net: Topology, vm: str = "vm1") -> None:
    forget(net)
    assert net.client(vm).peer("Tcp", SERVER).startswith(f"{DEFAULT}:")


@pytest.mark.parametrize("what", ["route flush proto 217", "neigh flush proxy dev wan0"])
def test_routes_and_neighbours_that_somebody_removes_are_set_again(
    fresh: Topology, what: str
) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    before = ours(fresh)
    if what.startswith("neigh"):
        for address in PUBLICS:
            fresh.ip("gw", f"neigh del proxy {address} dev wan0")
    else:
        fresh.ip("gw", what)
    eventually(lambda: ours(fresh), lambda now: now == before)
    works(fresh)
    (line, *_) = eventually(lambda: restored(gateway))
    assert line.startswith("what makes this host answer for 203.0.113.1")
    (finding,) = findings(gateway)
    assert finding["severity"] == "Warning"
    assert finding["data"]["times"] >= 1
    assert problems(gateway) == []
    assert gateway.stop() == 0


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("net/ipv4/ip_forward", "0", {"lan0/forwarding": "1", "wan0/forwarding": "1"}),
        ("net/ipv4/conf/wan0/forwarding", "0", {"wan0/forwarding": "1"}),
        ("net/ipv4/conf/lan0/rp_filter", "1", {"lan0/rp_filter": "2"}),
    ],
)
def test_settings_that_somebody_changes_are_set_again(
    fresh: Topology, setting: str, value: str, wanted: dict[str, str]
) -> None:
    fresh.sysctl("gw", "net/ipv4/ip_forward", "1")
    gateway = Gateway(fresh)
    gateway.start()
    fresh.sysctl("gw", setting, value)

    def now() -> dict[str, str]:
        path = "/proc/sys/net/ipv4/conf/"
        return {name: fresh.run("gw", "cat", path + name).strip() for name in wanted}

    eventually(now, lambda seen: seen == wanted)
    works(fresh)
    lines = eventually(lambda: restored(gateway))
    assert all(line.endswith("was set again") for line in lines)
    name = next(iter(wanted)).replace("/", ".")
    assert any(line.startswith(f"net.ipv4.conf.{name} = ") for line in lines), lines
    assert gateway.stop() == 0


def test_an_outside_address_that_goes_is_said_and_all_comes_back_with_it(fresh: Topology) -> None:
    """As DHCP clients and network managers do."""
    gateway = Gateway(fresh)
    gateway.start()
    before = ours(fresh)
    assert all(f"src {OUTSIDE}" in line for line in before if "dev lan0" in line)
    fresh.ip("gw", f"addr del {OUTSIDE}/24 dev wan0")
    said = eventually(lambda: problems(gateway))
    assert any(line.startswith("wan0 has no IPv4 address") for line in said), said
    assert any("no route to the internet by wan0 any more" in line for line in said), said
    (finding,) = (f for f in findings(gateway) if f["severity"] == "Critical")
    assert "wan0 has no IPv4 address" in finding["text"]
    fresh.ip("gw", f"addr add {OUTSIDE}/24 dev wan0")
    said = eventually(lambda: problems(gateway), lambda lines: len(lines) == 1)
    assert "no route to the internet by wan0 any more" in said[0]
    fresh.ip("gw", f"route add default via {ROUTER}")
    eventually(lambda: problems(gateway), lambda lines: not lines)
    assert ours(fresh) == before
    works(fresh)
    assert gateway.stop() == 0
    assert ours(fresh) == []


def test_an_inside_address_that_goes_is_said_and_all_comes_back_with_it(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    before = ours(fresh)
    fresh.ip("gw", f"addr del {INSIDE}/24 dev lan0")
    (line,) = eventually(lambda: problems(gateway))
    assert line == "lan0 has lost its IPv4 address: answers have no way to VMs in 10.0.1.0/24"
    fresh.ip("gw", f"addr add {INSIDE}/24 dev lan0")
    eventually(lambda: problems(gateway), lambda lines: not lines)
    eventually(lambda: ours(fresh), lambda now: now == before)
    works(fresh)
    assert gateway.stop() == 0
    assert ours(fresh) == []


def test_a_public_ip_that_becomes_the_hosts_own_address_is_said_until_it_is_not(
    fresh: Topology,
) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    fresh.ip("gw", f"addr add {DEFAULT}/32 dev wan0")
    (line,) = eventually(lambda: problems(gateway))
    assert line.startswith(f"the public IP {DEFAULT} is this host's own address on wan0 now")
    (finding,) = findings(gateway)
    assert line in finding["text"]
    fresh.run("gw", *line.rpartition(": ")[2].split())  # as it says
    eventually(lambda: problems(gateway), lambda lines: not lines)
    assert gateway.event(operationName="HostRestored")["properties"]["over"] == [line]
    assert f"over: {line}" in gateway.errors.read_text().splitlines()
    works(fresh)
    assert gateway.stop() == 0


def test_who_changes_it_again_and_again_is_named_and_not_fought_at_any_speed(
    fresh: Topology,
) -> None:
    gateway = Gateway(fresh)
    gateway.start()

    def turn_off() -> list[str]:
        fresh.sysctl("gw", "net/ipv4/conf/wan0/forwarding", "0")
        return [line for line in problems(gateway) if "again and again" in line]

    (line,) = eventually(turn_off)
    assert "net.ipv4.conf.wan0.forwarding = 1, which was 0, is set again every 10 s" in line
    assert len(restored(gateway)) <= 6
    path = "/proc/sys/net/ipv4/conf/wan0/forwarding"
    eventually(lambda: fresh.run("gw", "cat", path), lambda seen: seen == "1\n")
    works(fresh)
    assert gateway.stop() == 0


def test_a_default_route_that_leads_elsewhere_is_said(fresh: Topology) -> None:
    fresh.wire("gw/oob0 192.168.9.1/24", "far/oob 192.168.9.2/24")
    gateway = Gateway(fresh)
    gateway.start()
    fresh.ip("gw", "route replace default via 192.168.9.2")
    (line,) = eventually(lambda: problems(gateway))
    assert line.startswith("this host's route to the internet leads by oob0 now")
    fresh.ip("gw", f"route replace default via {ROUTER}")
    eventually(lambda: problems(gateway), lambda lines: not lines)
    assert gateway.stop() == 0


@pytest.mark.parametrize("how", ["link set lan0 down", "link del lan0", "addr flush dev lan0"])
def test_vms_behind_one_inside_interface_do_without_the_other(fresh: Topology, how: str) -> None:
    fresh.ip("lan", "link set vm2 nomaster")
    fresh.wire("gw/lan1 10.0.2.1/24", "lan/gw1")
    fresh.ip("lan", "link add br1 type bridge")
    for command in ("br1 up", "gw1 master br1", "vm2 master br1"):
        fresh.ip("lan", f"link set {command}")
    fresh.ip("vm2", "addr flush dev eth0")
    fresh.ip("vm2", "addr add 10.0.2.5/24 dev eth0")
    fresh.ip("vm2", "route add default via 10.0.2.1")
    gateway = Gateway(fresh)
    network = gateway.configuration["virtualNetwork"]
    network["subnets"].append({"name": "other", "addressPrefix": "10.0.2.0/24"})
    gateway.configuration["gateway"]["inside"] = ["lan0", "lan1"]
    gateway.configuration["loadBalancers"] = []
    del gateway.configuration["virtualMachines"][1]
    gateway.start()
    works(fresh, "vm2")
    fresh.ip("gw", how)
    for _ in range(2):  # at once, and when the gateway has looked
        works(fresh, "vm2")
        eventually(lambda: problems(gateway))
    if how == "link set lan0 down":
        fresh.ip("gw", "link set lan0 up")
        eventually(lambda: problems(gateway), lambda lines: not lines)
        works(fresh, "vm1")
    assert gateway.stop() == 0
    assert ours(fresh) == []


def test_a_takeover_by_other_inside_interfaces_leaves_no_routes(fresh: Topology) -> None:
    fresh.wire("gw/lan1 10.0.2.1/24", "lan/gw1")
    gateway = Gateway(fresh)
    for inside in itertools.islice(itertools.cycle([["lan0", "lan1"], ["lan1"], ["lan0"]]), 3):
        gateway.configuration["gateway"]["inside"] = inside
        gateway.start()
        devices = {line.split()[2] for line in ours(fresh) if " scope link" in line}
        assert devices == set(inside)
        gateway.kill()
    gateway.start()
    assert gateway.stop() == 0
    assert ours(fresh) == []
