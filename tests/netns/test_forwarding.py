"""Packets of live flows are forwarded as the kernel forwards: the same with and without eBPF."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
from scapy.all import IP, TCP, UDP, Dot1Q, Ether, Packet, Padding, Raw

from tests.netns.gateway import DEFAULT, Gateway
from tests.netns.topology import SERVER, VMS, Topology, eventually

NOWHERE = "198.19.0.1"  # the internet drops what goes there
MARKING = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

SEC("tc") int mark(struct __sk_buff *skb)
{
	__u16 id = 0;
	bpf_skb_load_bytes(skb, 18, &id, sizeof(id)); // Ethernet's header, and IP's up to there
	if (id == bpf_htons(4711))
		skb->mark = 7;
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "Dual MIT/GPL";
"""
TWIN = "203.0.113.253"  # another router on the outside


@pytest.fixture
def gateway(fresh: Topology) -> Gateway:
    gateway = Gateway(fresh)
    gateway.start()
    return gateway


def mac(net: Topology, namespace: str, interface: str) -> str:
    return net.run(namespace, "cat", f"/sys/class/net/{interface}/address").strip()


def send(net: Topology, namespace: str, interface: str, *frames: Packet) -> None:
    code = (
        "import socket, sys; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); "
        f"s.bind(('{interface}', 0)); [s.send(bytes.fromhex(frame)) for frame in sys.argv[1:]]"
    )
    net.python(namespace, code, *(bytes(frame).hex() for frame in frames))


def live_flow(gateway: Gateway, vm: str = "vm1") -> tuple[UDP, UDP]:
    """A UDP flow of a VM that both sides have used: what it sends, and what is sent to it."""
    client = gateway.net.client(vm)
    assert client.udp_open(SERVER, 7) == "whole"
    for _ in range(8):
        assert client.udp_again() == "whole"
    (flow,) = gateway.flows("--remote", SERVER, "--vm", vm)
    private, public = flow["private"], flow["public"]
    return (
        IP(src=private["ip"], dst=SERVER) / UDP(sport=private["port"], dport=7),
        IP(src=SERVER, dst=public["ip"]) / UDP(sport=7, dport=public["port"]),
    )


def both_ways(outward: Packet, inward: Packet) -> list[tuple[str, Packet, str, str]]:
    """From where, what, to where, and by which interface of the gateway."""
    return [("internet", inward, "vm1", "wan0"), ("vm1", outward, "internet", "lan0")]


def test_only_frames_for_this_host_and_this_interface_are_forwarded(gateway: Gateway) -> None:
    net = gateway.net
    outward, inward = live_flow(gateway)
    for near, packet, far, port in both_ways(outward, inward):
        ours, theirs = mac(net, "gw", port), mac(net, near, "eth0")
        frames = [
            Ether(dst="02:00:00:00:00:99", src=theirs) / packet / Raw(b"another's"),
            Ether(dst="ff:ff:ff:ff:ff:ff", src=theirs) / packet / Raw(b"everybody's"),
            Ether(dst="01:00:5e:00:00:01", src=theirs) / packet / Raw(b"some's"),
            Ether(dst=ours, src=theirs) / Dot1Q(vlan=100) / packet / Raw(b"a VLAN's"),
            Ether(dst=ours, src=theirs) / packet / Raw(b"ours"),
        ]
        wire = net.capture(far, "eth0")
        send(net, near, "eth0", *frames * 2)
        seen = [p for p in wire.packets() if UDP in p and p[Ether].src != mac(net, far, "eth0")]
        payloads = [bytes(p[UDP].payload) for p in seen]
        assert [p for p in payloads if b"'s" in p or p == b"ours"] == [b"ours"] * 2


def test_a_short_frames_padding_is_not_forwarded(gateway: Gateway) -> None:
    net = gateway.net
    outward, inward = live_flow(gateway)
    for near, packet, far, port in both_ways(outward, inward):
        ours, theirs = mac(net, "gw", port), mac(net, near, "eth0")
        wire = net.capture(far, "eth0", f"dst host {VMS['vm1'] if far == 'vm1' else SERVER}")
        frame = Ether(dst=ours, src=theirs) / packet / Raw(b"ab")
        send(net, near, "eth0", *[frame / Padding(b"x" * 16)] * 3)
        seen = [p for p in wire.packets() if bytes(p[UDP].payload)[:2] == b"ab"]
        short = [p for p in seen if p[IP].len == 30]
        assert len(short) >= 3
        for arrived in short:
            assert len(arrived) == 14 + 30
            again = IP(bytes(arrived[IP]))
            del again.chksum
            del again[UDP].chksum
            again = IP(bytes(again))
            assert (again.chksum, again[UDP].chksum) == (arrived[IP].chksum, arrived[UDP].chksum)


def test_a_router_that_changes_its_hardware_address_is_found_again(gateway: Gateway) -> None:
    net = gateway.net
    # The kernel's own times, shortened: it takes an address for right, checks it, asks again.
    for name, value in (
        ("base_reachable_time_ms", 1000),
        ("delay_first_probe_time", 1),
        ("retrans_time_ms", 200),
    ):
        net.sysctl("gw", f"net/ipv4/neigh/wan0/{name}", str(value))
    client = net.client("vm1")
    live_flow(gateway)
    net.ip("internet", "link set eth0 address 02:00:00:00:00:42")
    assert eventually(lambda: client.udp_again(patience=0.3), lambda seen: seen == "whole")


def test_the_way_of_a_vm_is_its_way_to_the_end_of_a_flow(gateway: Gateway) -> None:
    """Policy routing: by the VM's own address, by its address at the far end, by port."""
    net = gateway.net
    net.sysctl("internet", "net/ipv4/conf/all/arp_ignore", "1")
    net.ip("internet", "link add twin link eth0 type macvlan mode bridge")
    net.ip("internet", f"addr add {TWIN}/32 dev twin")
    net.ip("internet", "link set twin up")
    net.ip("gw", f"route add default via {TWIN} table 100")
    net.ip("gw", "route add 10.0.1.0/24 dev lan0 table 100")
    net.ip("gw", f"rule add from {VMS['vm1']} lookup 100")
    net.ip("gw", f"rule add from {VMS['vm2']} ipproto udp dport 7 lookup 100")
    routers = {mac(net, "internet", "twin"): TWIN, mac(net, "internet", "eth0"): "the first"}
    wire = net.capture("gw", "wan0", f"dst host {SERVER} and udp")
    for vm in VMS:
        live_flow(gateway, vm)
    seen: dict[str, list[str]] = {}
    for packet in wire.packets():
        seen.setdefault(packet[IP].src, []).append(routers[packet[Ether].dst])
    ways = {source: set(routers) for source, routers in seen.items()}
    assert ways.pop(DEFAULT) == {TWIN}
    assert sorted(map(sorted, ways.values())) == [[TWIN], ["the first"]]


def test_a_route_that_changes_holds_for_live_flows_and_every_packet_goes_by_its_tos(
    gateway: Gateway,
) -> None:
    net = gateway.net
    net.sysctl("internet", "net/ipv4/conf/all/arp_ignore", "1")
    net.ip("internet", "link add twin link eth0 type macvlan mode bridge")
    net.ip("internet", f"addr add {TWIN}/32 dev twin")
    net.ip("internet", "link set twin up")
    twin = mac(net, "internet", "twin")
    outward, _ = live_flow(gateway)
    ours, theirs = mac(net, "gw", "lan0"), mac(net, "vm1", "eth0")

    def by_twin(*services: int) -> list[bool]:
        """Of a packet with each TOS: whether it went by the other router."""
        wire = net.capture("gw", "wan0", f"dst host {SERVER} and udp")
        frames = []
        for number, tos in enumerate(services):
            packet = outward.copy()
            packet[IP].tos = tos
            frames.append(Ether(dst=ours, src=theirs) / packet / Raw(b"%d" % number))
        send(net, "vm1", "eth0", *frames)
        seen = {bytes(p[UDP].payload): p[Ether].dst == twin for p in wire.packets() if UDP in p}
        return [seen[b"%d" % number] for number in range(len(services))]

    assert by_twin(0, 0x10, 0) == [False] * 3
    net.ip("gw", f"route add default via {TWIN} table 100")
    net.ip("gw", f"rule add from {VMS['vm1']} tos 0x10 lookup 100")
    assert eventually(lambda: by_twin(0, 0x10, 0x10, 0, 0, 0x10), any) == [
        *(False, True, True, False, False, True)
    ]
    net.ip("gw", f"rule add from {VMS['vm1']} lookup 100")
    assert eventually(lambda: by_twin(0, 0, 0), all)
    net.ip("gw", "route add throw default table 100 metric 1")
    net.ip("gw", f"route del default via {TWIN} table 100")
    assert eventually(lambda: by_twin(0, 0, 0), lambda seen: not any(seen)) == [False] * 3


def test_the_way_of_a_marked_packet_is_not_that_of_the_next(
    gateway: Gateway, tmp_path: Path
) -> None:
    net = gateway.net
    net.sysctl("internet", "net/ipv4/conf/all/arp_ignore", "1")
    net.ip("internet", "link add twin link eth0 type macvlan mode bridge")
    net.ip("internet", f"addr add {TWIN}/32 dev twin")
    net.ip("internet", "link set twin up")
    twin = mac(net, "internet", "twin")
    outward, _ = live_flow(gateway)
    net.ip("gw", f"route add default via {TWIN} table 100")
    net.ip("gw", "rule add fwmark 7 lookup 100")
    (tmp_path / "mark.c").write_text(MARKING)
    headers = f"-I/usr/include/{platform.machine()}-linux-gnu"
    clang = ["clang", "-O2", "-target", "bpf", headers, "-c", "mark.c", "-o", "mark.o"]
    subprocess.run(clang, cwd=tmp_path, check=True)
    marking = f"tc filter add dev lan0 ingress pref 1 bpf da obj {tmp_path}/mark.o sec tc"
    net.run("gw", "sh", "-c", f"tc qdisc add dev lan0 clsact 2>/dev/null; {marking}")
    ours, theirs = mac(net, "gw", "lan0"), mac(net, "vm1", "eth0")
    marked = [False, True, False, True, True, False, False]
    wire = net.capture("gw", "wan0", f"dst host {SERVER} and udp")
    frames = []
    for number, is_marked in enumerate(marked):
        packet = outward.copy()
        packet[IP].id = 4711 if is_marked else 1
        frames.append(Ether(dst=ours, src=theirs) / packet / Raw(b"%d" % number))
    send(net, "vm1", "eth0", *frames)
    seen = {bytes(p[UDP].payload): p[Ether].dst == twin for p in wire.packets() if UDP in p}
    assert [seen[b"%d" % number] for number in range(len(marked))] == marked


@pytest.mark.parametrize("flags", ["A", "PA", "SA"])
def test_any_first_answer_establishes(gateway: Gateway, flags: str) -> None:
    net = gateway.net
    # The VM's own kernel knows of no such connection, and would say so.
    net.run("vm1", "sh", "-c", "iptables -A OUTPUT -p tcp --tcp-flags RST RST -j DROP")
    syn = IP(src=VMS["vm1"], dst=NOWHERE) / TCP(sport=40000, dport=443, flags="S", seq=1000)
    assert net.client("vm1").peer("Tcp", SERVER)  # neighbours are known after this
    ours, theirs = mac(net, "gw", "lan0"), mac(net, "vm1", "eth0")
    send(net, "vm1", "eth0", Ether(dst=ours, src=theirs) / syn)
    (flow,) = eventually(lambda: gateway.flows("--remote", NOWHERE))
    assert flow["state"] == "Opening"
    answer = IP(src=NOWHERE, dst=DEFAULT) / TCP(
        sport=443, dport=flow["public"]["port"], flags=flags, seq=7, ack=1001
    )
    ours, theirs = mac(net, "gw", "wan0"), mac(net, "internet", "eth0")
    send(net, "internet", "eth0", Ether(dst=ours, src=theirs) / answer)
    states = eventually(
        lambda: {flow["state"] for flow in gateway.flows("--remote", NOWHERE)},
        lambda seen: seen != {"Opening"},
    )
    assert states == {"Established"}
