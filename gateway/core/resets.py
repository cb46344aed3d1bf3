"""RSTs that the gateway itself sends: whose, to whom, with which numbers. They wait in an outbox.

Two occasions (docs/fidelity.md A7, T1). An established flow idles out whose rule has
``enableTcpReset``: both ends are told. A VM behind a NAT gateway, or somebody outside, sends to a
flow of a NAT gateway that is no more: the sender alone is told.

A receiver takes an RST only if its sequence number is exactly the next one that it expects (RFC
5961, 3.2): that is what it acknowledged last. So a flow that may have to be reset remembers the
last acknowledgement from either side, and no other flow remembers anything.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import NamedTuple

from gateway.core.flow import Flow
from gateway.core.packet import PacketView, completed
from gateway.core.tcp import ACK_FLAG, FIN_FLAG, RST_FLAG, SYN_FLAG, Side

ROOM = 1 << 17
"""RSTs that may wait: both ends of 65,536 flows that idle out at once, some 12 MB at worst."""
ROOM_FOR_ANSWERS = 256
"""Of what may wait when a stray packet is to be answered; beyond it, it is dropped silently."""

_ORIGINAL, _REPLY = Side.ORIGINAL, Side.REPLY
_IP = Struct("!BBHHHBBH4s4s")
_TCP = Struct("!HHIIBBHHH")
_NUMBERS = Struct("!II")
_ACKNOWLEDGED = Struct("!I")
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


class Acknowledged:
    """The last acknowledgement that each side of a flow sent; None: none yet."""

    __slots__ = ("private", "remote")

    def __init__(self) -> None:
        self.private: int | None = None
        self.remote: int | None = None

    def note(self, view: PacketView, side: Side) -> None:
        """Remember what a segment of the flow acknowledges."""
        if not view.kind & ACK_FLAG:
            return
        (number,) = _ACKNOWLEDGED.unpack_from(view.packet, view.transport + 8)
        if side is _ORIGINAL:
            self.private = number
        else:
            self.remote = number


class Outbox:
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

    def idled_out(self, flow: Flow, *, tell_remote: bool) -> None:
        """Tell the ends of an established flow that it is no more."""
        known = flow.acknowledged
        if known is None:
            return
        told = [(flow.original, known.private)]
        if tell_remote:
            told.append((flow.reply, known.remote))
        about = (IDLE_TIMEOUT, flow.id, flow.machine.name, flow.method.value)
        for key, number in told:
            if number is not None:
                packet = _reset(key[4:8], key[0:4], key[10:12] + key[8:10], number)
                self._put(ROOM, Reset(packet, *about))

    def answer(self, view: PacketView) -> None:
        """Answer a segment that belongs to nothing, as a closed port does (RFC 9293, 3.10.7.1)."""
        flags = view.kind
        if flags & RST_FLAG:
            return
        ports = view.ports[2:4] + view.ports[0:2]
        sequence, acknowledged = _NUMBERS.unpack_from(view.packet, view.transport + 4)
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
