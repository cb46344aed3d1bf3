"""The worst that could happen: a private source on the outside wire. Then: a host not as it was."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time

import pytest

from tests.netns.datapath.conftest import host_state
from tests.netns.gateway import DEFAULT, INSTANCE, Gateway
from tests.netns.topology import SERVER, Capture, Topology, eventually


def put_under_load(net: Topology) -> None:
    for vm in ("vm1", "vm3"):
        # vm1 has 1,024 SNAT ports, and a restart frees none: it must not run out on any machine
        net.client(vm).keep_sending(SERVER, rate=500, ports=300)
        net.client(vm).keep_connecting(SERVER)


def wait_for_load(net: Topology, packets: int = 100) -> None:
    """Until each VM has sent so many more datagrams."""
    for vm in ("vm1", "vm3"):
        client = net.client(vm)
        goal = client.counts()[0]["sent"] + packets
        eventually(client.counts, lambda seen, goal=goal: seen[0]["sent"] >= goal)  # type: ignore[misc]


def assert_no_private_address(wire: Capture) -> None:
    """Neither as source nor in what an error quotes."""
    for frame in wire.packets():
        assert not frame["IP"].src.startswith("10."), frame.summary()
        if "IP in ICMP" in frame:
            quote = frame["IP in ICMP"]
            assert not quote.src.startswith("10."), frame.summary()
            assert not quote.dst.startswith("10."), frame.summary()


@pytest.mark.parametrize("forwarding", ["0", "1"])
def test_no_packet_leaves_untranslated_when_the_daemon_is_killed(
    fresh: Topology, forwarding: str
) -> None:
    for interface in ("lan0", "wan0"):
        fresh.sysctl("gw", f"net/ipv4/conf/{interface}/forwarding", forwarding)
    fresh.sysctl("gw", "net/ipv4/conf/lan0/rp_filter", "1")
    before = host_state(fresh)
    gateway = Gateway(fresh)
    gateway.start()
    assert host_state(fresh) != before
    wire = fresh.capture("internet", "eth0", "ip and (net 10.0.0.0/8 or icmp)")
    put_under_load(fresh)
    for _ in range(2):
        wait_for_load(fresh)
        eventually(lambda: gateway.status()["flows"])
        gateway.kill()
        wait_for_load(fresh)
        for vm in ("vm1", "vm3"):
            assert fresh.client(vm).peer("Udp", SERVER, patience=0.3) == "TimeoutError"
        gateway.start()
        for vm, public in (("vm1", DEFAULT), ("vm3", INSTANCE)):
            assert fresh.client(vm).peer("Udp", SERVER).split(":")[0] == public
    wait_for_load(fresh)
    assert_no_private_address(wire)
    assert gateway.stop() == 0  # busy as it is
    for vm in ("vm1", "vm3"):
        fresh.client(vm).stop()
    assert host_state(fresh) == before
    assert not gateway.api.exists()


def test_nothing_leaves_while_it_starts_and_stops_under_load(fresh: Topology) -> None:
    wire = fresh.capture("internet", "eth0", "ip and (net 10.0.0.0/8 or icmp)")
    put_under_load(fresh)
    gateway = Gateway(fresh)
    for _ in range(2):
        gateway.start()
        wait_for_load(fresh)
        assert gateway.stop() == 0
        wait_for_load(fresh)
    assert_no_private_address(wire)


def test_a_start_with_other_interfaces_clears_what_a_crash_left(fresh: Topology) -> None:
    fresh.wire("gw/wan1 203.0.114.1/24", "narrow/eth9 203.0.114.254/24")
    before = host_state(fresh)
    gateway = Gateway(fresh)
    gateway.start()
    gateway.kill()
    left = host_state(fresh)
    assert left != before
    gateway.configuration["gateway"]["outside"] = "wan1"
    gateway.start()
    assert "wan0" not in host_state(fresh)["iptables-save"]
    assert gateway.stop() == 0
    assert host_state(fresh) == before


@pytest.mark.parametrize(
    ("number", "pause"), [(signal.SIGINT, 0.002), (signal.SIGINT, 0.01), (signal.SIGTERM, 0.01)]
)
def test_impatient_signals_leave_nothing(
    fresh: Topology, number: signal.Signals, pause: float
) -> None:
    """Again and again to the whole process group, iptables-restore among it: as a terminal sends
    Ctrl-C and systemd SIGTERM."""
    before = host_state(fresh)
    gateway = Gateway(fresh)
    gateway.start()
    assert gateway.process is not None
    while gateway.process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(gateway.process.pid, number)
        time.sleep(pause)
    assert host_state(fresh) == before
    assert "snatgw:" not in gateway.errors.read_text()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_start_that_is_cut_short_is_closed_and_cleared_by_the_next(
    fresh: Topology, number: signal.Signals
) -> None:
    """Wherever in its start the signal meets it."""
    before = host_state(fresh)
    wire = fresh.capture("internet", "eth0", "ip and (net 10.0.0.0/8 or icmp)")
    put_under_load(fresh)
    gateway = Gateway(fresh)
    gateway.write()
    chance = random.Random(2017)
    for _ in range(5):
        process = gateway.begin()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0.3, 1.2))
        process.send_signal(number)
        process.wait(5)
    gateway.start()
    assert gateway.stop() == 0
    assert host_state(fresh) == before
    assert_no_private_address(wire)


def test_what_a_killed_probe_left_is_cleared(fresh: Topology) -> None:
    before = host_state(fresh)
    fresh.run("gw", "iptables", "-t", "mangle", "-N", "snatgw-probe-0123456789ab-ok")
    gateway = Gateway(fresh)
    gateway.start()
    assert gateway.stop() == 0
    assert host_state(fresh) == before


def test_sigint_ends_it_as_sigterm_does(fresh: Topology) -> None:
    before = host_state(fresh)
    gateway = Gateway(fresh)
    gateway.start()
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.process.wait(5) == 0
    assert host_state(fresh) == before


def test_the_event_log_survives_a_crash(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    gateway.event(operationName="Started")
    gateway.kill()
    gateway.start()
    eventually(
        lambda: [e["operationName"] for e in gateway.events()],
        lambda names: names.count("Started") == 2,
    )


def test_rules_that_somebody_flushes_are_set_again_and_traffic_goes_on(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    client = fresh.client("vm1")
    assert client.udp_open(SERVER, 7) == "whole"
    before = own_rules(fresh)
    assert before
    # As `nft flush ruleset` does, for the tables that iptables knows.
    flush = "for t in mangle raw filter; do printf '*%s\\nCOMMIT\\n' $t; done | iptables-restore"
    fresh.run("gw", "sh", "-c", flush)
    assert gateway.event(operationName="RulesRestored")["properties"]["times"] >= 1
    assert own_rules(fresh) == before
    wire = fresh.capture("internet", "eth0", "ip and net 10.0.0.0/8")
    assert client.udp_again() == "whole"
    assert client.echo(SERVER) == "whole"
    assert_no_private_address(wire)
    for interface in ("lan0", "wan0"):
        path = f"/proc/sys/net/ipv4/conf/{interface}/forwarding"
        assert fresh.run("gw", "cat", path) == "1\n"
    assert gateway.stop() == 0
    assert own_rules(fresh) == []


def own_rules(net: Topology) -> list[str]:
    saved = net.run("gw", "iptables-save").splitlines()
    return sorted(line for line in saved if "snatgw-" in line and line.startswith("-A"))
