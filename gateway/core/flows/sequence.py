"""What sequence numbers say about a segment: of this connection, repeated, or of another one.

Three numbers of 32 bits are kept for each TCP flow, by its slot and outside of the flow's object,
where they take 12 bytes: the number of the SYN that opened it, and what either side acknowledged
last, which is the number that it expects next of the other side (a SYN or SYN-ACK that passes
foretells it). 0 is unknown: a segment that cannot be checked counts.

The established way notes acknowledgements for each packet, and asks nothing. What is asked here is
whether a segment that would change the flow's state may do so:

* An RST counts if its number is what the other side expects, or at most ``WINDOW`` beyond it: data
  may be under way (RFC 9293, 3.10.7.4; RFC 5961 has the receiver ignore what is outside). Before
  the first answer it must acknowledge the SYN (3.10.7.3).
* An answer establishes the flow if it acknowledges the SYN. Another one is of an older connection
  that the remote still has: the opener will reset that one, and send its SYN again (RFC 9293,
  figures 9 and 10).
"""

from __future__ import annotations

from array import array

from gateway.core.flows.tcp import ACK_FLAG, RST_FLAG, SYN_FLAG, Side

WINDOW = 1 << 16
"""Beyond the number that is expected: what may be under way when a connection is reset. It is no
receiver's window (those are scaled): a forged number fits once in 65,536 times, and an RST that
overtakes more than this is repeated, with the right number, in answer to what still arrives."""
_MASK = 0xFFFFFFFF
_HALF = 1 << 31
_AT_ONCE = 1024  # slots


class Numbers:
    """The numbers of all flows, by slot."""

    __slots__ = ("acknowledged", "opening")

    def __init__(self) -> None:
        self.opening = array("I")
        self.acknowledged = (array("I"), array("I"))
        """By the side that acknowledges: ``Side.ORIGINAL`` is the VM's."""

    def make_room(self, slots: int) -> None:
        """Have numbers for so many slots."""
        while len(self.opening) < slots:
            for numbers in (self.opening, *self.acknowledged):
                numbers.frombytes(bytes(4 * _AT_ONCE))

    def forget(self, slot: int) -> None:
        """Another flow is in the slot from now on."""
        self.opening[slot] = self.acknowledged[0][slot] = self.acknowledged[1][slot] = 0

    def resume(self, slot: int, opening: int, acknowledged: tuple[int, int]) -> None:
        """Continue with what an earlier process knew."""
        self.opening[slot] = opening
        self.acknowledged[0][slot], self.acknowledged[1][slot] = acknowledged

    def of(self, slot: int) -> tuple[int, int]:
        """What the VM's side and the remote's acknowledged last, or are about to; 0: unknown."""
        return self.acknowledged[0][slot], self.acknowledged[1][slot]

    def learn(self, slot: int, acknowledged: tuple[int, int]) -> None:
        """Continue with what each side acknowledged, where something else than the SYN foretold.

        What is not beyond that was offloaded so, and no segment has passed there since: those
        of a flow that cannot be carried all come here.
        """
        foretold = 0, self.opening[slot] + 1 & _MASK
        for side, number in enumerate(acknowledged):
            if number not in foretold:
                self.acknowledged[side][slot] = number

    def open(self, slot: int, side: Side, sequence: int) -> None:
        """A SYN of this number passed from ``side``, which opens the flow, or opens it again."""
        self.opening[slot] = sequence
        private, remote = self.acknowledged
        expected = sequence + 1 & _MASK if sequence else 0
        private[slot], remote[slot] = (expected, 0) if side else (0, expected)

    def open_again(self, slot: int, side: Side, sequence: int) -> None:
        """A SYN from ``side`` of a flow that lives: what it expects is not known any more."""
        self.opening[slot] = sequence
        self.acknowledged[side][slot] = 0

    def is_newer(self, slot: int, sequence: int) -> bool:
        """Whether a SYN's number lies ahead of the number of the one that opened the flow."""
        return 0 < (sequence - self.opening[slot] & _MASK) < _HALF

    def counts(self, slot: int, side: Side, flags: int, numbers: tuple[int, int]) -> bool:
        """Whether a segment from ``side`` may change its flow's state; notes what it acknowledges.

        It is not the answer to a SYN: ``answers`` checks that.
        """
        if flags & RST_FLAG:
            expected = self.acknowledged[side ^ 1][slot]
            return not expected or _follows(numbers[0], expected)
        if flags & ACK_FLAG and not flags & SYN_FLAG:
            self.acknowledged[side][slot] = numbers[1]
        return True

    def answers(self, slot: int, side: Side, flags: int, numbers: tuple[int, int]) -> bool:
        """Whether a segment from ``side`` answers the SYN that opened the flow."""
        sequence, acknowledged = numbers
        opening = self.opening[slot]
        if not opening:
            return self.counts(slot, side, flags, numbers)
        if not flags & ACK_FLAG or not _follows(acknowledged, opening + 1):
            return False
        if not flags & RST_FLAG:
            self.acknowledged[side][slot] = acknowledged
            if flags & SYN_FLAG:
                self.acknowledged[side ^ 1][slot] = sequence + 1 & _MASK
        return True

    def settle(self, slot: int, side: Side, numbers: tuple[int, int]) -> None:
        """The opener, ``side``, acknowledges an answer: now it is known which SYN it was to."""
        sequence = numbers[0]
        if self.opening[slot] and not _follows(sequence, self.opening[slot] + 1):
            self.open(slot, side, sequence - 1 & _MASK)


def _follows(number: int, expected: int) -> bool:
    return (number - expected & _MASK) <= WINDOW
