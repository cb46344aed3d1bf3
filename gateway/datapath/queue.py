"""The packet queue: hands each diverted packet to a handler and gives the kernel its verdict.

One queue and one socket carry all ways in, so that packets keep their order. It knows the hook and
the interfaces of a packet and nothing of what is in it. Nothing here waits: ``drain`` takes what is
there, up to a limit, and returns.

The ``NetfilterQueue`` binding reads into 4,096 bytes; a larger datagram would arrive cut, and its
rewriting would cut it for good. So the binding's ``run_socket`` is given an object of our own to
read from, which reads whole packets, and the kernel is told to copy them whole. Overflow shows as
ENOBUFS there, which the binding would swallow: it is counted before the binding sees it.

What a sender left to its device to cut into segments comes uncut, up to 64 KiB (NFQA_CFG_F_GSO).
Its checksum, and that of any packet that such a device would have finished, is unfinished then: it
is completed here after rewriting, since the kernel takes what it gets back as complete.
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
from gateway.core.packet import completed
from gateway.datapath.errors import DatapathError
from gateway.datapath.fragments import MARK
from gateway.datapath.rules import Netfilter

Way = Callable[[bytes, float], bytes | None]
"""Packet and time to verdict: the same object (pass as is), other bytes (these), None (drop)."""
Ways = Sequence[Way]
"""One for each ``Arrival``, in its order."""
Uncut = Callable[[bytes, int, int], None]
"""Told of a packet that passed and is several segments: packet, ``Arrival``, MTU of its way in."""

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
# struct nlmsghdr, struct nfgenmsg, two attributes of 32 bits: NFQA_CFG_MASK, NFQA_CFG_FLAGS
_FLAGS = Struct("=IHHII BB2s HH4s HH4s")
_MASK_TYPE, _FLAGS_TYPE, _UNCUT = 4, 5, (1 << 2).to_bytes(4, "big")  # NFQA_CFG_F_GSO
# What stands before the payload's own header in a packet's message, where there is anything to say:
# NFQA_SKB_INFO with NFQA_SKB_CSUMNOTREADY (1), NFQA_SKB_GSO (2), NFQA_SKB_CSUM_NOTVERIFIED (4).
_INFO = Struct("=HH4s")
_UNFINISHED = frozenset(
    _INFO.pack(_INFO.size, 14, flags.to_bytes(4, "big")) for flags in (1, 2, 3, 5, 6, 7)
)
_TCP = 6
LARGE = 1400
"""Bytes of a packet from which it is looked at whether it is several segments."""


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

    def __init__(self, receive: Callable[[int, int], bytes], message: list[bytes]) -> None:
        """``message``: a cell that holds the last message that was read."""
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


class PacketQueue:
    """An NFQUEUE of our own. ``open`` it, install rules for ``number``, ``drain`` it, ``close``."""

    def __init__(
        self,
        ways: Ways,
        outside_index: int,
        uncut: Uncut = lambda packet, arrival, mtu: None,
        *,
        fragments_marked: bool = False,
    ) -> None:
        """``fragments_marked``: what came in fragments can be told (``fragments.py``)."""
        self.number = -1
        self.last_error = ""  # the traceback of the handler's last exception
        self._ways = ways
        self._change_ways: Callable[[Ways], None] = lambda ways: None
        self._move_outside: Callable[[int], None] = lambda index: None
        self._outside = outside_index
        self._fragments_marked = fragments_marked
        self._uncut = uncut
        self._queue: NetfilterQueue | None = None
        self._socket: socket.socket | None = None
        self._reader: _Reader | None = None
        self._message = [b""]
        self._mtus: dict[int, int] = {}
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
        self._leave_uncut()
        self._reader = _Reader(self._socket.recv, self._message)

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

    def _leave_uncut(self) -> None:
        """Have large segments as their sender made them; a kernel that cannot ignores it."""
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

    def change_ways(self, ways: Ways, *, finished: bool = False) -> None:
        """Hand packets to ``ways`` from now on; not while ``drain`` runs.

        ``finished``: with checksums as they will be on a wire, for who looks at them.
        """
        self._ways = [self._finishing(way) for way in ways] if finished else ways
        self._change_ways(self._ways)

    def outside_is(self, index: int) -> None:
        """The outside interface has another number: it was removed and made again."""
        self._outside = index
        self._move_outside(index)

    def _finishing(self, way: Way) -> Way:
        message = self._message

        def finished(packet: bytes, now: float) -> bytes | None:
            at = len(message[0]) - len(packet) - 12  # as in ``on_packet``
            if message[0][at : at + 8] not in _UNFINISHED:
                return way(packet, now)
            whole = completed(packet)
            verdict = way(whole, now)
            return packet if verdict is whole else verdict  # as it is: the kernel goes on with it

        return finished

    def _callback(self) -> Callable[[Packet], None]:
        """What the binding calls for each packet. A closure: it looks up less for each of them."""
        outside, moment, message = self._outside, self._moment, self._message
        unfinished = _UNFINISHED
        outbound, inbound, hairpin, local_error, lateral, probe = _in_order(self._ways)
        in_fragments = self._in_fragments()
        marked = self._fragments_marked

        def change(ways: Ways) -> None:
            nonlocal outbound, inbound, hairpin, local_error, lateral, probe, in_fragments
            outbound, inbound, hairpin, local_error, lateral, probe = _in_order(ways)
            in_fragments = self._in_fragments()

        def move(index: int) -> None:
            nonlocal outside
            outside = index

        self._change_ways = change
        self._move_outside = move

        def on_packet(packet: Packet) -> None:
            payload = packet.get_payload()
            hook = packet.hook
            if hook == _FORWARD:
                way = outbound if packet.outdev == outside else lateral
            elif hook == _PREROUTING:
                way = inbound if packet.indev == outside else hairpin
            else:
                way = local_error if packet.outdev == outside else probe
            if marked and packet.get_mark() & MARK:
                way = in_fragments.get(way, way)
            try:
                verdict = way(payload, moment[0])
                if verdict is not None and verdict is not payload:
                    # The message ends with what there is to say of the checksum (8 bytes, the
                    # first of them an 8), the payload's header (4 bytes) and the payload, unpadded.
                    raw = message[0]
                    at = len(raw) - len(payload) - 12
                    if raw[at] == 8 and raw[at : at + 8] in unfinished:
                        verdict = completed(verdict)
                    packet.set_payload(verdict)  # refuses what is not bytes
            except Exception:
                # The loop must outlive any mistake of the handler; untranslated nothing passes.
                self._handler_errors += 1
                self.last_error = traceback.format_exc()
                verdict = None
            if verdict:
                packet.accept()
                if len(payload) > LARGE and payload[9] == _TCP:
                    self._count_segments(packet, payload)
            else:  # empty, too: the binding would take that for "unchanged"
                self._dropped += 1
                packet.drop()

        return on_packet

    def _in_fragments(self) -> dict[Way, Way]:
        """For a way in, what it is for a packet that came in fragments, where it is another."""
        return {self._ways[arrival.whole]: self._ways[arrival] for arrival in Arrival}

    def _count_segments(self, packet: Packet, payload: bytes) -> None:
        index = packet.indev
        mtu = self._mtus.get(index)
        if mtu is None:
            mtu = self._mtus[index] = _mtu(index)
        if len(payload) > mtu:
            outward = packet.hook == _FORWARD or index != self._outside
            lateral = packet.hook == _FORWARD and packet.outdev != self._outside
            arrival = Arrival.OUTBOUND if outward else Arrival.INBOUND
            self._uncut(payload, Arrival.LATERAL if lateral else arrival, mtu)

    def statistics(self) -> QueueStatistics:
        """The counters; reads a file of /proc, so not for every packet."""
        self._mtus.clear()  # they may change; whoever calls this does so now and then
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


def _mtu(index: int) -> int:
    """An interface's MTU; without the interface, as many bytes as a packet can have."""
    try:
        return int(Path(f"/sys/class/net/{socket.if_indextoname(index)}/mtu").read_text())
    except (OSError, ValueError):
        return 0xFFFF


def _counters() -> list[list[int]]:
    """The kernel's queues of this network namespace: number, port id, waiting, copy mode, copy
    range, dropped (queue full), dropped (socket full), last id, 1."""
    try:
        text = _COUNTERS.read_text()
    except OSError:
        return []  # no queue yet, or a kernel without
    return [[int(word) for word in line.split()] for line in text.splitlines()]
