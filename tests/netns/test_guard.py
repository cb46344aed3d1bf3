"""What the operator hears of the guard on the outside interface."""

from __future__ import annotations

from tests.netns.gateway import Gateway
from tests.netns.topology import SERVER, Topology, eventually


def test_what_it_stops_is_told_and_counted(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    assert gateway.status()["guard"] == {"active": True, "dropped": 0, "restored": 0}
    gateway.kill()
    fresh.run("gw", "nft", "flush", "ruleset")
    vm = fresh.client("vm1")
    wire = fresh.capture("internet", "eth0", "ip and net 10.0.0.0/8")
    for _ in range(3):
        assert vm.peer("Udp", SERVER, patience=0.2) == "TimeoutError"
    gateway.start()
    assert gateway.status()["guard"]["dropped"] >= 3
    event = gateway.event(operationName="GuardDroppedPackets")
    assert event["properties"]["count"] >= 3
    eventually(lambda: gateway.status()["drops"].get("PrivateAddressOutside"))
    said = gateway.cli("diagnose").stdout
    assert "Packets with private addresses got as far as the outside interface" in said
    assert wire.packets() == []


def test_a_guard_that_is_taken_away_is_back_at_once_and_it_is_said(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    fresh.run("gw", "tc", "qdisc", "del", "dev", "wan0", "clsact")
    eventually(lambda: "0xac57" in fresh.run("gw", "tc", "filter", "show", "dev", "wan0", "egress"))
    assert gateway.event(operationName="GuardRestored")["properties"]["times"] >= 1
    assert "took the guard away" in gateway.errors.read_text()
    assert gateway.status()["guard"]["active"]


def test_where_none_can_stand_check_and_diagnose_say_so(fresh: Topology) -> None:
    fresh.run("gw", "tc", "qdisc", "add", "dev", "wan0", "ingress")
    gateway = Gateway(fresh)
    gateway.start()
    eventually(lambda: "no guard" in gateway.errors.read_text())
    assert not gateway.status()["guard"]["active"]
    assert "Nothing but netfilter rules" in gateway.cli("diagnose").stdout
