"""Which ports are free toward one destination, when they are not simply all from the n-th on.

Indices from 0, not port numbers: which ports these are is the pool's. The cost of taking and
releasing does not grow with the ports in use.
"""

from __future__ import annotations

WORD = 256  # ports in a word: two levels of about this size cover 64,000


class FreePortBitmap:
    """The free ports toward one destination, as a bitmap of two levels.

    ``words`` has a bit for each free index; ``summary`` a bit for each word that is not empty. The
    lowest free index is found by two isolations of a lowest set bit, on integers whose size does
    not grow as ports are used.
    """

    __slots__ = ("count", "summary", "taken", "words")

    def __init__(self, first_free: int, count: int) -> None:
        """``count`` indices, of which those below ``first_free`` are taken."""
        self.taken = first_free
        self.count = count
        self.words = [0] * ((count + WORD - 1) // WORD)
        self.summary = 0
        for number in range(len(self.words)):
            low, high = number * WORD, min(count, (number + 1) * WORD)
            used = min(max(first_free - low, 0), high - low)
            word = (1 << (high - low)) - (1 << used)
            self.words[number] = word
            if word:
                self.summary |= 1 << number

    def lowest(self) -> int:
        """The lowest free index; -1 if there is none."""
        if not self.summary:
            return -1
        number = (self.summary & -self.summary).bit_length() - 1
        word = self.words[number]
        return number * WORD + (word & -word).bit_length() - 1

    def after(self, index: int) -> int:
        """The lowest free index from ``index`` on, else the lowest of all; there is one."""
        number = index // WORD
        word = self.words[number] >> index % WORD
        if word:
            return index + (word & -word).bit_length() - 1
        later = self.summary >> number + 1
        if not later:
            return self.lowest()
        number += (later & -later).bit_length()
        word = self.words[number]
        return number * WORD + (word & -word).bit_length() - 1

    def is_free(self, index: int) -> bool:
        """Whether the port with this index is free."""
        return bool(self.words[index // WORD] >> index % WORD & 1)

    def indices(self) -> list[int]:
        """Those that are taken, ascending."""
        found = []
        for number, word in enumerate(self.words):
            low = number * WORD
            size = min(WORD, self.count - low)
            taken = (1 << size) - 1 & ~word
            while taken:
                lowest = taken & -taken
                found.append(low + lowest.bit_length() - 1)
                taken ^= lowest
        return found

    def take(self, index: int) -> None:
        """Take a free index."""
        number = index // WORD
        self.words[number] ^= 1 << index % WORD
        if not self.words[number]:
            self.summary ^= 1 << number
        self.taken += 1

    def put(self, index: int) -> None:
        """Give a taken index back."""
        number = index // WORD
        self.words[number] |= 1 << index % WORD
        self.summary |= 1 << number
        self.taken -= 1
