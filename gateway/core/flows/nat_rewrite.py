"""The established packet's rewriting: a flow's addresses and ports put in, checksums by its deltas.

``snat_outbound`` and ``snat_inbound`` take any packet of a flow; what is below them, packets
without IP options. RFC 1624, eqn. 3, in arithmetic modulo 65535 (``packet/view.py`` says why): a
flow has the difference at hand.
"""

from __future__ import annotations

from struct import Struct

from gateway.core.flows.flow import Flow
from gateway.core.packet.view import PacketView, rewrite
from gateway.schema.protocols import TCP, UDP

# A header without IP options, cut where it is rewritten: first to read (x: what is replaced), then
# to write. The rest of the packet follows.
TCP_READ_SOURCE, TCP_WRITE_SOURCE = Struct("!10sH4x4s2x14sH"), Struct("!10sH4s4s2s14sH")
_UDP_READ_SOURCE, _UDP_WRITE_SOURCE = Struct("!10sH4x4s2x4sH"), Struct("!10sH4s4s2s4sH")
TCP_READ_DESTINATION = Struct("!10sH4s4x2s2x12sH")
TCP_WRITE_DESTINATION = Struct("!10sH4s4s2s2s12sH")
_UDP_READ_DESTINATION = Struct("!10sH4s4x2s2x2sH")
_UDP_WRITE_DESTINATION = Struct("!10sH4s4s2s2s2sH")


def tcp_source(packet: bytes, flow: Flow) -> bytes:
    """A TCP packet without IP options, sent from the public side of its flow."""
    head, ip, remote, middle, l4 = TCP_READ_SOURCE.unpack_from(packet)
    return (
        TCP_WRITE_SOURCE.pack(
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


def tcp_destination(packet: bytes, flow: Flow) -> bytes:
    """A TCP packet without IP options, delivered to the private side of its flow."""
    head, ip, remote, port, middle, l4 = TCP_READ_DESTINATION.unpack_from(packet)
    return (
        TCP_WRITE_DESTINATION.pack(
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


def udp_source(packet: bytes, flow: Flow) -> bytes:
    """A UDP packet without IP options, sent from the public side of its flow."""
    head, ip, remote, middle, l4 = _UDP_READ_SOURCE.unpack_from(packet)
    if l4:
        l4 = (l4 + flow.l4_delta) % 0xFFFF or 0xFFFF
    return (
        _UDP_WRITE_SOURCE.pack(
            head, (ip + flow.ip_delta) % 0xFFFF, flow.public, remote, flow.public_port, middle, l4
        )
        + packet[28:]
    )


def udp_destination(packet: bytes, flow: Flow) -> bytes:
    """A UDP packet without IP options, delivered to the private side of its flow."""
    head, ip, remote, port, middle, l4 = _UDP_READ_DESTINATION.unpack_from(packet)
    if l4:
        l4 = (l4 - flow.l4_delta) % 0xFFFF or 0xFFFF
    return (
        _UDP_WRITE_DESTINATION.pack(
            head,
            (ip - flow.ip_delta) % 0xFFFF,
            remote,
            flow.private,
            port,
            flow.private_port,
            middle,
            l4,
        )
        + packet[28:]
    )


def snat_outbound(view: PacketView, flow: Flow) -> bytes:
    """Any packet of a flow, sent from its public side."""
    if view.transport == 20:
        if view.protocol == TCP:
            return tcp_source(view.packet, flow)
        if view.protocol == UDP:
            return udp_source(view.packet, flow)
    port = None if flow.is_port_preserving else flow.public_port
    return rewrite(view, source=True, address=flow.public, port=port)


def snat_inbound(view: PacketView, flow: Flow) -> bytes:
    """Any packet of a flow, delivered to its private side."""
    if view.transport == 20:
        if view.protocol == TCP:
            return tcp_destination(view.packet, flow)
        if view.protocol == UDP:
            return udp_destination(view.packet, flow)
    port = None if flow.is_port_preserving else flow.private_port
    return rewrite(view, source=False, address=flow.private, port=port)
