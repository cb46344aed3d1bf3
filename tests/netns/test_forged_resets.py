"""RSTs that somebody forges who knows a connection's addresses and ports, but not its numbers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP

from tests.netns import gateway as usual
from tests.netns.gateway import Gateway
from tests.netns.servers import ECHO
from tests.netns.topology import SERVER, VMS, Topology, eventually

OPTIONS = "[IPOption_NOP(),IPOption_NOP(),IPOption_NOP(),IPOption_EOL()]"
"""With them a packet is the engine's, also of a flow that the fast path carries."""


@pytest.fixture
def gateway(fresh: Topology) -> Iterator[Gateway]:
    """A second for three of Azure's: a port is held for 5 s after an RST, and a flow that idles
    stays longer than ``eventually`` waits."""
    gateway = Gateway(fresh, timeScale=3)
    gateway.start()
    yield gateway
    assert gateway.stop() == 0


def connection(gateway: Gateway, vm: str) -> tuple[str, int, int, int]:
    """A connection that lives: its public address and port, and what either side expects next."""
    net = gateway.net
    wire = net.capture("internet", "eth0", f"tcp and port {ECHO}")
    client = net.client(vm)
    client.open(1, SERVER)
    eventually(client.connections, lambda count: count["connected"] == 1)
    for _ in range(5):
        assert client.talk() == 1
    time.sleep(0.3)  # for an acknowledgement that is sent late
    seen = [packet for packet in wire.packets() if TCP in packet]
    out = [packet for packet in seen if packet[IP].dst == SERVER]
    back = [packet for packet in seen if packet[IP].src == SERVER]
    return out[0][IP].src, out[0][TCP].sport, out[-1][TCP].ack, back[-1][TCP].ack


def listed(gateway: Gateway, vm: str) -> tuple[str, bool]:
    (flow,) = (flow for flow in gateway.flows() if flow["vm"] == vm)
    return flow["state"], flow["offloaded"]


def states(gateway: Gateway, vm: str) -> set[str]:
    return {flow["state"] for flow in gateway.flows() if flow["vm"] == vm}


@pytest.mark.parametrize("vm", ["vm1", "vm3"])
def test_a_forged_rst_ends_nothing_and_a_true_one_does(gateway: Gateway, vm: str) -> None:
    """vm1's port is a SNAT port, vm3 has an address of its own."""
    net, client = gateway.net, gateway.net.client(vm)
    public, port, from_remote, from_vm = connection(gateway, vm)
    (flow,) = (flow for flow in gateway.flows() if flow["vm"] == vm)

    def rsts(packet: str, expected: int) -> str:
        """Behind what is expected, or far ahead; and as a closed port has it."""
        numbers = [(expected + by) % (1 << 32) for by in (-1, -(1 << 20), 1 << 17, 1 << 31)]
        return ",".join(f"{packet},flags='R',seq={number})" for number in [*numbers, 0])

    inward = f"IP(src='{SERVER}',dst='{public}')/TCP(sport={ECHO},dport={port}"
    outward = f"IP(src='{VMS[vm]}',dst='{SERVER}')/TCP(sport={flow['private']['port']},dport={ECHO}"
    net.client("internet").craft(f"[{rsts(inward, from_remote)}]")
    net.client("vm2").craft(f"[{rsts(outward, from_vm)}]")
    time.sleep(7)  # longer than a port is held after an RST
    assert listed(gateway, vm) == ("Established", usual.fast_path == "on")
    assert client.talk() == 1
    (flow,) = (flow for flow in gateway.flows() if flow["vm"] == vm)
    assert flow["public"]["port"] == port

    # Eight bytes have gone each way since the numbers were seen.
    net.client("internet").craft(f"{inward},flags='R',seq={from_remote + 8 & 0xFFFFFFFF})")
    ended = "CoolDown" if vm == "vm1" else "Closed"
    eventually(lambda: states(gateway, vm), lambda seen: seen in ({ended}, set()))
    eventually(client.connections, lambda count: count["failed"] == 1)
    eventually(lambda: [f for f in gateway.flows() if f["vm"] == vm], lambda flows: not flows)


def test_what_passes_by_the_engine_counts_for_a_later_rst(gateway: Gateway) -> None:
    """More than a window further than the last that the fast path saw."""
    net, vm = gateway.net, "vm1"
    public, port, from_remote, from_vm = connection(gateway, vm)
    (flow,) = (flow for flow in gateway.flows() if flow["vm"] == vm)
    far = from_remote + (1 << 18) & 0xFFFFFFFF
    ports = f"sport={flow['private']['port']},dport={ECHO}"
    tcp = f"TCP({ports},flags='A',seq={from_vm},ack={far})"
    wire = net.capture("internet", "eth0", f"tcp and port {ECHO}")
    net.client(vm).craft(f"IP(src='{VMS[vm]}',dst='{SERVER}',options={OPTIONS})/{tcp}")
    arrived = [packet for packet in wire.packets() if TCP in packet]
    assert [packet[IP].src for packet in arrived if packet[TCP].ack == far] == [public]
    rst = f"TCP(sport={ECHO},dport={port},flags='R',seq={far})"
    net.client("internet").craft(f"IP(src='{SERVER}',dst='{public}')/{rst}")
    eventually(lambda: states(gateway, vm), lambda seen: seen in ({"CoolDown"}, set()))
