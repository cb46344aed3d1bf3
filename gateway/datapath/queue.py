"""The packet queue: hands each diverted packet to a handler and gives the kernel its verdict.

One queue and one socket carry all ways in, so that packets keep their order. It knows the hook and
the interfaces of a packet and nothing of what is in it. Nothing here waits: ``drain`` takes what is
there, up to a limit, and returns.

The ``NetfilterQueue`` binding reads into 4,096 bytes; a larger datagram would arrive cut, and its
rewriting would cut it for good. So the binding's ``run_socket`` is given an object of our own to
read from, which reads whole packets, and the kernel is told to copy them whole. Overflow shows as
ENOBUFS there, which the binding would swallow: it is counted before the binding sees it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EAGAIN, ENOBUFS
from pathlib import Path
from struct import Struct

from netfilterqueue import COPY_PACKET, NetfilterQueue, Packet

from gateway.core.arrival import Arrival
from gateway.datapath.errors import DatapathError
from gateway.datapath.rules import Netfilter

Way = Callable[[bytes, float], bytes | None]
"""Packet and time to verdict: the same object (pass as is), other bytes (these), None (drop)."""
Ways = Sequence[Way]
"""One for each ``Arrival``, in its order."""

FIRST_NUMBER, NUMBERS = 2017, 256  # where to look for a free queue
MAXIMUM_LENGTH = 4096  # packets that wait in the kernel; at 100,000 a second 40 ms of them
RECEIVE_BUFFER = 16 << 20  # bytes of them, for the socket; the kernel doubles it
COPY_RANGE = 0xFFFF  # bytes of a packet: all
MESSAGE = 72 << 10  # bytes of a netlink message with a whole packet

_NETLINK_NETFILTER = 12  # linux/netlink.h; Python's socket module does not name it
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h; likewise
_PREROUTING, _FORWARD = 0, 2  # NF_INET_PRE_ROUTING, NF_INET_FORWARD
_COUNTERS = Path("/proc/net/netfilter/nfnetlink_queue")

# struct nlmsghdr, struct nfgenmsg, struct nlattr, struct nfqnl_msg_config_params, padding
_CONFIG = Struct("=IHHII BB2s HH 4sB3x")
_CONFIG_TYPE = 3 << 8 | 2  # NFNL_SUBSYS_QUEUE, NFQNL_MSG_CONFIG
_REQUEST, _PARAMETERS = 1, 2  # NLM_F_REQUEST, NFQA_CFG_PARAMS


@dataclass(frozen=True)
class QueueStatistics:
    """Counters since the queue was opened; drops that are not the handler's are losses."""

    handled: int
    dropped: int  # by the handler's verdict
    handler_errors: int
    overflows: int  # times that the socket reported lost packets (ENOBUFS)
    kernel_dropped: int  # packets lost because the queue was full
    user_dropped: int  # packets lost because the socket's buffer was full
    waiting: int  # packets in the kernel's queue now

    @property
    def lost(self) -> int:
        """Packets that never reached the handler."""
        return self.kernel_dropped + self.user_dropped


class _Reader:
    """What the binding reads from: whole messages, without waiting, up to a budget.

    ``recv`` is a closure in a slot: the binding calls it for every packet.
    """

    __slots__ = ("left", "overflows", "recv", "refill")

    def __init__(self, receive: Callable[[int, int], bytes]) -> None:
        budget = overflows = 0
        flags, size = socket.MSG_DONTWAIT, MESSAGE

        def recv(_size: int) -> bytes:
            nonlocal budget, overflows
            if not budget:
                raise BlockingIOError(EAGAIN, "budget spent")
            budget -= 1
            try:
                return receive(size, flags)
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


class PacketQueue:
    """An NFQUEUE of our own. ``open`` it, install rules for ``number``, ``drain`` it, ``close``."""

    def __init__(self, ways: Ways, outside_index: int) -> None:
        self.number = -1
        self.last_error = ""  # the traceback of the handler's last exception
        self._ways = ways
        self._change_ways: Callable[[Ways], None] | None = None
        self._outside = outside_index
        self._queue: NetfilterQueue | None = None
        self._socket: socket.socket | None = None
        self._reader: _Reader | None = None
        self._moment = [0.0]  # the time that packets are handled at; a cell for the callback
        self._handled = 0
        self._dropped = 0
        self._handler_errors = 0

    def open(self) -> None:
        """Bind to the first free queue number. Raises DatapathError if that cannot be."""
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
        self._reader = _Reader(self._socket.recv)

    def _bind(self, queue: NetfilterQueue) -> int:
        callback = self._callback()
        taken = {row[0] for row in _counters()}
        with contextlib.suppress(DatapathError):
            # A gateway that was killed left rules that name its queue: its packets are not ours.
            taken |= Netfilter("iptables").queue_numbers()
        for number in range(FIRST_NUMBER, FIRST_NUMBER + NUMBERS):
            if number in taken:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)  # the buffer is set after this
                    queue.bind(number, callback, MAXIMUM_LENGTH, COPY_PACKET)
            except OSError:
                continue  # somebody was quicker
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
        copied = next((row[4] for row in _counters() if row[0] == self.number), 0)
        if copied < 0xFFF0:
            raise DatapathError(
                [f"NFQUEUE {self.number} copies {copied} bytes of a packet; it must copy all"]
            )

    def fileno(self) -> int:
        """The socket to poll for reading."""
        assert self._socket is not None
        return self._socket.fileno()

    def drain(self, limit: int, now: float) -> int:
        """Handle the packets that wait, at most ``limit``, at time ``now``; returns how many."""
        assert self._queue is not None
        assert self._reader is not None
        reader = self._reader
        reader.refill(limit)
        self._moment[0] = now
        self._queue.run_socket(reader)  # type: ignore[arg-type]
        handled = limit - reader.left()
        self._handled += handled
        return handled

    def change_ways(self, ways: Ways) -> None:
        """Hand packets to ``ways`` from now on; not while ``drain`` runs."""
        self._ways = ways
        if self._change_ways is not None:
            self._change_ways(ways)

    def _callback(self) -> Callable[[Packet], None]:
        """What the binding calls for each packet. A closure: it looks up less for each of them."""
        outside, moment = self._outside, self._moment
        outbound, inbound, hairpin, local_error, lateral, probe = _in_order(self._ways)

        def change(ways: Ways) -> None:
            nonlocal outbound, inbound, hairpin, local_error, lateral, probe
            outbound, inbound, hairpin, local_error, lateral, probe = _in_order(ways)

        self._change_ways = change

        def on_packet(packet: Packet) -> None:
            payload = packet.get_payload()
            hook = packet.hook
            if hook == _FORWARD:
                way = outbound if packet.outdev == outside else lateral
            elif hook == _PREROUTING:
                way = inbound if packet.indev == outside else hairpin
            else:
                way = local_error if packet.outdev == outside else probe
            try:
                verdict = way(payload, moment[0])
                if verdict is not None and verdict is not payload:
                    packet.set_payload(verdict)  # refuses what is not bytes
            except Exception:
                # The loop must outlive any mistake of the handler; untranslated nothing passes.
                self._handler_errors += 1
                self.last_error = traceback.format_exc()
                verdict = None
            if verdict:
                packet.accept()
            else:  # empty, too: the binding would take that for "unchanged"
                self._dropped += 1
                packet.drop()

        return on_packet

    def statistics(self) -> QueueStatistics:
        """The counters; reads a file of /proc, so not for every packet."""
        row = next((row for row in _counters() if row[0] == self.number), [0] * 9)
        return QueueStatistics(
            handled=self._handled,
            dropped=self._dropped,
            handler_errors=self._handler_errors,
            overflows=self._reader.overflows() if self._reader is not None else 0,
            kernel_dropped=row[5],
            user_dropped=row[6],
            waiting=row[2],
        )

    def close(self) -> None:
        """Unbind. Packets that still wait are dropped by the kernel."""
        if self._queue is not None:
            self._queue.unbind()
            self._queue = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _in_order(ways: Ways) -> tuple[Way, Way, Way, Way, Way, Way]:
    """Outbound, inbound, hairpin, local errors, lateral, probes."""
    return (
        ways[Arrival.OUTBOUND],
        ways[Arrival.INBOUND],
        ways[Arrival.HAIRPIN],
        ways[Arrival.LOCAL_ERROR],
        ways[Arrival.LATERAL],
        ways[Arrival.PROBE],
    )


def _counters() -> list[list[int]]:
    """The kernel's queues of this network namespace: number, port id, waiting, copy mode, copy
    range, dropped (queue full), dropped (socket full), last id, 1."""
    try:
        text = _COUNTERS.read_text()
    except OSError:
        return []  # no queue yet, or a kernel without
    return [[int(word) for word in line.split()] for line in text.splitlines()]
