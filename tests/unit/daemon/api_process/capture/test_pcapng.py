"""pcapng: what is written is what scapy's reader and our own find (tests/netns: tshark's)."""

from __future__ import annotations

import io

import pytest
from scapy.layers.inet import IP, UDP
from scapy.utils import RawPcapNgReader

from gateway.daemon.api_process.capture.pcapng import (
    LINKTYPE_IPV4,
    Blocks,
    NotPcapngError,
    Statistics,
    interface,
    packet,
    section_header,
    statistics,
)

NOON = 1_769_860_800_123_456_789
DATAGRAMS = [bytes(IP(dst="198.51.100.1") / UDP(sport=1, dport=9) / (b"x" * n)) for n in range(5)]
COMMENTS = ["", "a", "flow=1 vm=vm1", "Größe", "four"]


def stream() -> bytes:
    return b"".join(
        [
            section_header("x86_64", "Linux 6", "snatgw 1", "a comment"),
            interface("inside", "lan0, lan1", 65535),
            interface("outside", "wan0", 65535),
            *(
                packet(n % 2, n % 3, NOON + n, len(data) + n, data, n // 2, said.encode())
                for n, (data, said) in enumerate(zip(DATAGRAMS, COMMENTS, strict=True))
            ),
            statistics(0, NOON, NOON + 10, 5, 2, 3),
            statistics(1, NOON, NOON + 10, 2, 0, 2, "ended=count"),
        ]
    )


def test_scapy_reads_what_was_written() -> None:
    reader = RawPcapNgReader(io.BytesIO(stream()))
    read = list(reader)
    assert [data for data, _ in read] == DATAGRAMS
    for number, (_, about) in enumerate(read):
        assert about.linktype == LINKTYPE_IPV4
        assert (about.tshigh << 32 | about.tslow) == NOON + number
        assert about.wirelen == len(DATAGRAMS[number]) + number
        assert about.direction == number % 3
        said = [comment.decode() for comment in about.comments or []]
        assert said == [COMMENTS[number]]
        assert about.ifname == (b"inside", b"outside")[number % 2]


@pytest.mark.parametrize("step", [1, 3, 7, 64, 10_000])
def test_blocks_come_whole_however_they_are_cut(step: int) -> None:
    blocks, whole, told = Blocks(), b"", []
    data = stream()
    for start in range(0, len(data), step):
        piece, statistics_ = blocks.feed(data[start : start + step])
        whole += piece
        check = Blocks()
        check.feed(whole)
        assert check.rest == 0
        told += statistics_
    assert (whole, blocks.rest, blocks.packets) == (data, 0, 5)
    assert told == [Statistics(0, 2, ""), Statistics(1, 0, "ended=count")]


def test_a_block_that_is_not_whole_is_kept_back() -> None:
    blocks, data = Blocks(), stream()
    piece, told = blocks.feed(data[:-1])
    assert (len(piece) + blocks.rest, told) == (len(data) - 1, [Statistics(0, 2, "")])


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\n", b"\0" * 8, b"\x06\0\0\0\x0d\0\0\0"])
def test_what_is_no_pcapng_is_refused(data: bytes) -> None:
    with pytest.raises(NotPcapngError):
        Blocks().feed(data)
