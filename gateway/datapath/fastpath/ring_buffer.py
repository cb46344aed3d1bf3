"""Reads the ring buffer in which the fast path reports SYN-ACK, FIN and RST.

The layout is the kernel's (Documentation/bpf/ringbuf.rst): a page with the consumer's position,
which is ours to write, one with the producer's, then the data, mapped twice in a row so that no
record is ever split. libbpf's own reader calls back into the program, for which a hardened service
may not have the (writable and executable) memory; this only reads.
"""

from __future__ import annotations

import mmap
from struct import Struct

from gateway.datapath.fastpath.map_layout import Report

SIZE = 1 << 20  # bytes, as in fastpath.c
_BUSY, _DISCARD = 1 << 31, 1 << 30
_HEADER = 8
_record = Struct("=QQIBB2x")  # struct report
_position = Struct("=Q")
_length = Struct("=I")


class ReportReader:
    """The consumer's end of ``reports``."""

    def __init__(self, descriptor: int) -> None:
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(descriptor, page)
        self._producer = mmap.mmap(descriptor, page + 2 * SIZE, prot=mmap.PROT_READ, offset=page)

    def read(self, limit: int) -> list[Report]:
        """What was reported since the last call, at most ``limit`` of it, in order."""
        position = _position.unpack_from(self._consumer)[0]
        produced = _position.unpack_from(self._producer)[0]
        found: list[Report] = []
        while position < produced and len(found) < limit:
            at = mmap.PAGESIZE + position % SIZE
            length = _length.unpack_from(self._producer, at)[0]
            if length & _BUSY:
                break  # reserved and not yet written
            if not length & _DISCARD:
                flow, when, counter, flags, reverse = _record.unpack_from(
                    self._producer, at + _HEADER
                )
                found.append(Report(flow, when, counter, flags, bool(reverse)))
            position += (_HEADER + (length & ~_DISCARD) + 7) & ~7
        _position.pack_into(self._consumer, 0, position)
        return found

    def close(self) -> None:
        """Unmap."""
        self._consumer.close()
        self._producer.close()
