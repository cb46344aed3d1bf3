"""IPv4 packets as bytes: one check, then views that cannot fail; rewriting with RFC 1624 checksums.

``PacketView.parse`` looks once at everything that later code trusts. What does not pass is dropped
as malformed. Rewriting changes one address and one port, the IP checksum and the transport's, and
nothing else; a checksum that was wrong stays wrong, so that the receiver still sees it.

Checksum arithmetic is done modulo 65535: a ones' complement sum is that, and a checksum over data
that is not all zero (an IP header, a pseudo header) is never 0xffff, so the result of ``%`` is the
canonical form (RFC 1624, section 3). UDP is the exception that writes 0 as 0xffff, and whose 0
means "no checksum" and stays (RFC 768).
"""

from __future__ import annotations

from struct import Struct
from typing import Self

from gateway.schema.protocols import ICMP, TCP, UDP

# Where the transport's checksum stands, for those that sum the pseudo header too. Protocols that
# are not here (GRE, ESP, SCTP) do not notice a change of address.
DCCP, UDP_LITE = 33, 136
CHECKSUM_OFFSET = {TCP: 16, UDP: 6, DCCP: 6, UDP_LITE: 6}
PORTED = frozenset({TCP, UDP, DCCP, UDP_LITE, 132})  # 132: SCTP
MINIMUM_TRANSPORT = {TCP: 20, UDP: 8, ICMP: 8, DCCP: 12, UDP_LITE: 8, 132: 12}

ECHO_REPLY, ECHO_REQUEST = 0, 8
UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM = 3, 11, 12
TIMESTAMP_REQUEST, TIMESTAMP_REPLY = 13, 14  # RFC 792
ICMP_QUERIES = frozenset({ECHO_REQUEST, TIMESTAMP_REQUEST})
# What stands in the place of the other side's port: it keeps the two kinds of query apart.
_QUERIES = {ECHO_REQUEST: b"\0\0", TIMESTAMP_REQUEST: b"\0\1"}
_REPLIES = {ECHO_REPLY: b"\0\0", TIMESTAMP_REPLY: b"\0\1"}
ICMP_ERRORS = frozenset({UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM})


def query_ports(kind: int, identifier: bytes) -> bytes | None:
    """What stands in a key in the place of ports for an ICMP query or its reply; None: neither.

    The side that asks has the identifier in the place of its port.
    """
    if kind in _QUERIES:
        return identifier + _QUERIES[kind]
    return _REPLIES[kind] + identifier if kind in _REPLIES else None


_IP_HEAD = Struct("!BxHxxHxB")  # version and IHL, total length, fragment field, protocol
_SUM = Struct("!H")
_NUMBERS = Struct("!II")  # TCP's, behind its ports


class PacketView:
    """An IPv4 packet whose headers were checked. Offsets are into ``packet``."""

    __slots__ = ("destination", "kind", "packet", "ports", "protocol", "source", "transport")

    def __init__(self, packet: bytes, protocol: int, transport: int) -> None:
        self.packet = packet
        self.protocol = protocol
        self.transport = transport  # offset of what follows the IP header
        self.source = packet[12:16]
        self.destination = packet[16:20]
        # For ICMP the type; for TCP the flags; otherwise 0.
        self.kind = 0
        if protocol == ICMP:
            self.kind = packet[transport]
            # What is neither a query nor a reply has a key that no flow can have.
            identifier = packet[transport + 4 : transport + 6]
            self.ports = query_ports(self.kind, identifier) or b"\xff\xff\xff\xff"
        elif protocol in PORTED:
            self.ports = packet[transport : transport + 4]
            if protocol == TCP:
                self.kind = packet[transport + 13]
        else:
            self.ports = b"\0\0\0\0"

    @classmethod
    def parse(cls, packet: bytes) -> Self | None:
        """A view of ``packet``, or None if its headers do not hold together.

        Checked: version, IHL, total length against what is there, room for the transport's header,
        TCP data offset, UDP length. Bytes after the total length are dropped too: the kernel trims
        them before its hooks.
        """
        size = len(packet)
        if size < 20:
            return None
        version_ihl, total, fragment, protocol = _IP_HEAD.unpack_from(packet)
        transport = (version_ihl & 0x0F) << 2
        if version_ihl >> 4 != 4 or transport < 20 or total != size or transport > size:
            return None
        room = size - transport
        if fragment & 0x1FFF:
            # A later fragment has no transport header: a view of its addresses alone.
            return cls(packet, -1, transport)
        if room < MINIMUM_TRANSPORT.get(protocol, 0):
            return None
        if protocol == TCP and not 20 <= packet[transport + 12] >> 2 & 0x3C <= room:
            return None
        if protocol == UDP and not fragment & 0x2000:
            length = packet[transport + 4] << 8 | packet[transport + 5]
            if not 8 <= length <= room:
                return None
        return cls(packet, protocol, transport)

    @property
    def is_fragment(self) -> bool:
        """Whether this is a part of a datagram: more follow, or some came before."""
        return bool((self.packet[6] << 8 | self.packet[7]) & 0x3FFF)

    @property
    def numbers(self) -> tuple[int, int]:
        """Of a TCP segment: its sequence number and what it acknowledges."""
        if self.protocol != TCP:
            return 0, 0
        sequence, acknowledged = _NUMBERS.unpack_from(self.packet, self.transport + 4)
        return sequence, acknowledged

    @property
    def key(self) -> bytes:
        """The flow table's key in the direction of this packet."""
        key = self.source + self.destination + self.ports
        return key if self.protocol in (TCP, UDP) else key + bytes((self.protocol,))


def completed(packet: bytes) -> bytes:
    """A packet of TCP or UDP with its transport checksum computed in full (RFC 9293, 768).

    For those whose sender left that to a device: their field holds a part of the sum only.
    """
    transport = (packet[0] & 0x0F) << 2
    protocol, size = packet[9], len(packet) - transport
    if protocol not in (TCP, UDP) or size < 8:
        return packet
    at = transport + CHECKSUM_OFFSET[protocol]
    if at + 2 > len(packet):
        return packet
    buffer = bytearray(packet)
    _SUM.pack_into(buffer, at, 0)
    words = int.from_bytes
    total = words(memoryview(buffer)[transport:], "big") << 8 * (size & 1)
    total = (total + words(packet[12:20], "big") + protocol + size) % 0xFFFF
    # 0 stands for "no checksum" in UDP and for itself, as 0xFFFF does, in TCP.
    _SUM.pack_into(buffer, at, 0xFFFF - total)
    return bytes(buffer)


def sums_to_nothing(data: bytes) -> bool:
    """Whether bytes with their checksum among them are right."""
    return (int.from_bytes(data, "big") << 8 * (len(data) & 1)) % 0xFFFF == 0


def has_right_checksum(view: PacketView) -> bool:
    """Whether a TCP segment's checksum is right, or is the part of one that a device completes."""
    packet, transport = view.packet, view.transport
    pseudo = int.from_bytes(packet[12:20], "big") + TCP + len(packet) - transport
    field = int.from_bytes(packet[transport + 16 : transport + 18], "big")
    if field % 0xFFFF == pseudo % 0xFFFF:
        return True
    segment = packet[transport:]
    return ((int.from_bytes(segment, "big") << 8 * (len(segment) & 1)) + pseudo) % 0xFFFF == 0


class Rewriter:
    """Changes to one packet on one buffer.

    Each setter keeps the checksums that cover what it changes. ``covers`` says which: offsets of
    checksum fields. Offsets of 16-bit fields must be even relative to the start of the sum.
    """

    __slots__ = ("buffer",)

    def __init__(self, packet: bytes) -> None:
        self.buffer = bytearray(packet)

    def put(self, offset: int, value: bytes, *checksums: int) -> None:
        """Write ``value`` (an even number of bytes) and keep the checksums at these offsets."""
        buffer = self.buffer
        stop = offset + len(value)
        delta = int.from_bytes(buffer[offset:stop], "big") - int.from_bytes(value, "big")
        buffer[offset:stop] = value
        for checksum in checksums:
            self.adjust(checksum, delta)

    def adjust(self, checksum: int, delta: int) -> None:
        """Account at offset ``checksum`` for data that went down by ``delta`` (as one number)."""
        (old,) = _SUM.unpack_from(self.buffer, checksum)
        _SUM.pack_into(self.buffer, checksum, (old + delta) % 0xFFFF)

    def word(self, offset: int) -> int:
        """The 16 bits at ``offset``."""
        value: int = _SUM.unpack_from(self.buffer, offset)[0]
        return value

    def set_word(self, offset: int, value: int) -> None:
        """Write 16 bits, no checksum kept."""
        _SUM.pack_into(self.buffer, offset, value)

    def packet(self) -> bytes:
        """The packet as it now is."""
        return bytes(self.buffer)


def rewrite(view: PacketView, *, source: bool, address: bytes, port: bytes | None) -> bytes:
    """``view``'s packet with another source (or destination) address and port, of any protocol.

    For ICMP echo the "port" is the identifier; None leaves it. The general form: IP options, ICMP,
    and protocols that only an instance-level public IP passes.
    """
    rewriter = Rewriter(view.packet)
    transport = view.transport
    place = 12 if source else 16
    protocol = view.protocol
    if protocol == ICMP:
        rewriter.put(place, address, 10)
        if port is not None and view.kind in (ECHO_REQUEST, ECHO_REPLY):
            rewriter.put(transport + 4, port, transport + 2)
            if not any(rewriter.buffer[transport:]):
                # All zero but for the checksum: the one sum that is not 0 modulo 65535 but +0.
                rewriter.set_word(transport + 2, 0xFFFF)
        return rewriter.packet()
    checksum = transport + CHECKSUM_OFFSET[protocol] if protocol in CHECKSUM_OFFSET else 0
    if checksum and protocol == UDP and not rewriter.word(checksum):
        checksum = 0  # the sender sent none, and none it stays
    sums = (checksum,) if checksum else ()
    rewriter.put(place, address, 10, *sums)
    if port is not None and protocol in (TCP, UDP):
        rewriter.put(transport + (0 if source else 2), port, *sums)
    if checksum and protocol in (UDP, UDP_LITE) and not rewriter.word(checksum):
        rewriter.set_word(checksum, 0xFFFF)
    return rewriter.packet()
