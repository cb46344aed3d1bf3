"""A changed file, while packets flow."""

from __future__ import annotations

import copy

from tests.netns.datapath.conftest import host_state
from tests.netns.gateway import DEFAULT, INSTANCE, Gateway
from tests.netns.topology import SERVER, Topology, eventually


def test_a_reload_keeps_the_interfaces_of_the_command_line(fresh: Topology) -> None:
    """As in a container, where the file cannot know what they are called."""
    gateway = Gateway(fresh)
    gateway.configuration["gateway"] |= {"inside": ["vnet"], "outside": "internet"}
    gateway.write()
    gateway.start("-c", str(gateway.file), "--inside", "lan0", "--outside", "wan0")
    assert gateway.reload() == []
    gateway.configuration["gateway"]["icmpEcho"] = "translate"
    assert gateway.reload()
    assert fresh.client("vm1").peer("Udp", SERVER).startswith(DEFAULT)
    assert gateway.status()["inside"] == ["lan0"]
    assert gateway.stop() == 0


def test_machines_and_addresses_come_and_go_while_connections_live(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    before = host_state(fresh)
    gateway.start()
    vm1, vm2, vm3 = (fresh.client(vm) for vm in ("vm1", "vm2", "vm3"))
    for client, count in ((vm1, 20), (vm2, 20), (vm3, 2)):
        client.open(count, SERVER)
        eventually(client.connections, lambda seen, count=count: seen["connected"] == count)  # type: ignore[misc]

    original = copy.deepcopy(gateway.configuration)
    gateway.configuration["publicIPAddresses"].append({"name": "new", "ipAddress": "203.0.113.60"})
    gateway.configuration["virtualMachines"].append(
        {"name": "vm4", "privateIPAddress": "10.0.1.99", "publicIPAddress": "new"}
    )
    assert gateway.reload()
    assert [client.talk() for client in (vm1, vm2, vm3)] == [20, 20, 2]
    fresh.ip("vm1", "addr add 10.0.1.99/24 dev eth0")
    assert vm1.peer("Tcp", SERVER, source="10.0.1.99", port=4444) == "203.0.113.60:4444"

    # vm3 loses its address: what went through it is over, what it does from now on is default SNAT.
    gateway.configuration = original
    del gateway.configuration["virtualMachines"][2]["publicIPAddress"]
    assert gateway.reload()
    assert "203.0.113.60" not in str(host_state(fresh))
    assert [client.talk() for client in (vm1, vm2)] == [20, 20]
    assert vm3.talk(patience=0.3) == 0
    assert vm3.peer("Tcp", SERVER).startswith(DEFAULT)
    gateway.event(operationName="Reloaded")
    assert gateway.losses() == {}
    assert gateway.stop() == 0
    assert host_state(fresh) == before


def test_a_bad_file_changes_nothing(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    vm1 = fresh.client("vm1")
    vm1.open(20, SERVER)
    eventually(vm1.connections, lambda seen: seen["connected"] == 20)
    before = host_state(fresh)
    for document, said in (
        ("gateway: [unclosed\n", str(gateway.file)),
        (gateway.configuration | {"virtualMachine": []}, "virtualMachines"),
        (gateway.configuration | {"gateway": {"inside": ["lan0"], "outside": "wan1"}}, "restart snatgw"),
    ):  # fmt: skip
        gateway.write(document)
        refusal = gateway.cli("reload", status=1)
        assert said in refusal.stderr
        assert refusal.stdout == ""
    gateway.file.unlink()
    assert str(gateway.file) in gateway.cli("reload", status=1).stderr
    assert host_state(fresh) == before
    assert vm1.talk() == 20
    assert fresh.client("vm3").peer("Udp", SERVER, port=4000) == f"{INSTANCE}:4000"
    gateway.event(operationName="ReloadRefused")
    gateway.write()
    assert gateway.reload() == []


def test_sighup_reloads(fresh: Topology) -> None:
    import signal

    gateway = Gateway(fresh)
    gateway.start()
    gateway.configuration["gateway"]["icmpEcho"] = "translate"
    gateway.write()
    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGHUP)
    gateway.event(operationName="Reloaded")
    fresh.run("vm1", "ping", "-c", "1", "-W", "10", SERVER)


def test_reloads_under_load_lose_nothing(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    vm1, vm2 = fresh.client("vm1"), fresh.client("vm2")
    vm1.open(200, SERVER)
    eventually(vm1.connections, lambda seen: seen["connected"] == 200)
    vm2.keep_asking(SERVER)
    extra = {"name": "new", "ipAddress": "203.0.113.60"}
    for _ in range(3):
        gateway.configuration["publicIPAddresses"].append(extra)
        gateway.configuration["virtualMachines"].append(
            {"name": "vm4", "privateIPAddress": "10.0.1.99"}
        )
        assert gateway.reload()
        assert vm1.talk() == 200
        gateway.configuration["publicIPAddresses"].remove(extra)
        gateway.configuration["virtualMachines"].pop()
        assert gateway.reload()
        assert vm1.talk() == 200
    (count,) = vm2.stop()
    assert count["sent"] == count["answered"] > 100
    assert gateway.losses() == {}
