"""One NFQUEUE of the kernel: its number, the socket that its packets come by, its counters.

It knows nothing of hooks, interfaces or packets. The ``NetfilterQueue`` binding reads into 4,096
bytes; a larger datagram would arrive cut, and its rewriting would cut it for good. So the binding's
``run_socket`` is given an object of our own to read from, which reads whole packets, and the kernel
is set to copy them whole. Overflow shows as ENOBUFS there, which the binding would swallow: it is
counted before the binding sees it.
"""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Callable, Iterable
from errno import EAGAIN, ENOBUFS
from pathlib import Path
from struct import Struct

from netfilterqueue import COPY_PACKET, NetfilterQueue, Packet

from gateway.datapath.errors import DatapathError

FIRST_NUMBER, NUMBERS = 2017, 256  # where to look for a free queue
MAXIMUM_LENGTH = 4096  # packets that wait in the kernel; at 100,000 a second 40 ms of them
RECEIVE_BUFFER = 16 << 20  # bytes of them, for the socket; the kernel doubles it
COPY_RANGE = 0xFFFF  # bytes of a packet: all
MESSAGE = 72 << 10  # bytes of a netlink message with a whole packet

_NETLINK_NETFILTER = 12  # linux/netlink.h; Python's socket module does not name it
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; likewise
_COUNTERS = Path("/proc/net/netfilter/nfnetlink_queue")

# struct nlmsghdr, struct nfgenmsg, struct nlattr, struct nfqnl_msg_config_params, padding
_CONFIG = Struct("=IHHII BB2s HH 4sB3x")
_CONFIG_TYPE = 3 << 8 | 2  # NFNL_SUBSYS_QUEUE, NFQNL_MSG_CONFIG
_REQUEST, _PARAMETERS = 1, 2  # NLM_F_REQUEST, NFQA_CFG_PARAMS
# struct nlmsghdr, struct nfgenmsg, two attributes of 32 bits: NFQA_CFG_MASK, NFQA_CFG_FLAGS
_FLAGS = Struct("=IHHII BB2s HH4s HH4s")
_MASK_TYPE, _FLAGS_TYPE, _UNCUT = 4, 5, (1 << 2).to_bytes(4, "big")  # NFQA_CFG_F_GSO


class _Reader:
    """What the binding reads from: whole messages, without waiting, up to a budget.

    ``recv`` is a closure in a slot: the binding calls it for every packet.
    """

    __slots__ = ("left", "overflows", "recv", "refill")

    def __init__(self, receive: Callable[[int, int], bytes], message: list[bytes]) -> None:
        budget = overflows = 0
        flags, size = socket.MSG_DONTWAIT, MESSAGE

        def recv(_size: int) -> bytes:
            nonlocal budget, overflows
            if not budget:
                raise BlockingIOError(EAGAIN, "budget spent")
            budget -= 1
            try:
                message[0] = received = receive(size, flags)
                return received
            except OSError as error:
                if error.errno == ENOBUFS:
                    overflows += 1
                budget += 1  # nothing was read
                raise

        def refill(limit: int) -> None:
            nonlocal budget
            budget = limit

        self.recv = recv
        self.refill = refill
        self.left: Callable[[], int] = lambda: budget
        self.overflows: Callable[[], int] = lambda: overflows


class KernelQueue:
    """An NFQUEUE of our own: ``open`` binds it, ``close`` unbinds it."""

    def __init__(
        self, callback: Callable[[Packet], None], message: list[bytes], taken: Iterable[int]
    ) -> None:
        """``message``: a cell that holds the message of the packet that ``callback`` is called for.
        ``taken``: numbers to leave alone, though they can be bound."""
        self._callback = callback
        self._message = message
        self._taken = set(taken)
        self.number = -1
        self._queue: NetfilterQueue | None = None
        self._socket: socket.socket | None = None
        self._reader: _Reader | None = None
        self._counts = 0, 0, 0

    def open(self) -> None:
        """Bind to the first free number. Raises DatapathError if that cannot be."""
        try:
            queue = NetfilterQueue()
        except OSError as error:
            raise DatapathError([f"NFQUEUE cannot be opened: {error}"]) from None
        number = self._bind(queue)
        self._queue, self.number = queue, number
        # The binding owns the descriptor; this is a second one for the same socket.
        descriptor = os.dup(queue.get_fd())
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER, fileno=descriptor
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except PermissionError:  # in a user namespace: as much as the host allows
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self._copy_whole_packets()
        self._reader = _Reader(self._socket.recv, self._message)

    def _bind(self, queue: NetfilterQueue) -> int:
        taken = self._taken.union(row[0] for row in _counters())
        for number in range(FIRST_NUMBER, FIRST_NUMBER + NUMBERS):
            if number in taken:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)  # the buffer is set after this
                    queue.bind(number, self._callback, MAXIMUM_LENGTH, COPY_PACKET)
            except OSError:
                continue  # another process was quicker
            return number
        last = FIRST_NUMBER + NUMBERS - 1
        raise DatapathError([f"no NFQUEUE number from {FIRST_NUMBER} to {last} can be bound"])

    def _copy_whole_packets(self) -> None:
        assert self._socket is not None
        message = _CONFIG.pack(
            _CONFIG.size,
            _CONFIG_TYPE,
            _REQUEST,
            0,
            0,
            socket.AF_UNSPEC,
            0,
            self.number.to_bytes(2, "big"),
            9,  # an attribute's length has no padding
            _PARAMETERS,
            COPY_RANGE.to_bytes(4, "big"),
            COPY_PACKET,
        )
        self._socket.send(message)
        row = self._counters()
        copied = 0 if row is None else row[4]
        if copied < 0xFFF0:
            raise DatapathError(
                [f"NFQUEUE {self.number} copies {copied} bytes of a packet; it must copy all"]
            )

    def leave_uncut(self) -> None:
        """Have packets for a device to cut or to finish as they are (NFQA_CFG_F_GSO).

        Without this the kernel cuts them, and finishes their checksums, before they come here. A
        kernel that cannot ignores it.
        """
        assert self._socket is not None
        self._socket.send(
            _FLAGS.pack(
                _FLAGS.size,
                _CONFIG_TYPE,
                _REQUEST,
                0,
                0,
                socket.AF_UNSPEC,
                0,
                self.number.to_bytes(2, "big"),
                8,
                _MASK_TYPE,
                _UNCUT,
                8,
                _FLAGS_TYPE,
                _UNCUT,
            )
        )

    def fileno(self) -> int:
        """The socket to poll for reading."""
        assert self._socket is not None
        return self._socket.fileno()

    def drain(self, limit: int) -> int:
        """Call back for the packets that wait, at most ``limit``; returns for how many."""
        assert self._queue is not None
        assert self._reader is not None
        reader = self._reader
        reader.refill(limit)
        self._queue.run_socket(reader)  # type: ignore[arg-type]
        return limit - reader.left()

    @property
    def overflows(self) -> int:
        """How often the socket reported lost packets (ENOBUFS)."""
        return self._reader.overflows() if self._reader is not None else 0

    def counts(self) -> tuple[int, int, int]:
        """Packets that wait in the kernel's queue, were lost because it was full, and because the
        socket's buffer was. Reads a file of /proc; what cannot be read now is as it was."""
        row = self._counters()
        if row is not None:
            self._counts = row[2], row[5], row[6]
        return self._counts

    def _counters(self) -> list[int] | None:
        return next((row for row in _counters() if row[0] == self.number), None)

    def close(self) -> None:
        """Unbind. Packets that still wait are dropped by the kernel."""
        if self._queue is not None:
            self._queue.unbind()
            self._queue = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _counters() -> list[list[int]]:
    """The kernel's queues of this network namespace: number, port id, waiting, copy mode, copy
    range, dropped (queue full), dropped (socket full), last id, 1."""
    try:
        text = _COUNTERS.read_text()
    except OSError:
        return []  # no queue yet, or a kernel without
    return [[int(word) for word in line.split()] for line in text.splitlines()]
