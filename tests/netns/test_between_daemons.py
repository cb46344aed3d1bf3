"""SIGTERM with live flows in the kernel: these go on for a while, until the next daemon is there."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from gateway.core.persistence.flow_record import SIZE
from tests.netns.datapath.conftest import host_state
from tests.netns.gateway import Gateway
from tests.netns.test_fail_closed import assert_no_private_address
from tests.netns.test_fast_path import filters, left_behind
from tests.netns.test_pinned_maps import as_a_service, bpffs, pins
from tests.netns.topology import SERVER, SERVER2, Topology, eventually

__all__ = ["bpffs"]


@pytest.fixture(autouse=True, scope="module")
def mode() -> None:
    """These name their mode."""


def connect(net: Topology, count: int = 3) -> None:
    vm = net.client("vm1")
    vm.open(count, SERVER)
    eventually(vm.connections, lambda seen: seen["connected"] == count)
    assert vm.talk() == count


@pytest.mark.parametrize("forwarding", ["0", "1"])
def test_live_flows_go_on_and_nothing_else(fresh: Topology, forwarding: str) -> None:
    for interface in ("lan0", "wan0"):
        fresh.sysctl("gw", f"net/ipv4/conf/{interface}/forwarding", forwarding)
    before = host_state(fresh)
    gateway = Gateway(fresh, fastPath="on", maximumFlows=500)
    gateway.start()
    connect(fresh)
    vm = fresh.client("vm1")
    wire = fresh.capture("internet", "eth0", "ip and (net 10.0.0.0/8 or icmp)")
    assert gateway.stop() == 0
    assert host_state(fresh) == before
    assert vm.talk() == 3
    assert vm.peer("Tcp", SERVER2, patience=0.5) == "TimeoutError"
    assert_no_private_address(wire)
    assert left_behind(gateway, 500) == [True, "", 6, 6]
    # Nobody comes.
    eventually(lambda: filters(gateway), lambda seen: "snatgw" not in seen)
    assert left_behind(gateway, 500) == [False, "", 0, 0]
    if forwarding == "0":
        assert vm.talk(patience=0.5) == 0


def test_what_is_left_carries_nothing_after_its_time_whoever_is_there_to_end_it(
    fresh: Topology,
) -> None:
    gateway = Gateway(fresh, fastPath="on", maximumFlows=500)
    gateway.start()
    connect(fresh)
    assert gateway.stop() == 0
    vm = fresh.client("vm1")
    assert vm.talk() == 3
    (clearing,) = fresh.processes("gw", "gateway.datapath.fastpath.lease")
    fresh.run("gw", "kill", "-9", clearing)
    eventually(lambda: vm.talk(patience=0.5), lambda count: count == 0)
    assert "snatgw" in filters(gateway)
    gateway.start()
    assert vm.peer("Tcp", SERVER)


@pytest.mark.parametrize("fast_path", ["on", "off"])
def test_a_next_daemon_keeps_its_own_programs(fresh: Topology, fast_path: str) -> None:
    gateway = Gateway(fresh, fastPath="on", maximumFlows=500)
    gateway.start()
    connect(fresh)
    assert gateway.stop() == 0
    gateway.configuration["gateway"]["fastPath"] = fast_path
    gateway.start()
    wanted = 2 if fast_path == "on" else 0
    assert filters(gateway).count("snatgw") == wanted
    assert "starts empty" not in gateway.errors.read_text()
    there = ("gw", "gateway.datapath.fastpath.lease")
    eventually(lambda: fresh.processes(*there), lambda left: left == [])
    assert filters(gateway).count("snatgw") == wanted
    assert fresh.client("vm1").peer("Tcp", SERVER)


def test_pins_stay_as_long_as_the_programs(fresh: Topology, bpffs: Path) -> None:
    gateway = Gateway(fresh, fastPath="on", maximumFlows=500)
    gateway.wrapper = as_a_service(bpffs)
    gateway.start()
    connect(fresh)
    assert gateway.stop() == 0
    assert len(pins(bpffs)) == 3
    assert fresh.client("vm1").talk() == 3
    eventually(lambda: "snatgw" in filters(gateway), lambda there: not there)
    eventually(lambda: pins(bpffs), lambda left: left == [])


def test_an_interrupt_ends_it_all_at_once_and_so_does_sigterm_without_flows(
    fresh: Topology,
) -> None:
    gateway = Gateway(fresh, fastPath="on", maximumFlows=500)
    gateway.start()
    assert gateway.stop() == 0
    assert "snatgw" not in filters(gateway)
    gateway.start()
    connect(fresh)
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.process.wait(5) == 0
    assert "snatgw" not in filters(gateway)


def test_a_start_that_is_ended_leaves_them_to_the_one_after(fresh: Topology) -> None:
    gateway = Gateway(fresh, fastPath="on", maximumFlows=500)
    gateway.start()
    connect(fresh)
    (written,) = state_files(gateway)
    eventually(lambda: written.stat().st_size, lambda size: size == 4096 + 3 * SIZE)
    gateway.kill()
    process = gateway.begin()
    # It has the flows by now, and not yet the rules.
    eventually(lambda: state_files(gateway), lambda seen: seen != [written])
    process.terminate()
    assert process.wait(5) == 0
    assert process.stdout is not None
    process.stdout.close()
    assert fresh.client("vm1").talk() == 3
    gateway.start()
    assert gateway.status()["state"]["resumed"]["carriedMeanwhile"] == 3
    assert fresh.client("vm1").talk() == 3


def state_files(gateway: Gateway) -> list[Path]:
    return sorted((gateway.state / "state").glob("flows-*"))
