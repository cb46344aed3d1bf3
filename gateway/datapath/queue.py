"""The packet queue: hands each diverted packet to a handler and gives the kernel its verdict.

It knows the hook and the interfaces of a packet and nothing of what is in it. Nothing here waits:
``drain`` takes what is there, up to a limit, and returns.

It is two queues of the kernel's (``nfqueue.py``), so that a flow's packets keep their order: a
flow has one protocol. TCP GSO packets come unsegmented (NFQA_CFG_F_GSO), up to 64 KiB, and with
CHECKSUM_PARTIAL, as do other segments whose checksum was offloaded: it is completed here after
rewriting, since the kernel takes what it gets back as complete. All else the kernel segments and
completes before it comes. Only the kernel can: a UDP datagram may be
many that were sent at once (UDP_SEGMENT), and what is partial in one that carries a tunnel, or
in GRE or SCTP, is not the checksum that its own header has, and nothing shows where it is.
"""

from __future__ import annotations

import contextlib
import socket
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from netfilterqueue import Packet

from gateway.core.ingress import IngressPath
from gateway.core.packet.view import completed
from gateway.datapath.errors import DatapathError
from gateway.datapath.host.fragment_marks import MARK
from gateway.datapath.host.netfilter import Netfilter
from gateway.datapath.host.netfilter_rules import QueueNumbers
from gateway.datapath.nfqueue import KernelQueue

PacketHandler = Callable[[bytes, float], bytes | None]
"""Packet and time to verdict: the same object (pass as is), other bytes (these), None (drop)."""
PacketHandlers = Sequence[PacketHandler]
"""One for each ``IngressPath``, in its order."""
Uncut = Callable[[bytes, int, int], None]
"""Called for a packet that passed and is several segments: packet, ``IngressPath``, egress MTU."""

_PREROUTING, _FORWARD = 0, 2  # NF_INET_PRE_ROUTING, NF_INET_FORWARD

# What stands before the payload's own header in a packet's message, where there is anything to say:
# NFQA_SKB_INFO with NFQA_SKB_CSUMNOTREADY (1), NFQA_SKB_GSO (2), NFQA_SKB_CSUM_NOTVERIFIED (4).
_INFO = Struct("=HH4s")
_UNFINISHED = frozenset(
    _INFO.pack(_INFO.size, 14, flags.to_bytes(4, "big")) for flags in (1, 2, 3, 5, 6, 7)
)
_TIMESTAMP = Struct("=HH").pack(20, 4)  # struct nlattr of NFQA_TIMESTAMP
_TCP = 6
LARGE = 1400
"""Bytes of a packet from which on it may be several segments (GSO)."""


@dataclass(frozen=True)
class QueueStatistics:
    """Counters since the queue was opened; drops that are not the handler's are losses."""

    handled: int
    dropped: int  # by the handler's verdict
    handler_errors: int
    overflows: int  # times that a socket reported lost packets (ENOBUFS)
    kernel_dropped: int  # packets lost because a queue was full
    user_dropped: int  # packets lost because a socket's buffer was full
    waiting: int  # packets in the kernel's queues now

    @property
    def lost(self) -> int:
        """Packets that never reached the handler."""
        return self.kernel_dropped + self.user_dropped


class PacketQueue:
    """``open`` it, install rules for its ``numbers``, ``drain`` it, ``close``."""

    def __init__(
        self,
        handlers: PacketHandlers,
        inside: Iterable[int],
        outside: int,
        uncut: Uncut = lambda packet, ingress, mtu: None,
        *,
        fragments_marked: bool = False,
        passed: Callable[[bytes], None] | None = None,
    ) -> None:
        """``inside``, ``outside``: interfaces' numbers. ``fragments_marked``: what came in
        fragments are recognised (``fragment_marks.py``).

        ``passed`` is called for each packet with a timestamp (NFQA_TIMESTAMP, the value) that had
        its verdict, when it is on its way.
        """
        self.last_error = ""  # the traceback of the handler's last exception
        self._handlers = handlers
        self._change_handlers: Callable[[PacketHandlers], None] = lambda handlers: None
        self._move: Callable[[], None] = lambda: None
        self._inside, self._outside = frozenset(inside), outside
        self._fragments_marked = fragments_marked
        self._uncut = uncut
        self._passed = passed
        self._queues: tuple[KernelQueue, ...] = ()  # TCP's, the other
        self._drains: dict[int, Callable[[int], int]] = {}
        self._message = [b""]  # cells for the callback, which both queues share
        self._moment = [0.0]  # the time that packets are handled at
        self._mtus: dict[int, int] = {}
        self._handled = 0
        self._dropped = 0
        self._handler_errors = 0

    def open(self) -> None:
        """Bind to the first free queue numbers. Raises DatapathError if that cannot be."""
        taken: set[int] = set()
        with contextlib.suppress(DatapathError):
            # A gateway that was killed left rules that name its queues: its packets are not ours.
            taken = Netfilter("iptables").queue_numbers()
        callback = self._callback()
        self._queues = tuple(KernelQueue(callback, self._message, taken) for _ in range(2))
        for queue in self._queues:
            queue.open()
        self._queues[0].leave_uncut()
        self._drains = {queue.fileno(): queue.drain for queue in self._queues}

    @property
    def numbers(self) -> QueueNumbers:
        """What rules have to name."""
        tcp, other = (queue.number for queue in self._queues)
        return QueueNumbers(tcp, other)

    def descriptors(self) -> tuple[int, ...]:
        """The sockets to poll for reading."""
        return tuple(self._drains)

    def drain(self, descriptor: int, limit: int, now: float) -> int:
        """Handle the packets that wait there, at most ``limit``, at ``now``; returns how many."""
        self._moment[0] = now
        handled = self._drains[descriptor](limit)
        self._handled += handled
        return handled

    def change_handlers(self, handlers: PacketHandlers, *, finished: bool = False) -> None:
        """Hand packets to ``handlers`` from now on; not while ``drain`` runs.

        ``finished``: with checksums as they will be on a wire, for captures.
        """
        self._handlers = (
            [self._finishing(handler) for handler in handlers] if finished else handlers
        )
        self._change_handlers(self._handlers)

    def interfaces_are(self, inside: Iterable[int], outside: int) -> None:
        """Interfaces have other numbers: they were removed and created again."""
        self._inside, self._outside = frozenset(inside), outside
        self._move()

    def _finishing(self, handler: PacketHandler) -> PacketHandler:
        message = self._message

        def finished(packet: bytes, now: float) -> bytes | None:
            at = len(message[0]) - len(packet) - 12  # as in ``on_packet``
            if message[0][at : at + 8] not in _UNFINISHED:
                return handler(packet, now)
            whole = completed(packet)
            verdict = handler(whole, now)
            return packet if verdict is whole else verdict  # as it is: the kernel continues with it

        return finished

    def _callback(self) -> Callable[[Packet], None]:  # noqa: C901, PLR0915
        """What the binding calls for each packet. A closure: it looks up less for each of them."""
        outside, moment, message = self._outside, self._moment, self._message
        inside = self._inside
        unfinished = _UNFINISHED
        outbound, inbound, hairpin, local_error, lateral, probe = _in_order(self._handlers)
        in_fragments = self._in_fragments()
        marked = self._fragments_marked
        passed = self._passed

        def change(handlers: PacketHandlers) -> None:
            nonlocal outbound, inbound, hairpin, local_error, lateral, probe, in_fragments
            outbound, inbound, hairpin, local_error, lateral, probe = _in_order(handlers)
            in_fragments = self._in_fragments()

        def move() -> None:
            nonlocal outside, inside
            outside, inside = self._outside, self._inside

        self._change_handlers = change
        self._move = move

        def on_packet(packet: Packet) -> None:
            payload = packet.get_payload()
            hook = packet.hook
            if hook == _FORWARD:
                handler = outbound if packet.outdev == outside else lateral
            elif hook == _PREROUTING:
                handler = hairpin if packet.indev in inside else inbound
            else:
                handler = local_error if packet.outdev == outside else probe
            if marked and packet.get_mark() & MARK:
                handler = in_fragments.get(handler, handler)
            try:
                verdict = handler(payload, moment[0])
                if verdict is not None and verdict is not payload:
                    # The message ends with what there is to say of the checksum (8 bytes, the
                    # first of them an 8), the payload's header (4 bytes) and the payload, unpadded.
                    raw = message[0]
                    at = len(raw) - len(payload) - 12
                    if raw[at] == 8 and raw[at : at + 8] in unfinished:
                        verdict = completed(verdict)
                    packet.set_payload(verdict)  # rejects what is not bytes
            except Exception:
                # The loop must outlive any error of the handler; untranslated nothing passes.
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
            if passed is not None:
                # A timestamp (20 bytes, which its first one says) is all that may stand between
                # the interfaces and what there is to say of the checksum, if that is there.
                raw = message[0]
                at = len(raw) - len(payload) - 24
                if raw[at] == 20 and raw[at : at + 4] == _TIMESTAMP:
                    passed(raw[at + 4 : at + 20])
                elif raw[at - 8] == 20 and raw[at - 8 : at - 4] == _TIMESTAMP:
                    passed(raw[at - 4 : at + 12])

        return on_packet

    def _in_fragments(self) -> dict[PacketHandler, PacketHandler]:
        """For a handler, what it is for a packet that came in fragments, where it is another."""
        return {self._handlers[ingress.whole]: self._handlers[ingress] for ingress in IngressPath}

    def _count_segments(self, packet: Packet, payload: bytes) -> None:
        index = packet.indev
        mtu = self._mtus.get(index)
        if mtu is None:
            mtu = self._mtus[index] = _mtu(index)
        if len(payload) > mtu:
            outward = packet.hook == _FORWARD or index != self._outside
            lateral = packet.hook == _FORWARD and packet.outdev != self._outside
            ingress = IngressPath.OUTBOUND if outward else IngressPath.INBOUND
            self._uncut(payload, IngressPath.LATERAL if lateral else ingress, mtu)

    def statistics(self) -> QueueStatistics:
        """The counters; reads a file of /proc, so not for every packet."""
        self._mtus.clear()  # they may change; this is called now and then
        waiting, kernel_dropped, user_dropped = map(
            sum, zip(*(queue.counts() for queue in self._queues), strict=True)
        )
        return QueueStatistics(
            handled=self._handled,
            dropped=self._dropped,
            handler_errors=self._handler_errors,
            overflows=sum(queue.overflows for queue in self._queues),
            kernel_dropped=kernel_dropped,
            user_dropped=user_dropped,
            waiting=waiting,
        )

    def close(self) -> None:
        """Unbind. Packets that still wait are dropped by the kernel."""
        for queue in self._queues:
            queue.close()


def _in_order(
    handlers: PacketHandlers,
) -> tuple[
    PacketHandler, PacketHandler, PacketHandler, PacketHandler, PacketHandler, PacketHandler
]:
    """Outbound, inbound, hairpin, local errors, lateral, probes."""
    return (
        handlers[IngressPath.OUTBOUND],
        handlers[IngressPath.INBOUND],
        handlers[IngressPath.HAIRPIN],
        handlers[IngressPath.LOCAL_ERROR],
        handlers[IngressPath.LATERAL],
        handlers[IngressPath.PROBE],
    )


def _mtu(index: int) -> int:
    """An interface's MTU; without the interface, as many bytes as a packet can have."""
    try:
        return int(Path(f"/sys/class/net/{socket.if_indextoname(index)}/mtu").read_text())
    except (OSError, ValueError):
        return 0xFFFF
