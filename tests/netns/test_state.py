"""What survives a restart, with real packets: a clean one, one after a kill, one with changes."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from tests.netns import gateway as running
from tests.netns.gateway import DEFAULT, Gateway
from tests.netns.topology import SERVER, SERVER2, Topology, eventually


def restart(gateway: Gateway, how: str) -> None:
    """End the daemon and start another one."""
    if how == "stop":
        assert gateway.stop() == 0
    else:
        gateway.kill()
    gateway.start()


def fast_path_is_on() -> bool:
    return running.fast_path != "off"


def known(gateway: Gateway) -> list[tuple[object, ...]]:
    """What a flow is, whatever passes."""
    return sorted(
        (f["id"], f["vm"], f["protocol"], f["state"], f["method"], str(f["private"]),
         str(f["public"]), str(f["remote"]))
        for f in gateway.flows()
    )  # fmt: skip


def pools(gateway: Gateway) -> list[tuple[object, ...]]:
    """Every VM's ports, and how full they were."""
    records = [json.loads(line) for line in gateway.cli("ports", "--json").stdout.splitlines()]
    keys = ("vm", "publicIp", "protocol", "allocated", "used", "free", "highWater", "failed")
    return sorted(tuple(record[key] for key in keys) for record in records)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_flows_go_on(fresh: Topology, how: str) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    vms = [fresh.client(vm) for vm in ("vm1", "vm2", "vm3")]
    for client in vms:
        client.open(100, SERVER)
        eventually(client.connections, lambda seen: seen["connected"] == 100)
        assert client.udp_open(SERVER2, 7) == "whole"
    eventually(gateway.flows, lambda flows: len(flows) == 303)
    eventually(gateway.flows, lambda flows: {f["state"] for f in flows} == {"Established"})
    before = known(gateway)
    ports = pools(gateway)
    wait_until_written(gateway)
    restart(gateway, how)
    assert known(gateway) == before
    assert gateway.status()["state"]["resumed"]["flows"] == 303
    resumed = gateway.status()["state"]["resumed"]
    assert resumed["lost"] == 0
    # the kernel has carried TCP on meanwhile, where it does
    carried = 300 if fast_path_is_on() else 0
    assert resumed["carriedMeanwhile"] == carried
    assert pools(gateway) == ports
    for client in vms:
        assert client.talk() == 101
        assert client.connections()["failed"] == 0
    assert known(gateway) == before
    newest = max(f["id"] for f in gateway.flows())
    assert vms[0].peer("Tcp", SERVER2).startswith(DEFAULT)
    assert max(f["id"] for f in gateway.flows()) > newest
    gateway.event(operationName="StateResumed", flows=303)


def written(gateway: Gateway) -> str:
    """What is in the file that says all but the flows."""
    return (gateway.state / "state" / "state.json").read_text()


def wait_until_written(gateway: Gateway) -> None:
    """Until as many flows as there are now are in the file, with their ports and counters."""
    opened = gateway.status()["flowsOpened"]
    eventually(lambda: json.loads(written(gateway))["state"]["opened"], lambda now: now == opened)
    time.sleep(2.5)  # the round that has everybody's counters begins once a second


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_ports_that_cool_down_and_high_water_survive(fresh: Topology, how: str) -> None:
    # Kernels with several CPUs may let a FIN overtake an ACK; the server answers the second ACK of
    # the FIN with a reset, which would free the port after 15 s.
    fresh.run(
        "internet",
        "iptables",
        "-A",
        "OUTPUT",
        "-p",
        "tcp",
        "--tcp-flags",
        "RST",
        "RST",
        "-j",
        "DROP",
    )
    gateway = Gateway(fresh)
    gateway.start()
    vm1 = fresh.client("vm1")
    vm1.open(1030, SERVER)
    eventually(vm1.connections, lambda seen: seen["connected"] == 1024)
    vm1.close()  # FIN: held for 240 s
    eventually(lambda: [f["state"] for f in gateway.flows()].count("CoolDown"), lambda n: n == 1024)
    wait_until_written(gateway)
    restart(gateway, how)
    record = gateway.ports("vm1", "Tcp")
    assert (record["used"], record["free"], record["highWater"]) == (1024, 0, 1024)
    assert record["failed"] > 0
    flows = gateway.flows("--state", "CoolDown")
    assert len(flows) == 1024
    assert all(200 < f["expiresInSeconds"] <= 240 for f in flows)
    # exhausted toward that server as before, and toward no other
    assert vm1.peer("Tcp", SERVER, patience=0.5) == "TimeoutError"
    assert vm1.peer("Tcp", SERVER2).startswith(DEFAULT)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_another_configuration_is_taken_up_as_a_reload_does(fresh: Topology, how: str) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    vm1, vm3 = fresh.client("vm1"), fresh.client("vm3")
    for client in (vm1, vm3):
        client.open(10, SERVER)
        eventually(client.connections, lambda seen: seen["connected"] == 10)
    wait_until_written(gateway)
    # vm3 has a public IP of its own no more: what went out by it ends, vm1's goes on
    del gateway.configuration["virtualMachines"][2]["publicIPAddress"]
    gateway.configuration["gateway"]["maximumFlows"] = 5000
    restart(gateway, how)
    assert {f["vm"] for f in gateway.flows()} == {"vm1"}
    assert vm1.talk() == 10
    assert vm3.peer("Tcp", SERVER2).startswith(DEFAULT)
    gateway.event(operationName="FlowsEnded", flows=10)


def corrupt(directory: Path, what: str) -> None:
    index = directory / "state.json"
    if what == "index":
        index.write_text(index.read_text()[:-20])
    elif what == "version":
        index.write_text(index.read_text().replace('"version":1', '"version":99'))
    elif what == "boot":
        document = json.loads(index.read_text())
        index.write_text(json.dumps(document | {"boot": "another"}))
    elif what == "ports":
        document = json.loads(index.read_text())
        document["state"]["allocations"] += document["state"]["allocations"]
        index.write_text(json.dumps(document))
    elif what == "flows":
        (flows,) = directory.glob("flows-*")
        flows.write_bytes(b"\0" * 10000)
    elif what == "writable":
        index.chmod(0o666)
    elif what == "link":
        text = index.read_text()
        (directory / "elsewhere").write_text(text)
        index.unlink()
        index.symlink_to("elsewhere")
    else:
        (configuration,) = directory.glob("configuration-*")
        configuration.unlink()


REFUSALS = {
    "index": "state.json is damaged",
    "version": "it is of version 99, not 1",
    "boot": "it is of an earlier boot of this host",
    "ports": "it contradicts its configuration: ports of 10.0.1.",
    "flows": "is damaged or of another state",
    "writable": "state.json can be written by others",
    "link": "state.json cannot be read",
    "configuration": "is missing",
}


@pytest.mark.parametrize("mode", ["slow path"], indirect=True, scope="module")  # asks nobody else
def test_a_state_that_is_no_good_is_kept_aside(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    vm1 = fresh.client("vm1")
    assert vm1.udp_open(SERVER, 7) == "whole"
    refused = gateway.state / "state" / "refused"
    for what, said in REFUSALS.items():
        assert len(gateway.flows()) == 1
        assert gateway.stop() == 0
        if refused.exists():
            shutil.rmtree(refused)
        corrupt(gateway.state / "state", what)
        gateway.errors.write_text("")
        gateway.start()
        lines = [line for line in gateway.errors.read_text().splitlines() if "state:" in line]
        assert len(lines) == 1, lines
        assert "starts empty" in lines[0]
        assert said in lines[0]
        assert list(refused.iterdir()) != []
        assert gateway.flows() == []
        gateway.event(operationName="StateRefused")
        assert vm1.udp_again() == "whole"  # UDP opens a flow again
    wait_until_written(gateway)
    restart(gateway, "kill")
    assert len(gateway.flows()) == 1


def test_damaged_flows_are_lost_and_the_others_go_on(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    vm1 = fresh.client("vm1")
    vm1.open(20, SERVER)
    eventually(vm1.connections, lambda seen: seen["connected"] == 20)
    wait_until_written(gateway)
    assert gateway.stop() == 0
    (flows,) = (gateway.state / "state").glob("flows-*")
    data = bytearray(flows.read_bytes())
    data[4096 + 50] ^= 0xFF
    flows.write_bytes(data)
    gateway.start()
    assert len(gateway.flows()) == 19
    assert gateway.status()["state"]["resumed"]["lost"] == 1
    assert "state: 1 flow could not be read, and ended" in gateway.errors.read_text()
