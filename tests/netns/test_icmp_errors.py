"""Errors that real kernels and firewalls make pass; what only looks like one goes nowhere."""

from __future__ import annotations

import json

import pytest
from scapy.all import IP, Packet

from tests.netns.gateway import DEFAULT, FRONTENDS, INSTANCE, Gateway
from tests.netns.topology import FAR, SERVER, SERVER2, Topology, eventually

REJECTS = {
    "icmp-admin-prohibited": (13, "EHOSTUNREACH"),
    "icmp-host-prohibited": (10, "EHOSTUNREACH"),
    "icmp-port-unreachable": (3, "ECONNREFUSED"),
}
"""What a firewall says, its code, and what the kernel tells a program of it."""
CONNECT = """
import errno, socket, sys
kind, host, port = sys.argv[1:4]
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == 'Tcp' else socket.SOCK_DGRAM)
s.settimeout(20)
try:
    s.connect((host, int(port)))
    s.send(b'x' * int(sys.argv[4]))
    s.recv(1)
except TimeoutError:
    print('TimeoutError')
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def fate(net: Topology, host: str, kind: str, to: str, port: int, size: int = 1) -> str:
    """What becomes of a socket that sends ``size`` bytes, as its program is told."""
    return net.python(host, CONNECT, kind, to, str(port), str(size)).strip()


def assert_right_checksums(packet: Packet) -> None:
    fresh = IP(bytes(packet))
    for layer in ("IP", "ICMP"):
        del fresh[layer].chksum
    again = IP(bytes(fresh))
    assert (again.chksum, again["ICMP"].chksum) == (packet["IP"].chksum, packet["ICMP"].chksum)


@pytest.mark.parametrize("vm", ["vm1", "vm2", "vm3"])
@pytest.mark.parametrize("kind", ["Tcp", "Udp"])
@pytest.mark.parametrize("reject", list(REJECTS))
def test_a_firewall_on_the_way_that_rejects_is_understood(
    town: Gateway, vm: str, kind: str, reject: str
) -> None:
    rule = ["FORWARD", "-p", kind.lower(), "--dport", "7777", "-j", "REJECT"]
    town.net.run("narrow", "iptables", "-A", *rule, "--reject-with", reject)
    try:
        assert fate(town.net, vm, kind, FAR, 7777) == REJECTS[reject][1]
    finally:
        town.net.run("narrow", "iptables", "-F", "FORWARD")


@pytest.mark.parametrize("reject", list(REJECTS))
@pytest.mark.parametrize(("vm", "public"), [("vm2", FRONTENDS[0]), ("vm3", INSTANCE)])
def test_a_vm_that_rejects_what_comes_in_is_understood_outside(
    town: Gateway, vm: str, public: str, reject: str
) -> None:
    rule = ["INPUT", "-p", "tcp", "--dport", "80", "-j", "REJECT", "--reject-with", reject]
    town.net.run(vm, "iptables", "-A", *rule)
    wire = town.net.capture("internet", "eth0", "icmp")
    try:
        assert fate(town.net, "internet", "Tcp", public, 80) == REJECTS[reject][1]
    finally:
        town.net.run(vm, "iptables", "-F", "INPUT")
    for error in (frame["IP"] for frame in wire.packets()):
        assert (error.src, error["ICMP"].code) == (public, REJECTS[reject][0])
        assert error["IP in ICMP"].dst == public
        assert_right_checksums(error)


def test_a_closed_port_of_a_vm_says_so_outside(town: Gateway) -> None:
    assert fate(town.net, "internet", "Udp", INSTANCE, 9999) == "ECONNREFUSED"
    assert fate(town.net, "internet", "Udp", INSTANCE, 9998, 1400) == "ECONNREFUSED"


@pytest.mark.parametrize(("vm", "address"), [("vm1", "10.0.1.4"), ("vm3", "10.0.1.6")])
@pytest.mark.parametrize("options", ["", ", options=IPOption_RR()"])
def test_the_longest_error_that_a_kernel_makes_arrives_whole(
    town: Gateway, vm: str, address: str, options: str
) -> None:
    wire = town.net.capture(vm, "eth0", "icmp")
    packet = f"IP(dst='{SERVER}'{options})/UDP(sport=5005, dport=9999)/(b'x' * 1000)"
    assert town.net.client(vm).craft(packet) is None
    assert town.net.client(vm).echo(SERVER2) == "whole"
    (error,) = (frame["IP"] for frame in wire.packets())
    assert error.dst == error["IP in ICMP"].src == address
    assert error.len == len(error) > 500
    assert error.len <= 576
    assert_right_checksums(error)


def test_no_forged_error_leaves_and_none_comes_in(town: Gateway) -> None:
    """About a live flow of vm1's own, by everybody, to everybody, in every way that is wrong."""
    vm1, vm2 = town.net.client("vm1"), town.net.client("vm2")
    assert vm1.udp_open(SERVER, 7)
    flows = town.flows("--vm", "vm1", "--remote", f"{SERVER}:7", "--protocol", "Udp")
    flow = max(flows, key=lambda flow: flow["id"])
    sport, public = flow["private"]["port"], flow["public"]["port"]
    inner = f"IP(src='{SERVER}', dst='10.0.1.4')/UDP(sport=7, dport={sport})/(b'x' * {{}})"

    def error(source: str, to: str, size: int = 20, more: str = "") -> str:
        quote = inner.format(size)
        return f"IP(src='{source}', dst='{to}')/ICMP(type=3, code=3{more})/{quote}"

    own = [
        error("10.0.1.4", "198.18.1.2"),
        error("10.0.1.4", SERVER2),
        error("10.0.1.4", SERVER, 600),
        error("10.0.1.4", SERVER, more=", chksum=1"),
        error("10.0.1.4", SERVER).replace("dst='10.0.1.4')", "dst='10.0.1.4', chksum=1)"),
        error("10.0.1.77", SERVER),
        error("10.0.1.4", INSTANCE),
    ]
    outside = town.net.capture("internet", "eth0", "icmp")
    vm3 = town.net.capture("vm3", "eth0", "icmp")
    assert vm1.craft(f"[{', '.join(own)}]") is None
    assert vm2.craft(f"[{error('10.0.1.5', SERVER)}, {error('10.0.1.5', SERVER2)}]") is None
    assert vm2.echo(SERVER2) == "whole"
    assert vm1.craft(error("10.0.1.4", SERVER)) is None  # the one that is right
    seen = eventually(lambda: [f["IP"] for f in outside.packets()])
    assert [(e.src, e.dst) for e in seen] == [(DEFAULT, SERVER)]
    assert vm3.lines() == []

    wires = [town.net.capture(vm, "eth0", "icmp") for vm in ("vm1", "vm2", "vm3")]
    quote = f"IP(src='{DEFAULT}', dst='{SERVER}')/UDP(sport={public}, dport=7)/b'x'"
    into = [
        f"IP(src='{source}', dst='{DEFAULT}')/ICMP(type=3, code=3{more})/{quote}"
        for source, more in (
            ("168.63.129.16", ""), ("10.0.1.5", ""), (INSTANCE, ""), (SERVER, ", chksum=1"),
        )
    ]  # fmt: skip
    assert town.net.client("internet").craft(f"[{', '.join(into)}]") is None
    assert vm2.echo(SERVER2) == "whole"
    assert [wire.lines() for wire in wires] == [[], [], []]
    vm1.close()


def test_a_vm_does_not_connect_to_itself(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    gateway.start()
    code = (
        "import socket, sys\n"
        "s = socket.socket(); s.settimeout(3); s.bind(('', 40000))\n"
        "try:\n    s.connect((sys.argv[1], int(sys.argv[2]))); print('connected')\n"
        "except TimeoutError:\n    print('TimeoutError')\n"
    )
    said = gateway.document("explain", "--vm", "vm1", "--to", f"{DEFAULT}:1024/tcp")
    assert said["verdict"] == "Drop"
    assert fresh.python("vm1", code, DEFAULT, "1024").strip() == "TimeoutError"
    (flow,) = gateway.flows("--vm", "vm1")
    assert flow["public"] == {"ip": DEFAULT, "port": 1024}  # the port that it connected to
    assert gateway.status()["drops"]["HairpinWithoutRule"] > 0


VM_SIDE = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(60); s.bind(('', 51820))
s.sendto(b'mine', (sys.argv[1], 51820))
while True:
    data, sender = s.recvfrom(100)
    s.sendto(data, sender)
    if data == b'end': break
"""
CLIENT_SIDE = """
import json, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20); s.bind((sys.argv[1], 51820))
print('up', flush=True)
data, snat = s.recvfrom(100)
rule, seen = (sys.argv[2], 50002), []
for number in range(60):
    to = snat if number // 10 % 2 else rule
    s.sendto(b'%d' % number, to)
    data, sender = s.recvfrom(100)
    seen.append((int(data) == number, sender == to))
s.sendto(b'end', rule); s.recvfrom(100)
print(json.dumps([snat, seen]), flush=True)
"""


def test_a_client_that_a_vm_sends_to_may_come_by_a_rule_too(fresh: Topology) -> None:
    """Ten datagrams by the rule, ten by the flow that the VM began, and so on: each is answered
    by the way that it came."""
    gateway = Gateway(fresh)
    (balancer,) = gateway.configuration["loadBalancers"]
    balancer["inboundNatRules"] = [
        {
            "name": "vpn",
            "frontendIPConfiguration": "fe1",
            "protocol": "Udp",
            "frontendPort": 50002,
            "virtualMachine": "vm1",
            "backendPort": 51820,
        }
    ]
    gateway.start()
    python = gateway.python
    client = fresh.start("internet", python, "-c", CLIENT_SIDE, SERVER, FRONTENDS[0])
    assert client.stdout is not None
    assert client.stdout.readline() == "up\n"
    fresh.start("vm1", python, "-c", VM_SIDE, SERVER)
    snat, seen = json.loads(client.stdout.readline())
    assert snat[0] == DEFAULT
    assert seen == [[True, True]] * 60
    assert gateway.losses() == {}
