"""Rewriting: every field that a flow changes, no other, and checksums as scapy computes them."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.packet import Raw

from gateway.core.flows.flow import Flow
from gateway.core.flows.nat_rewrite import snat_inbound, snat_outbound
from gateway.core.packet.view import PacketView
from gateway.schema.protocols import UDP as UDP_NUMBER
from tests.packets import build, describe, wrong_checksums
from tests.unit.core.flows.making import PUBLIC, flow

FLOWS = {"tcp": flow(40000, 1024), "udp": flow(40000, 1024, protocol=UDP_NUMBER)}
OUT = "10.0.1.4:40000 > 198.51.100.1:443"
SENT = "203.0.113.10:1024 > 198.51.100.1:443"
BACK = "198.51.100.1:443 > 203.0.113.10:1024"
DELIVERED = "198.51.100.1:443 > 10.0.1.4:40000"


def view_of(packet: bytes) -> PacketView:
    view = PacketView.parse(packet)
    assert isinstance(view, PacketView)
    return view


@pytest.mark.parametrize("name", ["tcp", "udp"])
@pytest.mark.parametrize("size", [0, 1, 1000, 1001])
def test_both_directions_with_any_payload(name: str, size: int) -> None:
    end = f" len={size}" if size else ""
    middle = " ack" if name == "tcp" else ""
    sent = snat_outbound(view_of(build(f"{name} {OUT}{middle}{end}")), FLOWS[name])
    assert describe(sent) == f"{name} {SENT}{middle}{end}"
    assert wrong_checksums(sent) == []
    back = snat_inbound(view_of(build(f"{name} {BACK}{middle}{end}")), FLOWS[name])
    assert describe(back) == f"{name} {DELIVERED}{middle}{end}"
    assert wrong_checksums(back) == []


@pytest.mark.parametrize("name", ["tcp", "udp"])
def test_there_and_back_is_the_packet_that_it_was(name: str) -> None:
    """Everything else is left: identification, TTL, options of TCP, payload."""
    l4 = TCP(sport=40000, dport=443, flags="PA", options=[("MSS", 1460)]) if name == "tcp" else (
        UDP(sport=40000, dport=443)
    )  # fmt: skip
    packet = bytes(IP(src="10.0.1.4", dst="198.51.100.1", id=7, ttl=3, tos=0xB8) / l4 / Raw(b"abc"))
    sent = snat_outbound(view_of(packet), FLOWS[name])
    turned = sent[:12] + sent[16:20] + sent[12:16] + sent[22:24] + sent[20:22] + sent[24:]
    back = snat_inbound(view_of(turned), FLOWS[name])
    assert back[:12] + back[16:20] + back[12:16] + back[22:24] + back[20:22] + back[24:] == packet


@pytest.mark.parametrize("name", ["tcp", "udp"])
def test_a_packet_with_ip_options_is_rewritten_behind_them(name: str) -> None:
    l4 = TCP(sport=40000, dport=443, flags="A") if name == "tcp" else UDP(sport=40000, dport=443)
    options = [IPOption_NOP() for _ in range(4)]
    packet = bytes(IP(src="10.0.1.4", dst="198.51.100.1", options=options) / l4)
    sent = snat_outbound(view_of(packet), FLOWS[name])
    seen = IP(sent)
    assert (seen.src, seen.sport, seen.dst, seen.dport) == (
        "203.0.113.10", 1024, "198.51.100.1", 443,
    )  # fmt: skip
    assert sent[20:24] == packet[20:24]
    assert wrong_checksums(sent) == []


def test_a_datagram_without_a_checksum_gets_none() -> None:
    packet = build(f"udp {OUT} len=4")
    unsummed = packet[:26] + bytes(2) + packet[28:]
    assert snat_outbound(view_of(unsummed), FLOWS["udp"])[26:28] == bytes(2)


def test_a_datagrams_checksum_never_becomes_none() -> None:
    """A sum of 0 stands as 0xFFFF on the wire: 0 would say that there is none (RFC 768)."""
    public, ports = IP(src="203.0.113.10", dst="198.51.100.1"), UDP(sport=1024, dport=443)
    completing = bytes(public / ports / Raw(bytes(2)))[26:28]
    private = bytes(
        IP(src="10.0.1.4", dst="198.51.100.1") / UDP(sport=40000, dport=443) / Raw(completing)
    )
    assert snat_outbound(view_of(private), FLOWS["udp"])[26:28] == b"\xff\xff"


def test_an_echo_keeps_its_identifier_where_addresses_change_alone() -> None:
    echo = flow(4660, 4660, protocol=1, remote_port=0)
    sent = snat_outbound(view_of(build("echo 10.0.1.4 > 198.51.100.1 id=4660 len=8")), echo)
    assert describe(sent) == "echo 203.0.113.10 > 198.51.100.1 id=4660 len=8"
    assert wrong_checksums(sent) == []
    back = snat_inbound(view_of(build("echo-reply 198.51.100.1 > 203.0.113.10 id=4660")), echo)
    assert describe(back) == "echo-reply 198.51.100.1 > 10.0.1.4 id=4660"


def test_an_echo_gets_another_identifier_where_it_is_translated() -> None:
    echo = flow(4660, 1024, protocol=1, remote_port=0)
    sent = snat_outbound(view_of(build("echo 10.0.1.4 > 198.51.100.1 id=4660 len=8")), echo)
    assert describe(sent) == "echo 203.0.113.10 > 198.51.100.1 id=1024 len=8"
    assert wrong_checksums(sent) == []


@pytest.mark.parametrize("protocol", [47, 50])
def test_a_protocol_without_ports_changes_its_address_alone(protocol: int) -> None:
    plain: Flow = flow(0, 0, protocol=protocol, remote_port=0)
    packet = bytes(IP(src="10.0.1.4", dst="198.51.100.1", proto=protocol) / Raw(b"12345678"))
    sent = snat_outbound(view_of(packet), plain)
    assert sent[12:16] == PUBLIC
    assert sent[16:] == packet[16:]
    assert wrong_checksums(sent) == []
