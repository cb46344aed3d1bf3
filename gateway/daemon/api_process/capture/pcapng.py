"""pcapng, as much of it as a capture of two interfaces needs: blocks as bytes, and back.
Runs in the API process.

The format is draft-ietf-opsawg-pcapng's; tshark reads in the tests what is made here. Little-endian
throughout, times in nanoseconds since 1970. A library would save little: these are four kinds of
block, they must be made one at a time for a live stream, and cost as little as can be for each
packet. Nothing here knows what a packet or a gateway is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct

SECTION_HEADER, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
LINKTYPE_IPV4 = 228
"""The packet begins with its IP header."""
NANOSECONDS = 9  # if_tsresol: 10 to the power of minus this
MAXIMUM_COMMENT = 1024

_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_END, _COMMENT = 0, 1
_HARDWARE, _OS, _APPLICATION = 2, 3, 4
_IF_NAME, _IF_DESCRIPTION, _IF_RESOLUTION = 2, 3, 9
_PACKET_FLAGS, _PACKET_ID = 2, 5
_START_TIME, _END_TIME, _RECEIVED, _DROPPED, _DELIVERED = 2, 3, 4, 5, 8

_head, _length = Struct("<II"), Struct("<I")
_section = Struct("<IHHq")
_interface = Struct("<HHI")
_packet = Struct("<IIIIIII")  # type, block length, interface, time high and low, captured, length
_packet_options = Struct("<HHIHHQHH")  # flags; number; comment's code and length
_statistics = Struct("<III")
_option = Struct("<HH")
_number = Struct("<Q")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


def section_header(hardware: str, system: str, application: str, comment: str) -> bytes:
    """The block that a file begins with: who made it, and what it is of."""
    body = _section.pack(_BYTE_ORDER_MAGIC, 1, 0, -1)
    options = [(_HARDWARE, hardware), (_OS, system), (_APPLICATION, application)]
    texts = [(code, text.encode()) for code, text in (*options, (_COMMENT, comment))]
    return _block(SECTION_HEADER, body + _options(texts))


def interface(name: str, description: str, snap_length: int) -> bytes:
    """An interface; the first one described is 0, the next 1."""
    body = _interface.pack(LINKTYPE_IPV4, 0, snap_length)
    options = [
        (_IF_NAME, name.encode()),
        (_IF_DESCRIPTION, description.encode()),
        (_IF_RESOLUTION, bytes((NANOSECONDS,))),
    ]
    return _block(INTERFACE, body + _options(options))


def packet(
    on: int, direction: int, time: int, length: int, data: bytes, number: int, comment: bytes
) -> bytes:
    """A packet on interface ``on``; ``direction`` 1: received there, 2: sent there, 0: unknown.

    ``length`` is what it had before it was cut to ``data``. The same ``number`` on two interfaces:
    the same packet. ``comment`` is UTF-8.
    """
    captured, said = len(data), len(comment)
    padding, said_padding = _PADDING[captured & 3], _PADDING[said & 3]
    total = 60 + captured + len(padding) + said + len(said_padding)
    return b"".join(
        (
            _packet.pack(PACKET, total, on, time >> 32, time & 0xFFFFFFFF, captured, length),
            data,
            padding,
            _packet_options.pack(
                _PACKET_FLAGS, 4, direction, _PACKET_ID, 8, number, _COMMENT, said
            ),
            comment,
            said_padding,
            b"\0\0\0\0",  # end of options
            _length.pack(total),
        )
    )


def statistics(
    on: int, start: int, end: int, received: int, dropped: int, delivered: int, comment: str = ""
) -> bytes:
    """An interface's counters from ``start`` to ``end``: matched, lost of these, and written."""
    options = [
        (_START_TIME, _time(start)),
        (_END_TIME, _time(end)),
        (_RECEIVED, _number.pack(received)),
        (_DROPPED, _number.pack(dropped)),
        (_DELIVERED, _number.pack(delivered)),
    ]
    if comment:
        options.append((_COMMENT, comment.encode()[:MAXIMUM_COMMENT]))
    body = _statistics.pack(on, end >> 32, end & 0xFFFFFFFF)
    return _block(STATISTICS, body + _options(options))


def _time(nanoseconds: int) -> bytes:
    return _head.pack(nanoseconds >> 32, nanoseconds & 0xFFFFFFFF)


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    parts = [
        _option.pack(code, len(value)) + value + _PADDING[len(value) & 3] for code, value in options
    ]
    return b"".join((*parts, _option.pack(_END, 0)))


def _block(kind: int, body: bytes) -> bytes:
    length = _length.pack(len(body) + 12)
    return b"".join((_length.pack(kind), length, body, length))


@dataclass(frozen=True)
class Statistics:
    """What a statistics block contains."""

    interface: int
    dropped: int
    comment: str


class NotPcapngError(ValueError):
    """Bytes that are no little-endian pcapng."""


class Blocks:
    """Cuts a stream into whole blocks and counts what goes by."""

    def __init__(self) -> None:
        self.packets = 0
        self._rest = b""

    def feed(self, data: bytes) -> tuple[bytes, list[Statistics]]:
        """The blocks that are whole with ``data``, and what statistics say among them.

        Raises NotPcapngError.
        """
        stream = self._rest + data if self._rest else data
        told: list[Statistics] = []
        position = 0
        while position + 8 <= len(stream):
            kind, length = _head.unpack_from(stream, position)
            if length < 12 or length & 3:
                raise NotPcapngError
            if position + length > len(stream):
                break
            if kind == PACKET:
                self.packets += 1
            elif kind == STATISTICS:
                told.append(_read_statistics(stream[position : position + length]))
            position += length
        self._rest = stream[position:]
        return stream[:position], told

    @property
    def rest(self) -> int:
        """Bytes of a block that is not whole yet."""
        return len(self._rest)


def _read_statistics(block: bytes) -> Statistics:
    on = _length.unpack_from(block, 8)[0]
    dropped, comment = 0, ""
    for code, value in _read_options(block[20:-4]):
        if code == _DROPPED:
            dropped = _number.unpack(value)[0]
        elif code == _COMMENT:
            comment = value.decode(errors="replace")
    return Statistics(on, dropped, comment)


def _read_options(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + 4 <= len(data):
        code, length = _option.unpack_from(data, position)
        if code == _END:
            return
        yield code, data[position + 4 : position + 4 + length]
        position += 4 + length + len(_PADDING[length & 3])
