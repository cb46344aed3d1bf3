r"""What a NAT needs of TCP's state, no more: a table, read by the engine, the tests and the docs.

                 SYN (original)
                      |
                   OPENING --- anything but FIN/RST from the remote ---> ESTABLISHED
                      |  \                                                 |
                      |   +------------------- FIN ------------------------+
                      |                         |
                      |            FIN_FROM_ORIGINAL / FIN_FROM_REPLY
                      |                         | FIN from the other side
                     RST (either side,          v
                      |  in any state)       FINISHED
                      v
                    RESET

Azure releases a port 240 s after the last packet once a FIN was seen, 15 s after an RST, and at
the idle timeout otherwise (docs/fidelity.md A4). A half-open flow has the idle timeout too.
FINISHED and RESET flows pass what still arrives for them, and hold their port (``CoolDown`` in
listings). A SYN from the side that opened it, on such a flow or a half-closed one, is a new
connection: it gets a flow and a port of its own while the old port is held. RST and sequence
numbers are not validated against a window.
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
    """A TCP segment as the table sees it. RST wins over SYN over FIN."""

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
