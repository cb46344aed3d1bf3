"""The guard's program, run packet by packet; tests/netns/datapath/test_guard.py has the kernel's."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from scapy.all import ICMP, IP, TCP, UDP, Ether, Packet

from gateway.datapath.guard.guard_program import DROP, GO_ON, INSTRUCTION, assemble

VNET = [IPv4Network("10.0.0.0/16"), IPv4Network("10.1.0.0/16"), IPv4Network("192.168.7.0/24")]
PROBES = [IPv4Network("168.63.129.16/32")]
VM, PUBLIC, REMOTE = "10.0.1.4", "203.0.113.10", "198.51.100.1"
BASE = 0xFFF00000


def run(program: bytes, packet: bytes, header: int = 0) -> int:
    """Classic BPF as linux/Documentation/networking/filter.rst has it, for packets of which
    the IP header begins after ``header`` bytes."""
    accumulator = index = place = 0
    memory: dict[int, int] = {}
    code = list(INSTRUCTION.iter_unpack(program))
    while True:
        opcode, true, false, operand = code[place]
        place += 1
        match opcode:
            case 0x20 | 0x28 | 0x30 | 0x40 | 0x50 | 0xB1:
                width = {0x00: 4, 0x08: 2, 0x10: 1}[opcode & 0x18]
                start = operand if operand < BASE else operand - BASE + header
                start += index if opcode in (0x40, 0x50) else 0
                if start + width > len(packet):
                    return 0
                loaded = int.from_bytes(packet[start : start + width], "big")
                if opcode == 0xB1:
                    index = (loaded & 15) * 4
                else:
                    accumulator = loaded
            case 0x60:
                accumulator = memory[operand]
            case 0x02:
                memory[operand] = accumulator
            case 0x54:
                accumulator &= operand
            case 0x15:
                place += true if accumulator == operand else false
            case 0x45:
                place += true if accumulator & operand else false
            case 0x06:
                return operand
            case _:
                raise AssertionError(f"{opcode:#x} is not used")


def verdict(packet: Packet) -> int:
    plain = run(assemble(VNET, PROBES, token=7), bytes(packet))
    framed = assemble(VNET, PROBES, token=7, ethernet=True)
    assert run(framed, bytes(Ether() / packet), header=14) == plain
    return plain


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=VM, dst=REMOTE) / UDP(),
        IP(src="10.1.255.255", dst=REMOTE) / TCP(),
        IP(src="192.168.7.9", dst=REMOTE, proto=47),
        IP(src=REMOTE, dst=VM) / UDP(),
        IP(src=PUBLIC, dst="192.168.7.0") / TCP(),
        IP(src="168.63.129.16", dst=REMOTE) / TCP(),
        IP(src=VM, dst=REMOTE, frag=100) / b"rest",
        IP(src=VM, dst=REMOTE, options=[b"\x01" * 4]) / UDP(),
        IP(src=PUBLIC, dst=REMOTE) / ICMP(type=3, code=4) / IP(src=REMOTE, dst=VM) / UDP(),
        IP(src=PUBLIC, dst=REMOTE) / ICMP(type=11) / IP(src=VM, dst=REMOTE) / TCP(),
        IP(src=PUBLIC, dst=REMOTE, options=[b"\x01" * 8])
        / ICMP(type=3)
        / IP(src=REMOTE, dst="192.168.7.1")
        / UDP(),
    ],
    ids=lambda packet: packet.summary(),
)
def test_what_has_an_address_of_the_network_does_not_leave(packet: Packet) -> None:
    assert verdict(packet) == DROP


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=PUBLIC, dst=REMOTE) / UDP(),
        IP(src="10.2.0.1", dst="192.168.8.1") / UDP(),  # this host's own, in other networks
        IP(src=PUBLIC, dst="168.63.129.16") / UDP(),
        IP(src=PUBLIC, dst=REMOTE) / ICMP(type=8) / (b"\0" * 12 + bytes([10, 0, 1, 4]) * 8),
        IP(src=PUBLIC, dst=REMOTE) / ICMP(type=3) / IP(src=REMOTE, dst=PUBLIC) / UDP(),
        IP(src=PUBLIC, dst=REMOTE, frag=1, proto=1) / (b"\x03" + b"\0" * 19 + bytes([10, 0, 1, 4])),
    ],
    ids=lambda packet: packet.summary(),
)
def test_everything_else_goes_on_to_the_next_filter(packet: Packet) -> None:
    assert verdict(packet) == GO_ON


def test_prefixes_of_one_mask_and_of_many() -> None:
    many = [IPv4Network(f"10.{n}.0.0/{16 + n % 9}") for n in range(60)]
    program = assemble(many)
    for network in many:
        for address in (network[0], network[-1]):
            assert run(program, bytes(IP(src=str(address), dst=REMOTE) / UDP())) == DROP
        beyond = network[-1] + 1
        inside = any(beyond in other for other in many)
        packet = bytes(IP(src=REMOTE, dst=str(beyond)) / UDP())
        assert run(program, packet) == (DROP if inside else GO_ON)


def test_more_than_a_program_can_hold_is_an_error() -> None:
    with pytest.raises(ValueError, match="address prefixes"):
        assemble(IPv4Network(f"10.{n >> 8}.{n & 255}.0/32") for n in range(600))
