"""RSTs that the gateway itself sends: of which flow, to which end, with which numbers. They wait in
a queue.

Two occasions (docs/fidelity.md A7, T1). An established flow idles out whose rule has
``enableTcpReset``: both ends get one. A VM behind a NAT gateway, or a host outside, sends to a
flow of a NAT gateway that no longer exists: the sender alone gets one.

A receiver takes an RST only if its sequence number is exactly the next one that it expects (RFC
5961, 3.2): that is what it acknowledged last, which ``sequence.Numbers`` keeps.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import NamedTuple

from gateway.core.flows.flow import Flow
from gateway.core.flows.sequence import Numbers
from gateway.core.flows.tcp import ACK_FLAG, FIN_FLAG, RST_FLAG, SYN_FLAG
from gateway.core.packet.view import PacketView, completed

ROOM = 1 << 17
"""RSTs that may wait: both ends of 65,536 flows that idle out at once, some 12 MB at worst."""
ROOM_FOR_ANSWERS = 256
"""Of what may wait when a stray packet is to be answered; beyond it, it is dropped silently."""

_IP = Struct("!BBHHHBBH4s4s")
_TCP = Struct("!HHIIBBHHH")
_WORD = 0xFFFFFFFF


class Reset(NamedTuple):
    """An RST, and for those who capture what it is about. ``flow`` None: there is none any more."""

    packet: bytes
    reason: str
    flow: int | None = None
    vm: str | None = None
    method: str | None = None


IDLE_TIMEOUT = "IdleTimeout"
NO_SUCH_FLOW = "NoSuchFlow"


class ResetQueue:
    """RSTs that wait to be sent; what has no room is counted and not sent."""

    __slots__ = ("_waiting", "suppressed")

    def __init__(self) -> None:
        self._waiting: deque[Reset] = deque()
        self.suppressed = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Reset | None:
        """The next one to send; None: nothing waits."""
        return self._waiting.popleft() if self._waiting else None

    def idled_out(self, flow: Flow, numbers: Numbers, *, tell_remote: bool) -> None:
        """Reset both ends of an established flow that has ended."""
        private, remote = numbers.acknowledged
        told = [(flow.original, private[flow.slot])]
        if tell_remote:
            told.append((flow.reply, remote[flow.slot]))
        about = (IDLE_TIMEOUT, flow.id, flow.machine.name, flow.method.value)
        for key, number in told:
            if number:
                packet = _reset(key[4:8], key[0:4], key[10:12] + key[8:10], number)
                self._put(ROOM, Reset(packet, *about))

    def answer(self, view: PacketView) -> None:
        """Answer a segment that belongs to nothing, as a closed port does (RFC 9293, 3.10.7.1)."""
        flags = view.kind
        if flags & RST_FLAG:
            return
        ports = view.ports[2:4] + view.ports[0:2]
        sequence, acknowledged = view.numbers
        if flags & ACK_FLAG:
            packet = _reset(view.destination, view.source, ports, acknowledged)
        else:
            headers = view.transport + (view.packet[view.transport + 12] >> 2 & 0x3C)
            length = len(view.packet) - headers + bool(flags & SYN_FLAG) + bool(flags & FIN_FLAG)
            packet = _reset(view.destination, view.source, ports, 0, sequence + length & _WORD)
        self._put(ROOM_FOR_ANSWERS, Reset(packet, NO_SUCH_FLOW))

    def _put(self, room: int, reset: Reset) -> None:
        if len(self._waiting) < room:
            self._waiting.append(reset)
        else:
            self.suppressed += 1


def _reset(
    source: bytes, destination: bytes, ports: bytes, sequence: int, acknowledge: int | None = None
) -> bytes:
    """An RST. ``acknowledge`` None: without ACK. ``ports``: source and destination port."""
    flags = RST_FLAG if acknowledge is None else RST_FLAG | ACK_FLAG
    transport = ports + _TCP.pack(0, 0, sequence, acknowledge or 0, 0x50, flags, 0, 0, 0)[4:]
    # Not to be fragmented; the kernel fills in identification and the header's checksum.
    head = _IP.pack(0x45, 0, 40, 0, 0x4000, 64, 6, 0, source, destination)
    total = sum(Struct("!10H").unpack(head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return completed(head[:10] + (total ^ 0xFFFF).to_bytes(2, "big") + head[12:] + transport)
