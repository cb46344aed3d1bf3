"""What the operator hears of the guard on the outside interface."""

from __future__ import annotations

import signal

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
    assert event["properties"]["whileNoGatewayRan"]
    assert not event["properties"]["otherFilters"]
    # No drop of this daemon's: its counters begin with it.
    assert "PrivateAddressOutside" not in gateway.status()["drops"]
    assert "were stopped while no gateway ran" in gateway.cli("diagnose").stdout
    assert wire.packets() == []
    gateway.kill()
    gateway.start()
    assert gateway.status()["guard"]["dropped"] == 0


def test_an_interrupt_leaves_it_for_a_while_where_the_host_forwards(fresh: Topology) -> None:
    fresh.run("gw", "sysctl", "-qw", "net.ipv4.ip_forward=1")
    gateway = Gateway(fresh)
    gateway.start()
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.process.wait(5) == 0
    assert "0xac57" in fresh.run("gw", "tc", "filter", "show", "dev", "wan0", "egress")


def test_check_does_not_disturb_it(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    command = (gateway.python, "-m", "gateway", "check", "--host", "-c", str(gateway.file))
    said = fresh.run("gw", *command, check=False)
    assert "a guard can stand on wan0" in said
    assert gateway.status()["guard"]["restored"] == 0
    assert "removed the guard" not in gateway.errors.read_text()


def test_a_guard_that_is_taken_away_is_back_at_once_and_it_is_said(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    fresh.run("gw", "tc", "qdisc", "del", "dev", "wan0", "clsact")
    eventually(lambda: "0xac57" in fresh.run("gw", "tc", "filter", "show", "dev", "wan0", "egress"))
    assert gateway.event(operationName="GuardRestored")["properties"]["times"] >= 1
    assert "removed the guard" in gateway.errors.read_text()
    assert gateway.status()["guard"]["active"]


def test_where_tc_has_no_place_it_stands_in_nftables_and_that_is_said(fresh: Topology) -> None:
    fresh.run("gw", "tc", "qdisc", "add", "dev", "wan0", "ingress")
    gateway = Gateway(fresh)
    gateway.start()
    eventually(lambda: "the guard stands in nftables" in gateway.errors.read_text())
    guard = gateway.status()["guard"]
    assert (guard["active"], guard["kind"]) == (True, "nftables")
    assert "File exists" in guard["reason"]
    assert "The guard on the outside interface stands in nftables" in gateway.cli("diagnose").stdout
    command = (gateway.python, "-m", "gateway", "check", "--host", "-c", str(gateway.file))
    assert "instead, where nft flush ruleset" in fresh.run("gw", *command, check=False)
    fresh.run("gw", "tc", "qdisc", "del", "dev", "wan0", "ingress")
    assert gateway.event(operationName="GuardGained")["properties"] == {"kind": "tc"}
    assert gateway.status()["guard"] == {"active": True, "dropped": 0, "restored": 0}
    assert gateway.stop() == 0


def test_where_none_can_stand_check_and_diagnose_say_so(fresh: Topology) -> None:
    fresh.run("gw", "tc", "qdisc", "add", "dev", "wan0", "ingress")
    script = "(echo 'add table netdev snatgw-wan0-guard { flags owner; }'; sleep 60) | nft -i"
    fresh.start("gw", "sh", "-c", script)
    eventually(lambda: "snatgw-wan0-guard" in fresh.run("gw", "nft", "list", "tables"))
    gateway = Gateway(fresh)
    gateway.start()
    eventually(lambda: "no guard" in gateway.errors.read_text())
    assert not gateway.status()["guard"]["active"]
    assert "Nothing but netfilter rules" in gateway.cli("diagnose").stdout
    assert gateway.stop() == 0
