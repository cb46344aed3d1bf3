"""Checksums computed in full, against scapy's own."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.packet import Raw

from gateway.core.packet.view import completed


@pytest.mark.parametrize("size", [0, 1, 2, 37, 1448, 1449, 65_160])
@pytest.mark.parametrize("layer", [TCP, UDP])
@pytest.mark.parametrize("options", [[], [IPOption_NOP()] * 4])
def test_any_size_and_header(layer: type, size: int, options: list[object]) -> None:
    head = IP(src="203.0.113.10", dst="198.51.100.1", options=options)
    packet = bytes(head / layer(sport=1024, dport=443) / Raw(bytes(n % 251 for n in range(size))))
    at = (packet[0] & 15) * 4 + (16 if layer is TCP else 6)
    unfinished = packet[:at] + b"\x12\x34" + packet[at + 2 :]
    assert completed(unfinished) == packet


def test_a_sum_of_zero_is_written_as_ones_in_udp() -> None:
    wanted = None
    for word in range(1 << 16):
        raw = word.to_bytes(2, "big")
        packet = bytes(
            IP(src="203.0.113.10", dst="198.51.100.1") / UDP(sport=1, dport=2) / Raw(raw)
        )
        if packet[26:28] == b"\xff\xff":
            wanted = packet
            break
    assert wanted is not None
    assert completed(wanted[:26] + b"\0\0" + wanted[28:]) == wanted


@pytest.mark.parametrize(
    "packet", [bytes(IP(proto=99) / Raw(b"abcdefgh")), bytes(IP() / Raw(b"abc"))]
)
def test_what_has_no_such_field_is_left_alone(packet: bytes) -> None:
    assert completed(packet) is packet
