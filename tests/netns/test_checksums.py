"""Every checksum of what leaves the gateway is right, whatever senders leave to their devices.

VMs and remotes have segmentation and checksums done by their (virtual) devices or do them
themselves; the gateway's own interfaces finish both, so that what is captured behind them is what
a wire would carry. scapy computes every checksum again: of IP, TCP, UDP and ICMP, of what is in a
tunnel, and of what an ICMP error quotes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.all import ICMP, IP, UDP, Packet
from scapy.layers.vxlan import VXLAN

from tests.netns.gateway import INSTANCE, Gateway
from tests.netns.numbered import PORT
from tests.netns.servers import ECHO
from tests.netns.topology import FAR, SERVER, SERVER2, SERVER3, VMS, Topology
from tests.netns.wires import PUBLIC, Wires, verify, whole

BULK = 200_000
NOTHING = {"missing": 0, "doubled": 0, "changed": 0}
OFFLOADS = ("tx", "tso", "gso", "tx-udp-segmentation")
# What senders leave to their devices, and what the gateway's put together on arrival.
SENDERS = {
    "offloads": ("on", {}),
    "no offloads": ("off", {}),
    "GRO": ("off", {"gro": "on", "rx-udp-gro-forwarding": "on"}),
    "GRO lists": ("off", {"gro": "on", "rx-gro-list": "on"}),
}


def offload(net: Topology, namespace: str, interface: str, **features: str) -> None:
    words = [word for item in features.items() for word in item]
    net.run(namespace, "ethtool", "-K", interface, *words)


def tunnel(
    net: Topology, namespace: str, near: str, far: str, number: int, address: str, summed: str
) -> None:
    ends = f"local {near} remote {far}"
    device = f"link add vx{number} type vxlan id {number} dstport 4789 {ends} {summed}"
    net.ip(namespace, device)
    net.ip(namespace, f"addr add {address}/24 dev vx{number}")
    net.ip(namespace, f"link set vx{number} up mtu 1400")


@pytest.fixture(scope="module", params=list(SENDERS))
def senders(request: pytest.FixtureRequest) -> str:
    return str(request.param)


without_gro = pytest.mark.parametrize(
    "senders", ["offloads", "no offloads"], indirect=True, scope="module"
)


@pytest.fixture(scope="module")
def usual(mode: None, senders: str) -> Iterator[Gateway]:
    """The usual gateway, with servers of numbered datagrams and tunnels to ``vm3``."""
    sending, receiving = SENDERS[senders]
    with Topology() as net:
        for namespace in (*VMS, "internet"):
            offload(net, namespace, "eth0", **dict.fromkeys(OFFLOADS, sending), gro="off")
        for interface in ("lan0", "wan0"):
            offload(net, "gw", interface, **dict.fromkeys(OFFLOADS, "off"), **receiving)
        for number, summed in ((1, "noudpcsum"), (2, "udpcsum")):
            tunnel(net, "vm3", VMS["vm3"], SERVER3, number, f"172.16.{number}.2", summed)
            tunnel(net, "internet", SERVER3, INSTANCE, number, f"172.16.{number}.1", summed)
        tunnel(net, "vm1", VMS["vm1"], SERVER3, 3, "172.16.3.2", "udpcsum")
        net.ip("vm1", "neigh add 172.16.3.1 lladdr 02:00:00:00:00:01 dev vx3")
        for address in ("172.16.1.1", "172.16.2.1"):
            servers = net.start("internet", sys.executable, "-m", "tests.netns.servers", address)
            assert servers.stdout is not None
            assert servers.stdout.readline() == "up\n"
        for namespace, address in (
            ("internet", SERVER),
            ("internet", SERVER2),
            ("vm3", VMS["vm3"]),
        ):
            numbered = net.start(
                namespace, sys.executable, "-m", "tests.netns.numbered", "serve", address
            )
            assert numbered.stdout is not None
            assert numbered.stdout.readline() == "up\n"
        gateway = Gateway(net)
        gateway.start()
        yield gateway
        assert gateway.losses() == {}
        assert gateway.stop() == 0


@pytest.mark.parametrize("vm", PUBLIC)
def test_tcp(usual: Gateway, vm: str) -> None:
    wires = Wires(usual, vm)
    client = usual.net.client(vm)
    assert client.peer("Tcp", SERVER).startswith(PUBLIC[vm] + ":")
    assert client.upload(SERVER, BULK) is True
    assert client.download(SERVER, BULK) is True
    for packets in wires.verify():
        assert sum(len(packet) for packet in packets) > BULK


def ask(gateway: Gateway, vm: str, to: str, *arguments: object) -> Any:
    words = map(str, arguments)
    return json.loads(
        gateway.net.run(vm, sys.executable, "-m", "tests.netns.numbered", "ask", to, *words)
    )


def numbers(packets: list[Packet]) -> list[Packet]:
    """The numbered datagrams, without what is said about them."""
    return [p for p in packets if UDP in p and bytes(p[UDP].payload)[:1] == b"\0"]


@pytest.mark.parametrize("vm", PUBLIC)
@pytest.mark.parametrize("how", ["plain", "segments", "unchecked"])
def test_udp(usual: Gateway, vm: str, how: str) -> None:
    """From the first datagram of the flow on, and an odd and an even length."""
    wires = Wires(usual, vm)
    for size in (1201, 46):
        assert ask(usual, vm, SERVER, 25, size, 4, how) == [NOTHING, NOTHING]
    for packets in wires.verify():
        numbered = numbers(packets)
        assert len(numbered) == 200
        assert {packet[UDP].chksum == 0 for packet in numbered} == {how == "unchecked"}


def test_segments_are_counted_each(usual: Gateway) -> None:
    assert ask(usual, "vm3", SERVER2, 40, 1000, 2, "segments") == [NOTHING, NOTHING]
    (flow,) = usual.flows("--vm", "vm3", "--remote", f"{SERVER2}:{PORT}")
    assert (flow["packetsOut"], flow["packetsIn"]) == (81, 81)
    assert flow["bytesOut"] > 80 * 1028 < flow["bytesIn"]


def test_udp_between_vms_through_a_public_address(usual: Gateway) -> None:
    wires = [usual.net.capture(vm, "eth0", f"udp and dst host {VMS[vm]}") for vm in PUBLIC]
    for how in ("plain", "segments", "unchecked"):
        assert ask(usual, "vm1", INSTANCE, 25, 1201, 4, how) == [NOTHING, NOTHING]
    for wire in wires:
        packets = whole(wire.packets())
        assert len(numbers(packets)) == 300
        for packet in packets:
            verify(packet)


def test_tcp_with_ip_options(usual: Gateway) -> None:
    wires = Wires(usual, "vm1")
    code = f"""
import socket
from tests.netns import client
make = client._socket
def _socket(*arguments):
    s = make(*arguments)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\\1" * 4)
    return s
client._socket = _socket
print(client.upload("{SERVER}", {BULK}))
"""
    assert usual.net.python("vm1", code) == "True\n"
    out, _ = wires.verify()
    assert sum(len(packet) for packet in out if packet.ihl == 6) > BULK


@pytest.mark.parametrize("number", [1, 2], ids=["without outer sum", "with outer sum"])
def test_tcp_in_vxlan(usual: Gateway, number: int) -> None:
    wires = Wires(usual, "vm3")
    client = usual.net.client("vm3")
    inner = f"172.16.{number}.1"
    assert client.peer("Tcp", inner).startswith(f"172.16.{number}.2:")
    assert client.echo(inner) == "whole"
    assert client.upload(inner, BULK) is True
    assert client.download(inner, BULK) is True
    for packets in wires.verify():
        ours = [packet for packet in packets if VXLAN in packet and packet[VXLAN].vni == number]
        assert sum(len(packet) for packet in ours) > BULK
        assert {packet[UDP].chksum != 0 for packet in ours} == {number == 2}


def test_udp_in_vxlan_through_snat(usual: Gateway) -> None:
    """One way only: a tunnel's answers are no flow's of the VM."""
    wires = Wires(usual, "vm1")
    code = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    for number in range(50):
        s.sendto(b"%50d" % number, ("172.16.3.1", 5000))
"""
    usual.net.python("vm1", code)
    assert usual.net.client("vm1").echo(SERVER) == "whole"
    out, _ = wires.verify()
    inner = [packet for packet in out if VXLAN in packet and IP in packet[VXLAN]]
    assert len(inner) == 50
    assert 0 not in {packet[UDP].chksum for packet in inner}


# Frames as a machine behind virtio hands them on: with an offset at which a checksum is to be
# finished (PACKET_VNET_HDR, struct virtio_net_hdr).
UNFINISHED = """
import socket, struct, sys
from scapy.all import GRE, IP, TCP, UDP, Ether, checksum, in4_pseudoheader
from scapy.layers.vxlan import VXLAN
to, source, address, kind = sys.argv[1:]
inner = Ether(type=0x800) / IP(src="172.16.9.2", dst="172.16.9.1") / TCP() / (b"inside" * 9)
heads = {
    "IPIP": IP(src=source, dst=address, proto=4),
    "GRE": IP(src=source, dst=address) / GRE(),
    "VXLAN": IP(src=source, dst=address) / UDP(sport=5555, dport=4789) / VXLAN(vni=9),
    "TCP": IP(src=source, dst=address),
}
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
    s.setsockopt(263, 15, 1)
    s.bind(("eth0", 0))
    for number in range(20):
        inner[TCP].sport = 5000 + number if kind != "TCP" else 5000
        inner[IP].id = number
        packet = heads[kind] / (inner if kind == "VXLAN" else inner[TCP] if kind == "TCP" else inner[IP])
        if kind == "VXLAN" and number >= 10:
            # An outer checksum that happens to be what an unfinished one would be
            outer = IP(bytes(packet))
            whole = 0xFFFF ^ checksum(in4_pseudoheader(17, outer, len(outer[UDP])))
            word = (packet[VXLAN].vni // 256 + outer[UDP].chksum - whole) % 0xFFFF
            packet[VXLAN].vni = word << 8 | 9
            outer = IP(bytes(packet))
            assert outer[UDP].chksum == whole
        frame = bytes(Ether(dst=to) / packet)
        # scapy's are finished: take the innermost back to the sum of its pseudo header
        size = len(inner[TCP])
        at = len(frame) - size
        last = inner[IP] if kind != "TCP" else packet[IP]
        part = 0xFFFF ^ checksum(in4_pseudoheader(6, last, size))
        frame = frame[: at + 16] + part.to_bytes(2, "big") + frame[at + 18 :]
        s.send(struct.pack("=BBHHHH", 1, 0, 0, 0, at, 16) + frame)
"""


@without_gro
@pytest.mark.parametrize("kind", ["IPIP", "GRE", "VXLAN", "TCP"])
def test_what_a_machine_leaves_to_its_device(usual: Gateway, kind: str) -> None:
    wires = Wires(usual, "vm3")
    (link,) = json.loads(usual.net.ip("gw", "-json link show dev lan0"))
    usual.net.python("vm3", UNFINISHED, link["address"], VMS["vm3"], SERVER, kind)
    assert usual.net.client("vm3").echo(SERVER) == "whole"
    out, _ = wires.verify()
    assert len([packet for packet in out if b"inside" * 9 in bytes(packet)]) == 20


@without_gro
@pytest.mark.parametrize("vm", PUBLIC)
def test_fragments(usual: Gateway, vm: str) -> None:
    wires = Wires(usual, vm)
    for size in (1473, 5001, 60_000):
        assert usual.net.client(vm).echo(SERVER, size=size) == "whole"
    for packets in wires.verify():
        sizes = sorted(
            packet.len - 28
            for packet in packets
            if packet[UDP].sport == ECHO or packet[UDP].dport == ECHO
        )
        assert sizes == [1473, 5001, 60_000]


ASK = """
import socket, sys
to, port, size, ttl = sys.argv[1], *map(int, sys.argv[2:5])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if sys.argv[5] == "udp" else socket.SOCK_STREAM) as s:
    s.settimeout(3)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
    s.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
    try:
        s.connect((to, port))
        s.send(b"quoted" * (size // 6))
        s.recv(100)
    except OSError as error:
        print(error.errno)
"""


def errors_of(packets: list[Packet], kind: int, code: int) -> list[Packet]:
    """Quotes of the ICMP errors of a kind."""
    return [
        IP(bytes(packet[ICMP].payload))
        for packet in packets
        if packet.proto == 1 and (packet[ICMP].type, packet[ICMP].code) == (kind, code)
    ]


@without_gro
@pytest.mark.parametrize("vm", PUBLIC)
def test_errors_that_come_back_quote_what_was_sent(usual: Gateway, vm: str) -> None:
    """No such port, too many hops, too large: about what a VM sent, from outside."""
    net = usual.net
    net.ip(vm, "route flush cache")
    wires = Wires(usual, vm)
    for to, port, size, ttl, protocol in (
        (SERVER, 9999, 60, 64, "udp"),
        (FAR, 7, 60, 2, "udp"),
        (FAR, 7, 60, 2, "tcp"),
        (FAR, 7, 1440, 64, "udp"),
    ):
        assert net.python(vm, ASK, to, str(port), str(size), str(ttl), protocol).strip()
    net.ip(vm, "route flush cache")  # it has just learnt what is too large
    assert net.client(vm).upload(FAR, BULK) is True
    _, back = wires.verify()
    seen = {(kind, code): errors_of(back, kind, code) for kind, code in ((3, 3), (11, 0), (3, 4))}
    for quotes in seen.values():
        assert {quote.src for quote in quotes} == {VMS[vm]}
    assert {quote.proto for quote in seen[3, 3]} == {17}
    assert {quote.proto for quote in seen[11, 0]} == {6, 17}
    assert {quote.proto for quote in seen[3, 4]} == {6, 17}


@without_gro
@pytest.mark.parametrize("vm", PUBLIC)
def test_errors_that_go_out_quote_what_came(usual: Gateway, vm: str) -> None:
    """The same about what a VM was sent, from the VM and from the gateway's own host."""
    net = usual.net
    wires = Wires(usual, vm)
    if vm == "vm3":
        for port, size, ttl in ((9999, 60, 64), (9998, 60, 1), (9997, 60, 2)):
            net.python("internet", ASK, INSTANCE, str(port), str(size), str(ttl), "udp")
    net.ip("internet", "route flush cache")
    net.ip("gw", "link set lan0 mtu 1300")
    try:
        assert net.client(vm).download(SERVER, BULK) is True
    finally:
        net.ip("gw", "link set lan0 mtu 1500")
        net.ip("internet", "route flush cache")
    out, _ = wires.verify()
    quotes = errors_of(out, 3, 4)
    assert {quote.proto for quote in quotes} == {6}
    assert {quote.dst for quote in quotes} == {PUBLIC[vm]}
    if vm == "vm3":
        for kind, code in ((3, 3), (11, 0)):
            assert {quote.dst for quote in errors_of(out, kind, code)} == {INSTANCE}
