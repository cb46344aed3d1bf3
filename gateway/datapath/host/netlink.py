"""Requests to the kernel's netlink that pyroute2 cannot make, packed by hand.

One request at a time on a socket of its own: ``ask`` waits for the acknowledgement, ``dump`` for
all the answers. Failures are OSError with the kernel's number.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from struct import Struct

NESTED = 0x8000
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300  # linux/netlink.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_LARGEST = 1 << 17
_header, _attribute, _error = Struct("=IHHII"), Struct("=HH"), Struct("=i")


def attribute(kind: int, payload: bytes) -> bytes:
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


def ask(kind: int, flags: int, body: bytes) -> None:
    """Make one request and wait until it is done."""
    with _open(socket.NETLINK_ROUTE) as kernel:
        flags |= _NLM_F_REQUEST | _NLM_F_ACK
        kernel.send(_header.pack(_header.size + len(body), kind, flags, 1, 0) + body)
        answer = kernel.recv(_LARGEST)
    _, answered, *_ = _header.unpack_from(answer)
    if answered != _NLMSG_ERROR:
        raise OSError(f"netlink: an answer of type {answered} instead of an acknowledgement")
    _raise(_error.unpack_from(answer, _header.size)[0])


def dump(kind: int, body: bytes, protocol: int = socket.NETLINK_ROUTE) -> Iterator[bytes]:
    """The answers' bodies."""
    with _open(protocol) as kernel:
        flags = _NLM_F_REQUEST | _NLM_F_DUMP
        kernel.send(_header.pack(_header.size + len(body), kind, flags, 1, 0) + body)
        while True:
            data = kernel.recv(_LARGEST)
            place = 0
            while place < len(data):
                length, answered, *_ = _header.unpack_from(data, place)
                if answered == _NLMSG_DONE:
                    return
                if answered == _NLMSG_ERROR:
                    _raise(_error.unpack_from(data, place + _header.size)[0])
                    return
                yield data[place + _header.size : place + length]
                place += length + 3 & ~3


def _open(protocol: int) -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    kernel.bind((0, 0))
    return kernel


def _raise(error: int) -> None:
    if error:
        raise OSError(-error, os.strerror(-error))
