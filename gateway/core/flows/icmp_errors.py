"""ICMP errors that quote a translated packet (RFC 5508, section 4).

An error about a packet of a live flow is translated like the flow, and so is the packet that it
quotes: addresses, port or identifier, the quoted checksums, and the error's own. That is what
makes path MTU discovery and traceroute work through a NAT. An error changes neither the flow's
state nor its idle time (RFC 5508, REQ-8).

No security group evaluates an error, so it must be one: short, complete, addressed to the sender of
the packet that it quotes, and from a host that may report it. From outside that is any router; from
inside it is the VM that the packet was for: there is no router between this gateway and a VM, and
what the gateway itself says is known as such (``IngressPath.LOCAL_ERROR``).

A quote need not be whole: eight bytes of the transport are enough (RFC 792), which have the ports
but, for TCP, not the checksum. What is not there is not updated.
"""

from __future__ import annotations

from gateway.core.flows.flow import Flow
from gateway.core.flows.table import FlowLookup
from gateway.core.packet.view import (
    CHECKSUM_OFFSET,
    PORTED,
    PacketView,
    Rewriter,
    query_ports,
    sums_to_nothing,
)
from gateway.schema.protocols import ICMP, TCP, UDP

ERROR_HEADER = 8
LONGEST = 576
"""Bytes of the IP packet that an error is, at most (RFC 1812, 4.3.2.3)."""


class Quote:
    """The packet inside an ICMP error: offsets into the outer packet, and its flow key."""

    __slots__ = ("end", "key", "offset", "protocol", "transport")

    def __init__(self, offset: int, transport: int, end: int, protocol: int, key: bytes) -> None:
        self.offset = offset  # of the quoted IP header
        self.transport = transport  # of the quoted transport header
        self.end = end
        self.protocol = protocol
        self.key = key  # in the direction in which the quoted packet went


def quoted(view: PacketView) -> Quote | None:
    """The packet that an ICMP error quotes, or None if too little of it is there to name a flow."""
    packet, offset = view.packet, view.transport + ERROR_HEADER
    end = len(packet)
    if end < offset + 20:
        return None
    transport = offset + ((packet[offset] & 0x0F) << 2)
    if packet[offset] >> 4 != 4 or transport < offset + 20 or end < transport + 8:
        return None
    if (packet[offset + 6] << 8 | packet[offset + 7]) & 0x1FFF:
        return None  # a later fragment names no ports
    protocol = packet[offset + 9]
    if protocol == ICMP:
        ports = query_ports(packet[transport], packet[transport + 4 : transport + 6])
        if ports is None:
            return None  # no error is sent about an error (RFC 1122, 3.2.2)
    else:
        ports = packet[transport : transport + 4] if protocol in PORTED else b"\0\0\0\0"
    key = packet[offset + 12 : offset + 20] + ports
    if protocol not in (TCP, UDP):
        key += bytes((protocol,))
    return Quote(offset, transport, end, protocol, key)


def is_intact(view: PacketView, quote: Quote) -> bool:
    """Whether an error is as short as it must be, and its checksums are right (RFC 5508, REQ-3).

    Those of the error and of the quoted IP header; the quoted transport's is not checked.
    """
    packet = view.packet
    return (
        len(packet) <= LONGEST
        and sums_to_nothing(packet[quote.offset : quote.transport])
        and sums_to_nothing(packet[view.transport :])
    )


def goes_back(view: PacketView, quote: Quote) -> bool:
    """Whether an error goes to the sender of the packet that it quotes (RFC 1122, 3.2.2)."""
    return view.destination == quote.key[0:4]


def is_from_receiver(view: PacketView, quote: Quote) -> bool:
    """Whether it comes from where that packet went."""
    return view.source == quote.key[4:8]


def quoted_addresses(view: PacketView) -> tuple[bytes, bytes]:
    """Source and destination of what an error quotes, however little that is; empty: not there."""
    at = view.transport + ERROR_HEADER + 12
    return view.packet[at : at + 4], view.packet[at + 4 : at + 8]


def reversed_key(key: bytes) -> bytes:
    """The key of the packet that goes the other way."""
    return key[4:8] + key[0:4] + key[10:12] + key[8:10] + key[12:]


def flow_of_sent(table: FlowLookup, quote: Quote) -> Flow | None:
    """The flow of a packet that left for outside, as the outside saw it, and quotes it."""
    return table.replies(quote.protocol).get(reversed_key(quote.key))


def flow_of_received(table: FlowLookup, quote: Quote) -> Flow | None:
    """The flow of a packet that was delivered inside, as the inside saw it, and quotes it."""
    return table.originals(quote.protocol).get(reversed_key(quote.key))


def to_inside(view: PacketView, quote: Quote, flow: Flow) -> bytes:
    """An error from outside about a packet of ``flow``, for the VM that sent that packet."""
    rewriter = Rewriter(view.packet)
    rewriter.put(16, flow.original[0:4], 10)
    port = None if flow.is_port_preserving else flow.original[8:10]
    _rewrite_quote(rewriter, view, quote, 12, flow.original[0:4], 0, port)
    return rewriter.packet()


def to_outside(view: PacketView, quote: Quote, flow: Flow, *, keep_source: bool) -> bytes:
    """An error from inside about a packet that ``flow`` delivered, for the remote that sent it.

    ``keep_source``: the error is the gateway's own, from an address that the outside may see.
    """
    rewriter = Rewriter(view.packet)
    if not keep_source:
        rewriter.put(12, flow.reply[4:8], 10)
    port = None if flow.is_port_preserving else flow.reply[10:12]
    _rewrite_quote(rewriter, view, quote, 16, flow.reply[4:8], 2, port)
    return rewriter.packet()


def _rewrite_quote(
    rewriter: Rewriter,
    view: PacketView,
    quote: Quote,
    address_place: int,
    address: bytes,
    port_place: int,
    port: bytes | None,
) -> None:
    """Write the other side's address and port into the quote, keeping three checksums.

    ``port`` None: the flow translates none.

    The quoted IP header's and the quoted transport's (where it is there) follow the change; the
    error's own covers all of these bytes, the two checksums included, and follows last.
    """
    offset, transport, protocol = quote.offset, quote.transport, quote.protocol
    before = bytes(rewriter.buffer[offset : quote.end])
    rewriter.put(offset + address_place, address, offset + 10)
    checksum, field = 0, -1
    if protocol == ICMP:
        checksum, field = transport + 2, transport + 4
    elif protocol in CHECKSUM_OFFSET:
        checksum = transport + CHECKSUM_OFFSET[protocol]
        if protocol in (TCP, UDP):
            field = transport + port_place
    present = bool(checksum) and checksum + 2 <= quote.end
    if protocol == UDP and present and not rewriter.word(checksum):
        present = False  # sent without a checksum
    sums = (checksum,) if present else ()
    if protocol != ICMP and present:
        # The pseudo header has the address too.
        old = int.from_bytes(before[address_place : address_place + 4], "big")
        rewriter.adjust(checksum, old - int.from_bytes(address, "big"))
    if port is not None and field >= 0:
        rewriter.put(field, port, *sums)
    if protocol == UDP and present and not rewriter.word(checksum):
        rewriter.set_word(checksum, 0xFFFF)
    # An even number of bytes is one number modulo 65535; an odd last byte did not change.
    length = len(before) & ~1
    after = bytes(rewriter.buffer[offset : offset + length])
    change = int.from_bytes(before[:length], "big") - int.from_bytes(after, "big")
    rewriter.adjust(view.transport + 2, change)
