"""Requests to the kernel's netlink that pyroute2 cannot make, packed by hand.

``ask`` makes one request on a socket of its own and waits for the acknowledgement, ``dump`` gives
all the answers; ``Kernel`` is for several requests in a row. Failures are OSError with the kernel's
number.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from struct import Struct

from gateway.datapath.host.closing import Closing

NESTED = 0x8000
DUMP = 0x300  # linux/netlink.h, here and below: NLM_F_DUMP
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP_INTR = 0x1, 0x4, 0x10
_SOL_NETLINK, _STRICT = 270, 12  # NETLINK_GET_STRICT_CHK
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_LARGEST = 1 << 17
_TRIES = 3
"""A dump of what changed meanwhile is begun again."""
_header, _attribute, _error = Struct("=IHHII"), Struct("=HH"), Struct("=i")


def attribute(kind: int, payload: bytes) -> bytes:
    """An attribute as netlink has it: length, kind, payload, padded to four bytes."""
    padding = b"\0" * (-len(payload) % 4)
    return _attribute.pack(_attribute.size + len(payload), kind) + payload + padding


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in a message, by kind; of several of a kind the last."""
    return dict(each_attribute(data))


def each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in a message, in their order: kind and payload."""
    place = 0
    while place + _attribute.size <= len(data):
        length, kind = _attribute.unpack_from(data, place)
        if length < _attribute.size:
            return
        yield kind & ~NESTED, data[place + _attribute.size : place + length]
        place += length + 3 & ~3


class Kernel(Closing):
    """A socket to the kernel, for one request at a time. OSError: the kernel's number."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.bind((0, 0))
        self._serial = 0
        self.interrupted = False
        """Whether what was dumped last changed meanwhile."""

    def filter_strictly(self, seconds: float) -> None:
        """Have dumps filtered by the kernel, and wait so long for an answer."""
        self._socket.settimeout(seconds)
        with contextlib.suppress(OSError):  # before Linux 4.20: what comes too much is passed over
            self._socket.setsockopt(_SOL_NETLINK, _STRICT, 1)

    def request(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        """The answers' bodies, as they are read: of one object, of a dump, or none but that it is
        done."""
        self._serial += 1
        self.interrupted = False
        head = _header.pack(_header.size + len(body), kind, flags | _NLM_F_REQUEST, self._serial, 0)
        self._socket.send(head + body)
        while True:
            data = self._socket.recv(_LARGEST)
            place = 0
            while place + _header.size <= len(data):
                length, answered, said, serial, _ = _header.unpack_from(data, place)
                message = data[place + _header.size : place + length]
                place += length + 3 & ~3
                if serial != self._serial:
                    continue  # of a question that was given up
                self.interrupted = self.interrupted or bool(said & _NLM_F_DUMP_INTR)
                if answered == _NLMSG_ERROR:
                    _raise(_error.unpack_from(message)[0])
                    return
                if answered == _NLMSG_DONE:
                    if len(message) >= _error.size:  # why a dump ended, if that was before its end
                        _raise(_error.unpack_from(message)[0])
                    return
                yield message
            if not flags & (_NLM_F_ACK | DUMP):
                return

    def whole(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """The same; a dump that was interrupted is asked for again. These answers are the last's,
        and ``interrupted`` tells of it."""
        for _ in range(_TRIES):
            answers = list(self.request(kind, flags, body))
            if not self.interrupted:
                break
        return answers

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def ask(kind: int, flags: int, body: bytes) -> None:
    """Make one request and wait until it is done."""
    with Kernel() as kernel:
        for _ in kernel.request(kind, flags | _NLM_F_ACK, body):
            pass


def dump(
    kind: int, body: bytes, protocol: int = socket.NETLINK_ROUTE, *, consistent: bool = False
) -> Iterator[bytes]:
    """The answers' bodies. With ``consistent`` InterruptedError says that what is dumped changed
    meanwhile, time and again: some may be missing."""
    with Kernel(protocol) as kernel:
        answers = kernel.whole(kind, DUMP, body)
        if consistent and kernel.interrupted:
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
    yield from answers


def _raise(error: int) -> None:
    if error:
        raise OSError(-error, os.strerror(-error))
