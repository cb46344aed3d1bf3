"""What is true of the fast path alone: who carries what, what stays, what goes with it."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.netns.gateway import Gateway
from tests.netns.topology import SERVER, SERVER2, Topology, eventually


@pytest.fixture(autouse=True, scope="module")
def mode() -> None:
    """These name their mode."""


ANOTHER_SIZE = "they have another size (gateway.maximumFlows)"


def filters(gateway: Gateway) -> str:
    return "".join(
        gateway.net.run(gateway.namespace, "tc", "filter", "show", "dev", name, "ingress")
        for name in ("lan0", "wan0")
    )


def left_behind(gateway: Gateway, flows: int) -> list[object]:
    """What a start for so many flows finds: whether it goes on with the maps, why not, how many
    entries there are, and how many different ones."""
    net, command = gateway.net, [sys.executable, "-m", "tests.netns.inheriting", str(flows)]
    found: list[object] = json.loads(net.run(gateway.namespace, *command))
    return found


def packets_in_python(gateway: Gateway) -> int:
    return int(gateway.status()["queue"]["handled"])


def test_of_a_connection_only_the_syn_comes_to_the_engine(fresh: Topology) -> None:
    gateway = Gateway(fresh, fastPath="on")
    gateway.start()
    vm = fresh.client("vm1")
    assert vm.peer("Tcp", SERVER2)  # neighbours are known after this
    before = packets_in_python(gateway)
    for _ in range(20):
        assert vm.peer("Tcp", SERVER)
    assert packets_in_python(gateway) - before <= 2 * 20
    states = eventually(
        lambda: {flow["state"] for flow in gateway.flows("--remote", SERVER)},
        lambda seen: seen == {"CoolDown"},
    )
    assert states == {"CoolDown"}
    status = gateway.status()["fastPath"]
    assert (status["active"], status["refused"]) == (True, 0)
    assert status["flows"] == len(gateway.flows())
    assert gateway.stop() == 0


@pytest.mark.parametrize("fast_path", ["on", "off"])
def test_what_passes_in_one_piece_is_counted_as_the_segments_that_it_is(
    fresh: Topology, fast_path: str
) -> None:
    gateway = Gateway(fresh, fastPath=fast_path)
    gateway.start()
    vm = fresh.client("vm1")
    wire = fresh.capture("vm1", "eth0", f"host {SERVER}")
    assert vm.upload(SERVER, 300_000)
    (flow,) = gateway.flows("--remote", SERVER)
    assert flow["offloaded"] is (fast_path == "on")
    seen = wire.packets()
    sent = [packet for packet in seen if packet["IP"].dst == SERVER]
    assert flow["bytesOut"] >= 300_000
    sizes = [len(packet["TCP"].payload) for packet in sent]
    assert max(sizes) > 1448  # the sender left them to its device
    segments = [max(1, -(-size // 1448)) for size in sizes]
    assert flow["packetsOut"] == sum(segments)
    headers = [packet["IP"].len - size for packet, size in zip(sent, sizes, strict=True)]
    once = sum(packet["IP"].len for packet in sent)
    again = sum((n - 1) * size for n, size in zip(segments, headers, strict=True))
    assert flow["bytesOut"] == once + again
    assert gateway.stop() == 0


def test_an_enforced_rule_stops_what_the_kernel_carries(fresh: Topology) -> None:
    gateway = Gateway(fresh, fastPath="on")
    gateway.start()
    vm = fresh.client("vm1")
    vm.open(5, SERVER)
    eventually(vm.connections, lambda count: count["connected"] == 5)
    assert vm.talk() == 5
    assert {flow["offloaded"] for flow in gateway.flows()} == {True}
    deny = {
        "name": "no",
        "priority": 100,
        "direction": "Outbound",
        "access": "Deny",
        "protocol": "*",
        "sourceAddressPrefix": "*",
        "sourcePortRange": "*",
        "destinationAddressPrefix": "Internet",
        "destinationPortRange": "*",
    }
    gateway.configuration["networkSecurityGroups"] = [{"name": "shut", "securityRules": [deny]}]
    gateway.configuration["virtualNetwork"]["subnets"][0]["networkSecurityGroup"] = "shut"
    gateway.write()
    said = json.loads(gateway.cli("reload", "--enforce", "--json").stdout)
    assert said["endedFlows"] == 5
    assert vm.talk(patience=0.5) == 0
    assert gateway.status()["fastPath"]["flows"] == 0
    assert gateway.stop() == 0


def test_a_full_map_leaves_flows_to_the_engine(fresh: Topology) -> None:
    gateway = Gateway(fresh, fastPath="on", maximumFlows=3)
    gateway.start()
    gateway.configuration["gateway"]["maximumFlows"] = 10
    gateway.write()
    gateway.reload()
    vm = fresh.client("vm1")
    vm.open(6, SERVER)
    eventually(vm.connections, lambda count: count["connected"] == 6)
    assert vm.talk() == 6
    assert sorted(flow["offloaded"] for flow in gateway.flows()) == [False] * 3 + [True] * 3
    status = gateway.status()["fastPath"]
    assert (status["flows"], status["capacity"], status["refused"]) == (3, 3, 3)
    assert gateway.stop() == 0


def test_the_filters_go_with_the_gateway_and_a_crash_leaves_flows_going(fresh: Topology) -> None:
    gateway = Gateway(fresh, fastPath="on")
    gateway.start()
    assert filters(gateway).count("snatgw") == 2
    vm = fresh.client("vm1")
    vm.open(3, SERVER)
    eventually(vm.connections, lambda count: count["connected"] == 3)
    assert vm.talk() == 3
    gateway.kill()
    assert vm.talk() == 3  # with nobody there
    assert vm.peer("Tcp", SERVER, patience=0.5) == "TimeoutError"  # what is new waits
    off = Gateway(fresh, fastPath="off")
    off.start()
    assert "snatgw" not in filters(off)
    assert off.status()["fastPath"] == {"active": False, "reason": "gateway.fastPath is off"}
    assert off.stop() == 0
    assert "snatgw" not in filters(off)


def test_without_the_program_auto_goes_on_and_on_does_not_start(
    fresh: Topology, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(Path(__file__).parents[2] / "gateway", root / "gateway")
    (root / "gateway/datapath/fastpath/fastpath.o").unlink()
    gateway = Gateway(fresh, fastPath="on")
    gateway.root = root
    gateway.write()
    assert gateway.refused() == [
        "snatgw: gateway.fastPath = on: fastpath.o is not compiled (clang and libbpf-dev make it)"
    ]
    gateway = Gateway(fresh, fastPath="auto")
    gateway.root = root
    gateway.start()
    said = gateway.errors.read_text()
    assert "no fast path, every packet passes the engine: fastpath.o is not compiled" in said
    assert fresh.client("vm1").peer("Tcp", SERVER)
    assert gateway.stop() == 0


def test_what_has_timed_out_is_over_with_nobody_there_to_end_it(fresh: Topology) -> None:
    gateway = Gateway(fresh, fastPath="on", timeScale=60)  # four minutes are four seconds
    gateway.start()
    vm = fresh.client("vm1")
    vm.open(3, SERVER)
    eventually(vm.connections, lambda count: count["connected"] == 3)
    assert vm.talk() == 3
    gateway.kill()
    for _ in range(3):
        time.sleep(2)  # in use
        assert vm.talk() == 3
    time.sleep(5)  # and idle for longer than they may be
    assert vm.talk(patience=1) == 0


def test_the_next_start_finds_the_maps_and_takes_out_what_nobody_knows(fresh: Topology) -> None:
    gateway = Gateway(fresh, fastPath="on", maximumFlows=5000)
    gateway.start()
    vm = fresh.client("vm1")
    vm.open(3, SERVER)
    eventually(vm.connections, lambda count: count["connected"] == 3)
    assert vm.talk() == 3
    gateway.kill()
    assert left_behind(gateway, 6000) == [False, ANOTHER_SIZE, 0, 0]
    assert left_behind(gateway, 5000) == [True, "", 6, 6]
    assert vm.talk() == 3
    gateway.start()
    known = gateway.status()["fastPath"]["flows"]
    assert filters(gateway).count("snatgw") == 2
    assert left_behind(gateway, 5000)[2:] == [2 * known] * 2
    assert vm.peer("Tcp", SERVER)
    assert gateway.stop() == 0
    nothing = [False, "", 0, 0]  # once the flow that was left has had its time
    assert eventually(lambda: left_behind(gateway, 5000), lambda seen: seen == nothing)


def test_thousands_of_entries_are_found_and_taken_out(fresh: Topology) -> None:
    gateway = Gateway(fresh, fastPath="on", maximumFlows=5000)
    gateway.start()
    vm = fresh.client("vm3")  # has all ports
    vm.open(3000, SERVER)
    eventually(vm.connections, lambda count: count["connected"] == 3000)
    gateway.kill()
    assert left_behind(gateway, 5000) == [True, "", 6000, 6000]
    gateway.start()
    known = gateway.status()["fastPath"]["flows"]
    assert left_behind(gateway, 5000)[2:] == [2 * known] * 2
    assert gateway.stop() == 0


def test_flows_are_adopted_as_the_kernel_has_them(fresh: Topology) -> None:
    gateway = Gateway(fresh, fastPath="on", maximumFlows=100)
    gateway.start()
    vm = fresh.client("vm1")
    vm.open(3, SERVER)
    eventually(vm.connections, lambda count: count["connected"] == 3)
    assert vm.talk() == 3
    before = sorted(gateway.flows("--remote", SERVER), key=lambda flow: flow["id"])
    assert [flow["id"] for flow in before] == [1, 2, 3]
    gateway.kill()
    assert vm.talk() == 3
    command = [sys.executable, "-m", "tests.netns.adopting", "100", json.dumps(before)]
    said = json.loads(fresh.run("gw", *command))
    refused, adopted, counted, removed, told = said
    assert (refused, adopted, removed) == ([False], [True, True], 2)
    for flow, (packets_out, bytes_out, packets_in, bytes_in) in zip(before, counted, strict=False):
        # The engine saw the SYN; all the rest is the kernel's, and it has gone on.
        assert packets_out > flow["packetsOut"] - 1
        assert bytes_out > flow["bytesOut"] - 60
        assert packets_in > flow["packetsIn"]
        assert bytes_in > flow["bytesIn"]
    assert told == []
    assert vm.talk(patience=1) == 2  # the third was not adopted
    vm.close()
    told = eventually(lambda: json.loads(fresh.run("gw", *command))[4])
    assert {(slot, number) for slot, number, _ in told} <= {(0, 1), (1, 2)}
    assert {flags for *_, flags in told} <= {1, 4}  # FIN, RST


def test_an_endpoint_that_connects_again_at_once_gets_another_port_each_time(
    fresh: Topology,
) -> None:
    """Its SYN may come before the report of the FINs that passed in the kernel a moment ago."""
    gateway = Gateway(fresh, fastPath="on")
    gateway.start()
    vm = fresh.client("vm1")
    # "OSError": the VM's own kernel has not yet let go of the last one.
    answers = [vm.peer("Tcp", SERVER, port=45555) for _ in range(40)]
    public = [answer for answer in answers if answer != "OSError"]
    assert len(set(public)) == len(public) > 1
    assert len(gateway.flows("--remote", SERVER)) == len(public)
