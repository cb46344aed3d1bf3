"""What is on the wires behind the gateway, each checksum of it computed again by scapy."""

from __future__ import annotations

from typing import Any

from scapy.all import IP, Packet, checksum, in4_chksum
from scapy.layers.vxlan import VXLAN

from tests.netns.gateway import DEFAULT, INSTANCE, Gateway
from tests.netns.topology import OUTSIDE, VMS

IPIP, GRE = 4, 47
PUBLIC = {"vm1": DEFAULT, "vm3": INSTANCE}  # through SNAT and through an address of its own


class Wires:
    """What of a VM's traffic is on the wires behind the gateway, from here on."""

    def __init__(self, gateway: Gateway, vm: str) -> None:
        public, private = PUBLIC[vm], VMS[vm]
        ours = f"src host {public} or (icmp and src host {OUTSIDE})"
        self.outside = gateway.net.capture("internet", "eth0", f"ip and ({ours})")
        self.inside = gateway.net.capture(vm, "eth0", f"ip and dst host {private}")

    def verify(self) -> tuple[list[Packet], list[Packet]]:
        """Every checksum is right; what went out and what came in, whole."""
        out, back = (whole(wire.packets()) for wire in (self.outside, self.inside))
        for packet in (*out, *back):
            verify(packet)
        return out, back


def whole(frames: list[Packet]) -> list[Packet]:
    """IP packets; fragments put together, each with a right header of its own."""
    packets: list[Packet] = []
    parts: dict[Any, Any] = {}
    for frame in frames:
        packet = frame[IP]
        if not packet.flags.MF and not packet.frag:
            packets.append(packet)
            continue
        verify_header(packet)
        key = (packet.src, packet.dst, packet.id)
        content = bytes(packet)[packet.ihl * 4 : packet.len]
        parts.setdefault(key, {})[packet.frag * 8] = (content, packet)
    for pieces in parts.values():
        data = b"".join(pieces[at][0] for at in sorted(pieces))
        head = pieces[0][1].copy()
        head.remove_payload()
        head.flags, head.frag = 0, 0
        head.len = head.chksum = None
        packets.append(IP(bytes(head / data)))
    return packets


def verify_header(packet: Packet) -> None:
    assert checksum(bytes(packet)[: packet.ihl * 4]) == 0, f"IP: {packet!r}"


def verify(packet: Packet) -> None:
    """Of an IP packet, and of what is in it."""
    verify_header(packet)
    content = bytes(packet)[packet.ihl * 4 : packet.len]
    if packet.proto in (6, 17):
        unchecked = packet.proto == 17 and content[6:8] == b"\0\0"
        assert unchecked or in4_chksum(packet.proto, packet, content) == 0, f"{packet!r}"
    if packet.proto == 1:
        assert checksum(content) == 0, f"ICMP: {packet!r}"
        if content[0] in (3, 11, 12):
            quoted = IP(content[8:])
            verify_header(quoted)
            if quoted.len <= len(content) - 8:
                verify(quoted)
    if packet.proto == IPIP:
        verify(IP(content))
    if packet.proto == GRE:
        verify(IP(content[4:]))  # without options
    if VXLAN in packet and IP in packet[VXLAN]:
        verify(packet[VXLAN][IP])
