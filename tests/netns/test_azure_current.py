"""azure-current with real packets: outbound rules, load balancing rules, NAT gateways."""

from __future__ import annotations

from tests.netns.current import INSTANCE, LINK, NAT, RULE, attach, current
from tests.netns.topology import SERVER, SERVER2, Topology, eventually


def test_every_method_shows_its_own_address_and_lists_itself(fresh: Topology) -> None:
    gateway = current(fresh)
    gateway.start()
    vm1, vm2, vm3 = (fresh.client(vm) for vm in ("vm1", "vm2", "vm3"))
    assert vm1.peer("Tcp", SERVER) == f"{RULE}:1024"
    assert vm1.peer("Udp", SERVER) == f"{RULE}:1024"
    assert vm2.peer("Tcp", SERVER) == f"{LINK}:1024"
    assert vm2.peer("Udp", SERVER, patience=0.5) == "TimeoutError"
    assert vm3.peer("Udp", SERVER, port=4444) == f"{INSTANCE}:4444"
    assert gateway.status()["drops"] == {"ProtocolWithoutRule": 1}
    assert {f["vm"]: f["method"] for f in gateway.flows()} == {
        "vm1": "OutboundRule",
        "vm2": "LoadBalancer",
        "vm3": "InstanceLevelPublicIP",
    }
    record = gateway.ports("vm1", "Tcp")
    assert (record["method"], record["allocated"], record["publicIp"]) == ("OutboundRule", 16, RULE)


def test_an_outbound_rules_ports_run_out_and_say_so(fresh: Topology) -> None:
    gateway = current(fresh)
    gateway.start()
    vm1 = fresh.client("vm1")
    vm1.open(20, SERVER)
    eventually(vm1.connections, lambda seen: seen["connected"] >= 16)
    gateway.event(HealthEventType="SnatPortExhaustion", vm="vm1", Severity="Critical")
    high = gateway.event(HealthEventType="HighSnatPortUsage")
    assert high["category"] == "LoadBalancerHealthEvent"
    assert high["resource"] == "loadBalancers/lb"
    assert vm1.connections()["connected"] == 16
    # Another port of the same address is another destination.
    assert vm1.peer("Tcp", SERVER).startswith(RULE)


def test_attaching_a_nat_gateway_takes_new_flows_and_leaves_the_old(fresh: Topology) -> None:
    gateway = current(fresh)
    gateway.start()
    clients = {vm: fresh.client(vm) for vm in ("vm1", "vm2", "vm3")}
    for client in clients.values():
        client.open(3, SERVER)
        eventually(client.connections, lambda seen: seen["connected"] == 3)
    attach(gateway)
    gateway.write()
    assert any("NatGateway (nat)" in line for line in gateway.reload())
    for vm, client in clients.items():
        assert client.talk() == 3, vm
        for protocol in ("Tcp", "Udp"):
            public, _, port = client.peer(protocol, SERVER2).partition(":")
            assert public == NAT
            assert 1024 <= int(port) <= 65535
    record = gateway.ports("vm1", "Udp")
    assert (record["publicIp"], record["method"], record["allocated"]) == (NAT, "NatGateway", 64512)
    told = gateway.cli("explain", "--vm", "vm3", "--to", f"{SERVER}:443/tcp").stdout
    assert "NatGateway" in told
    assert gateway.losses() == {}


def test_fragments_pass_an_instance_level_public_ip_and_no_snat(fresh: Topology) -> None:
    gateway = current(fresh)
    gateway.start()
    clients = {vm: fresh.client(vm) for vm in ("vm1", "vm2", "vm3")}
    for size in (1473, 8000, 60000):
        assert clients["vm3"].echo(SERVER, size) == "whole"
        assert clients["vm1"].echo(SERVER, size, patience=0.3) == "TimeoutError"
    assert gateway.status()["drops"] == {"FragmentsNotSupported": 3}
    gateway.event(reason="FragmentsNotSupported", vm="vm1")
    # whole packets are translated as ever, and between VMs nothing is
    assert clients["vm1"].echo(SERVER, 1472) == "whole"
    # what comes back to a live flow in fragments is dropped, too
    seen = fresh.capture("vm1", "eth0", f"src host {SERVER}")
    assert clients["vm1"].udp_open(SERVER, 7) == "whole"
    (port,) = {f["public"]["port"] for f in gateway.flows("--vm", "vm1") if f["bytesIn"] == 128}
    reply = (
        f"fragment(IP(src='{SERVER}', dst='{RULE}', id=7)/UDP(sport=7, dport={port})/(b'x' * 2000))"
    )
    assert fresh.client("internet").craft(reply) is None
    eventually(gateway.status, lambda now: now["drops"] == {"FragmentsNotSupported": 4})
    assert clients["vm1"].udp_again() == "whole"
    assert [len(frame["IP"]) for frame in seen.packets()] == [128, 128]
    assert gateway.losses() == {}
    assert "fragments" in fresh.run("gw", "nft", "list", "table", "ip", "snatgw-wan0")
    assert gateway.stop() == 0
    assert fresh.run("gw", "nft", "list", "tables").count("snatgw") == 0
