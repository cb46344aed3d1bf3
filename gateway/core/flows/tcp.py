"""What a NAT needs of TCP's state, and only that: a table, read by the engine, the tests and the
docs.

docs/architecture.md, "TCP's states", draws it from ``TRANSITIONS``.

Azure releases a port 240 s after the last packet once a FIN was seen, 15 s after an RST, and at
the idle timeout otherwise (docs/fidelity.md A4). A half-open flow has the idle timeout too.
FINISHED and RESET flows pass what still arrives for them, and hold their port (``CoolDown`` in
listings).

What is repeated is not new, and what is forged or late changes nothing (``sequence.py``): an RST
moves the state only with a number that its receiver would take, and an answer to a SYN only if it
acknowledges that SYN; all pass on, the ends decide. A SYN with the number of the one that opened
the flow is that one again, in every state: it passes with the flow, and if an RST had ended this,
the flow is OPENING again. A SYN with another number, from the side that opened it:

    OPENING              its sender gave up and tries again: the flow continues with this number
    ESTABLISHED          passes; the other end answers with an ACK (RFC 5961, 4) and is then reset,
                         or has forgotten the connection, too, and answers or resets the new one
    one side has closed  a new connection, if the number is ahead of the first; else it is an old
                         duplicate, and passes
    FINISHED, RESET      a new connection (RFC 9293, 3.10.7.4: TIME-WAIT)

A new connection gets a flow and a port of its own while the old port is held. The numbers of FINs
are not checked: a forged one has the flow end after four minutes without a packet.
"""

from enum import IntEnum


class State(IntEnum):
    """State of a flow. UDP and ICMP use the first two only."""

    OPENING = 0
    ESTABLISHED = 1
    FIN_FROM_ORIGINAL = 2
    FIN_FROM_REPLY = 3
    FINISHED = 4
    RESET = 5


class Segment(IntEnum):
    """A TCP segment as the table sees it: RST wins over SYN, that over FIN. SYN: with ACK."""

    DATA = 0
    FIN = 1
    SYN = 2
    RST = 3


class Side(IntEnum):
    """Which of the flow's two directions a packet travels in."""

    ORIGINAL = 0
    REPLY = 1


FIN_FLAG, SYN_FLAG, RST_FLAG, ACK_FLAG = 0x01, 0x02, 0x04, 0x10

# What the low three flag bits (RST, SYN, FIN) make of a segment.
SEGMENT_OF_FLAGS: tuple[Segment, ...] = (
    Segment.DATA,
    Segment.FIN,
    Segment.SYN,
    Segment.SYN,
    Segment.RST,
    Segment.RST,
    Segment.RST,
    Segment.RST,
)

CLOSING = frozenset({State.FIN_FROM_ORIGINAL, State.FIN_FROM_REPLY})
ENDED = frozenset({State.FINISHED, State.RESET})

_O, _R = Side.ORIGINAL, Side.REPLY

# (state, side, segment) -> next state. What is absent leaves the state as it is.
TRANSITIONS: dict[tuple[State, Side, Segment], State] = {
    (State.OPENING, _R, Segment.SYN): State.ESTABLISHED,
    (State.OPENING, _R, Segment.DATA): State.ESTABLISHED,
    (State.OPENING, _O, Segment.FIN): State.FIN_FROM_ORIGINAL,
    (State.OPENING, _R, Segment.FIN): State.FIN_FROM_REPLY,
    (State.ESTABLISHED, _O, Segment.FIN): State.FIN_FROM_ORIGINAL,
    (State.ESTABLISHED, _R, Segment.FIN): State.FIN_FROM_REPLY,
    (State.FIN_FROM_ORIGINAL, _R, Segment.FIN): State.FINISHED,
    (State.FIN_FROM_REPLY, _O, Segment.FIN): State.FINISHED,
} | {
    (state, side, Segment.RST): State.RESET
    for state in State
    if state is not State.RESET
    for side in Side
}


def is_opening(flags: int) -> bool:
    """Whether a segment may open a flow: SYN, and none of ACK, RST, FIN (RFC 9293, 3.10.7)."""
    return flags & (SYN_FLAG | ACK_FLAG | RST_FLAG | FIN_FLAG) == SYN_FLAG
