"""Packets that no socket makes: right ones stay right, absurd ones cost nothing but themselves."""

from __future__ import annotations

import random

import pytest
from scapy.all import IP, Packet, in4_chksum

from tests.netns.gateway import DEFAULT, INSTANCE, Gateway
from tests.netns.topology import SERVER, SERVER2


def arrived(town: Gateway, vm: str, packet: str, expression: str) -> list[Packet]:
    """What of a packet that a VM sends comes to the internet."""
    wire = town.net.capture("internet", "eth0", f"({expression}) and dst host {SERVER}")
    client = town.net.client(vm)
    assert client.craft(packet) is None
    assert client.echo(SERVER2) == "whole"  # by now it has gone its way
    return [frame["IP"] for frame in wire.packets()]


def assert_right_checksums(packet: Packet) -> None:
    fresh = IP(bytes(packet))
    for layer in fresh.layers():
        if hasattr(fresh[layer], "chksum"):
            del fresh[layer].chksum
    assert bytes(IP(bytes(fresh))) == bytes(packet)


@pytest.mark.parametrize(("vm", "public"), [("vm1", DEFAULT), ("vm3", INSTANCE)])
@pytest.mark.parametrize(
    "packet",
    [
        f"IP(dst='{SERVER}')/UDP(sport=4001, dport=4002)/b'odd'",
        f"IP(dst='{SERVER}', options=IPOption_NOP() * 4)/UDP(sport=4003, dport=4002)/b'even'",
        f"IP(dst='{SERVER}', tos=0xb8, id=0, flags='DF')/UDP(sport=4004, dport=4002)",
        f"IP(dst='{SERVER}', options=IPOption_RR())/TCP(sport=4005, dport=4002, flags='S', options=[('MSS', 1460), ('WScale', 7)])",
    ],
)
def test_headers_of_every_length_keep_right_checksums(
    town: Gateway, vm: str, public: str, packet: str
) -> None:
    (seen,) = arrived(town, vm, packet, "port 4002")
    assert seen.src == public
    assert_right_checksums(seen)


def test_a_udp_checksum_of_zero_stays_zero(town: Gateway) -> None:
    packet = f"IP(dst='{SERVER}')/UDP(sport=4011, dport=4012, chksum=0)/b'unchecked'"
    for vm in ("vm1", "vm3"):
        (seen,) = arrived(town, vm, packet, "udp port 4012")
        assert seen["UDP"].chksum == 0


@pytest.mark.parametrize(
    "packet",
    [
        f"IP(dst='{SERVER}', proto=50)/b'encapsulated security payload'",
        f"IP(dst='{SERVER}')/SCTP(sport=1, dport=2)/SCTPChunkInit()",
        f"IP(dst='{SERVER}', proto=253)/b'experiment'",
    ],
)
def test_other_protocols_pass_an_instance_level_public_ip_only(town: Gateway, packet: str) -> None:
    other = "ip and not (udp or tcp or icmp)"
    (seen,) = arrived(town, "vm3", packet, other)
    assert seen.src == INSTANCE
    assert bytes(seen.payload) == bytes(_as_sent(packet).payload)
    assert arrived(town, "vm1", packet, other) == []
    town.event(reason="ProtocolNotSupported", vm="vm1")


def _as_sent(expression: str) -> Packet:
    from scapy import all as scapy

    packet = eval(expression, vars(scapy))
    return IP(bytes(packet))


def test_a_udp_lite_checksum_follows_the_address(town: Gateway) -> None:
    """RFC 3828: it covers the addresses; a coverage of zero is the whole datagram."""
    header = "bytes.fromhex('0fa1 0fa2 0000')"
    content = f"{header} + in4_chksum(136, IP(src='10.0.1.6', dst='{SERVER}'), {header} + b'??light').to_bytes(2, 'big') + b'light'"
    content = content.replace("??", "\\0\\0")
    (seen,) = arrived(town, "vm3", f"IP(dst='{SERVER}', proto=136)/({content})", "ip proto 136")
    assert seen.src == INSTANCE
    assert in4_chksum(136, seen, bytes(seen.payload)) == 0


def absurd_packets(sources: list[str], targets: list[str]) -> str:
    """A scapy expression for many packets with whatever their headers may say."""
    choose = random.Random(2017)
    inner = f"bytes(IP(src='{DEFAULT}', dst='{SERVER}')/UDP(sport=1024, dport=7))"
    packets = []
    for _ in range(150):
        top = f"src='{choose.choice(sources)}', dst='{choose.choice(targets)}', ttl={choose.choice([1, 2, 64])}"
        noise = f"bytes.fromhex('{choose.randbytes(choose.randrange(60)).hex()}')"
        number = choose.randrange(256)
        packets += [
            f"IP({top})/TCP(dport=7, flags={number}, dataofs={number % 16})",
            f"IP({top})/UDP(dport=7, len={choose.randrange(65536)})/{noise}",
            f"IP({top})/ICMP(type={number % 20}, code={number % 5})/{inner}[:{number % 29}]",
            f"IP({top}, proto={number})/{noise}",
        ]
    return f"[{', '.join(packets)}]"


def test_absurd_packets_disturb_nobody(town: Gateway) -> None:
    """From both sides, seeded; ``town`` looks for the engine's mistakes at its end, too."""
    wire = town.net.capture("internet", "eth0", "ip and src net 10.0.0.0/8")
    vm2 = town.net.client("vm2")
    vm2.keep_asking(SERVER2)
    for vm, address in (("vm1", "10.0.1.4"), ("vm3", "10.0.1.6")):
        targets = [SERVER, DEFAULT, INSTANCE, "10.0.1.1"]
        assert town.net.client(vm).craft(absurd_packets([address], targets)) is None
    remotes = [SERVER, "203.0.113.254"]
    assert town.net.client("internet").craft(absurd_packets(remotes, [DEFAULT, INSTANCE])) is None
    (count,) = vm2.stop()
    assert count["sent"] == count["answered"]
    assert town.losses() == {}
    assert town.status()["drops"]["Malformed"] > 0
    assert wire.lines() == []
