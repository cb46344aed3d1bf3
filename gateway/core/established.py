"""The common case: a data packet of a live flow, looked up, counted and rewritten in one go.

Nearly every packet ends here, so this is written for speed: two closures with everything that they
need at hand, and no object that is not kept. They take what is exactly the common case (no IP
options, no fragment, headers that hold together, an established flow; with ACK and without SYN, FIN
and RST) and leave everything else to ``otherwise``, where it meets the engine's stages one by one.
``PacketView.parse`` has the same checks in full, with their reasons, and ``nat_rewrite.tcp_source``
and ``tcp_destination`` have the same rewriting: calling them would cost what it costs to note what
a segment acknowledges (``sequence.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from gateway.core.flows.flow import Flow
from gateway.core.flows.nat_rewrite import (
    TCP_READ_DESTINATION,
    TCP_READ_SOURCE,
    TCP_WRITE_DESTINATION,
    TCP_WRITE_SOURCE,
    udp_destination,
    udp_source,
)
from gateway.core.flows.table import FlowTable
from gateway.core.flows.tcp import Side, State
from gateway.schema.protocols import TCP, UDP

PacketHandler = Callable[[bytes, float], bytes | None]
"""Packet and time to verdict: the packet to send on, or None: dropped."""
HandOver = Callable[[Flow], None]

# Offsets as in a packet without IP options: version/IHL, total length, fragment field; then
# TCP's acknowledgement, data offset and flags, or UDP's length.
_TCP_HEAD = Struct("!BxHxxH20xIBB")
_UDP_HEAD = Struct("!BxHxxH16xH")


def established_outbound(
    table: FlowTable, otherwise: PacketHandler, hand_over: HandOver, busy: int
) -> PacketHandler:
    """For packets in the original direction: the source becomes the flow's public side.

    A UDP flow is offloaded with its packet number ``busy`` (``offload.NEVER``: never).
    """
    tcp_flow, udp_flow = table.tcp_original.get, table.udp_original.get
    tcp_head, udp_head = _TCP_HEAD.unpack_from, _UDP_HEAD.unpack_from
    read, write = TCP_READ_SOURCE.unpack_from, TCP_WRITE_SOURCE.pack
    acknowledgements = table.numbers.acknowledged[Side.ORIGINAL]
    alive = State.ESTABLISHED
    tcp, udp = TCP, UDP

    def outbound(packet: bytes, now: float) -> bytes | None:
        size = len(packet)
        if size < 28:
            return otherwise(packet, now)
        protocol = packet[9]
        if protocol == tcp:
            flow = tcp_flow(packet[12:24])
            if flow is None or size < 40 or flow.state is not alive:
                return otherwise(packet, now)
            version_ihl, total, fragment, acknowledged, offset, flags = tcp_head(packet)
            if (
                version_ihl != 0x45
                or total != size
                or fragment & 0x3FFF
                or flags & 23 != 16
                or not 20 <= offset >> 2 & 0x3C <= size - 20
            ):
                return otherwise(packet, now)
            flow.packets_out += 1
            flow.bytes_out += size
            flow.last_seen = now
            acknowledgements[flow.slot] = acknowledged
            head, ip, remote, middle, l4 = read(packet)
            return (
                write(
                    head,
                    (ip + flow.ip_delta) % 0xFFFF,
                    flow.public,
                    remote,
                    flow.public_port,
                    middle,
                    (l4 + flow.l4_delta) % 0xFFFF,
                )
                + packet[38:]
            )
        if protocol != udp:
            return otherwise(packet, now)
        flow = udp_flow(packet[12:24])
        if flow is None:
            return otherwise(packet, now)
        version_ihl, total, fragment, length = udp_head(packet)
        if (
            version_ihl != 0x45
            or total != size
            or fragment & 0x3FFF
            or not 8 <= length <= size - 20
        ):
            return otherwise(packet, now)
        flow.packets_out += 1
        flow.bytes_out += size
        flow.last_seen = now
        if flow.packets_out == busy:
            hand_over(flow)
        return udp_source(packet, flow)

    return outbound


def established_inbound(
    table: FlowTable, otherwise: PacketHandler, hand_over: HandOver, busy: int
) -> PacketHandler:
    """For replies: the destination becomes the flow's private side."""
    tcp_flow, udp_flow = table.tcp_reply.get, table.udp_reply.get
    tcp_head, udp_head = _TCP_HEAD.unpack_from, _UDP_HEAD.unpack_from
    read, write = TCP_READ_DESTINATION.unpack_from, TCP_WRITE_DESTINATION.pack
    acknowledgements = table.numbers.acknowledged[Side.REPLY]
    alive = State.ESTABLISHED
    tcp, udp = TCP, UDP

    def inbound(packet: bytes, now: float) -> bytes | None:
        size = len(packet)
        if size < 28:
            return otherwise(packet, now)
        protocol = packet[9]
        if protocol == tcp:
            flow = tcp_flow(packet[12:24])
            if flow is None or size < 40 or flow.state is not alive:
                return otherwise(packet, now)
            version_ihl, total, fragment, acknowledged, offset, flags = tcp_head(packet)
            if (
                version_ihl != 0x45
                or total != size
                or fragment & 0x3FFF
                or flags & 23 != 16
                or not 20 <= offset >> 2 & 0x3C <= size - 20
            ):
                return otherwise(packet, now)
            flow.packets_in += 1
            flow.bytes_in += size
            flow.last_seen = now
            acknowledgements[flow.slot] = acknowledged
            head, ip, remote, port, middle, l4 = read(packet)
            return (
                write(
                    head,
                    (ip - flow.ip_delta) % 0xFFFF,
                    remote,
                    flow.private,
                    port,
                    flow.private_port,
                    middle,
                    (l4 - flow.l4_delta) % 0xFFFF,
                )
                + packet[38:]
            )
        if protocol != udp:
            return otherwise(packet, now)
        flow = udp_flow(packet[12:24])
        if flow is None or flow.state is not alive:  # a first reply establishes
            return otherwise(packet, now)
        version_ihl, total, fragment, length = udp_head(packet)
        if (
            version_ihl != 0x45
            or total != size
            or fragment & 0x3FFF
            or not 8 <= length <= size - 20
        ):
            return otherwise(packet, now)
        flow.packets_in += 1
        flow.bytes_in += size
        flow.last_seen = now
        if flow.packets_in == busy:
            hand_over(flow)
        return udp_destination(packet, flow)

    return inbound
