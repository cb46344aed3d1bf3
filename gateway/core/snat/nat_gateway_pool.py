"""A NAT gateway's SNAT ports: shared on demand by all VMs of its subnets.

``NatGatewayPool`` has the ports of one public IP for one protocol. A new flow gets one at random
among those that no flow has; when there is none left, one at random that no flow has toward the
same destination (docs/fidelity.md A2). A port of an ended flow stays held toward that flow's
destination until its hold is over (A4), and may serve others.

``VmNatUsage`` is a VM's view of it, and what a flow holds its port by: it counts what is the VM's.

Taking and releasing costs the same however many ports are in use.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from gateway.core.snat.free_port_bitmap import FreePortBitmap
from gateway.core.snat.port_pool import busiest_of

_SPARSE = 8  # a destination with less than one in so many ports is kept as a set


class NatGatewayPool:
    """The ports of one public IP for one protocol. Indices count them from the first."""

    __slots__ = ("_free", "_holders", "_order", "_place", "_toward", "count", "first")

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.count = count
        self._free = count
        self._holders = array("I")  # flows that hold the port
        # A permutation: the first ``_free`` are the ports that no flow holds.
        self._order = array("H")
        self._place = array("H")
        self._toward: dict[bytes, set[int] | FreePortBitmap] = {}

    @property
    def free(self) -> int:
        """Ports that no flow holds, toward any destination."""
        return self._free

    def free_toward(self, destination: bytes) -> int:
        """How many more flows could go toward ``destination``."""
        return self.count - _held(self._toward.get(destination))

    def take(self, destination: bytes, random: Random) -> int:
        """Hold a port toward ``destination``; 0 if every one is held toward it."""
        port = self.foreseen(destination, random)
        if port:
            if not self._order:
                self._begin()
            self._hold_toward(destination, self._toward.get(destination), port - self.first)
        return port

    def foreseen(self, destination: bytes, random: Random) -> int:
        """The port that ``take`` would hold; 0 if there is none."""
        if self._free:
            place = int(random.random() * self._free)
            return self.first + (self._order[place] if self._order else place)
        toward = self._toward.get(destination)
        if _held(toward) == self.count:
            return 0
        return self.first + self._spare(toward, random)

    def take_again(self, destination: bytes, port: int) -> bool:
        """Hold ``port`` toward ``destination`` if no flow does; return whether."""
        index = port - self.first
        toward = self._toward.get(destination)
        if not 0 <= index < self.count:
            return False
        if isinstance(toward, FreePortBitmap) and not toward.is_free(index):
            return False
        if isinstance(toward, set) and index in toward:
            return False
        if not self._order:
            self._begin()
        self._hold_toward(destination, toward, index)
        return True

    def release(self, destination: bytes, port: int) -> None:
        """Give a held port back."""
        index = port - self.first
        toward = self._toward[destination]
        if isinstance(toward, FreePortBitmap):
            toward.put(index)
        else:
            toward.remove(index)
        if not _held(toward):
            del self._toward[destination]
        self._holders[index] -= 1
        if not self._holders[index]:
            self._swap(index, self._free)
            self._free += 1

    @property
    def held(self) -> int:
        """Ports held, each counted once for every destination that it is held toward."""
        return sum(self._holders)

    def _begin(self) -> None:
        self._holders.extend(bytes(self.count))
        self._order.extend(range(self.count))
        self._place.extend(range(self.count))

    def _spare(self, toward: set[int] | FreePortBitmap | None, random: Random) -> int:
        """Any index that is not held toward a destination; there is one."""
        index = int(random.random() * self.count)
        if isinstance(toward, FreePortBitmap):
            return toward.after(index)
        while toward is not None and index in toward:  # seldom: it is sparse
            index = int(random.random() * self.count)
        return index

    def _hold_toward(
        self, destination: bytes, toward: set[int] | FreePortBitmap | None, index: int
    ) -> None:
        self._hold(index)
        if toward is None:
            self._toward[destination] = {index}
        elif isinstance(toward, FreePortBitmap):
            toward.take(index)
        else:
            toward.add(index)
            if len(toward) * _SPARSE > self.count:
                holes = self._toward[destination] = FreePortBitmap(0, self.count)
                for taken in toward:
                    holes.take(taken)

    def _hold(self, index: int) -> None:
        self._holders[index] += 1
        if self._holders[index] == 1:
            self._free -= 1
            self._swap(index, self._free)

    def _swap(self, index: int, place: int) -> None:
        """Put an index to another place of the permutation."""
        order, places = self._order, self._place
        other, old = order[place], places[index]
        order[old], order[place] = other, index
        places[other], places[index] = old, place


class VmNatUsage:
    """What one VM holds of the shared ports, and how often it found none."""

    __slots__ = (
        "_taken",
        "address",
        "cooling",
        "failed",
        "gone",
        "high_water",
        "idle_timeout",
        "shared",
        "used",
    )

    def __init__(self, address: bytes, shared: NatGatewayPool, idle_timeout: float) -> None:
        self.address = address  # the public IP, 4 bytes
        self.shared = shared
        self.idle_timeout = idle_timeout  # of a flow that was answered
        self.used = 0  # one for each flow; a port counts again for each destination
        self.high_water = 0
        self.cooling = 0
        self.failed = 0
        self.gone = False
        self._taken: dict[bytes, int] = {}

    @property
    def ranges(self) -> tuple[range, ...]:
        """The ports of the public IP, for all VMs together."""
        first = self.shared.first
        return (range(first, first + self.shared.count),)

    @property
    def count(self) -> int:
        """How many these are."""
        return self.shared.count

    @property
    def free(self) -> int:
        """Those that no flow holds."""
        return self.shared.free

    def take(self, destination: bytes, random: Random) -> int:
        """Hold a port toward ``destination``; 0 if every one is held toward it."""
        port = self.shared.take(destination, random)
        if port:
            self._count(destination)
        return port

    def take_again(self, destination: bytes, port: int) -> bool:
        """Hold what a flow held before a restart; False: another flow does."""
        if not self.shared.take_again(destination, port):
            return False
        self._count(destination)
        return True

    def _count(self, destination: bytes) -> None:
        self._taken[destination] = self._taken.get(destination, 0) + 1
        self.used += 1
        self.high_water = max(self.high_water, self.used)

    def release(self, destination: bytes, port: int) -> None:
        """Give a held port back."""
        self.shared.release(destination, port)
        left = self._taken[destination] - 1
        if left:
            self._taken[destination] = left
        else:
            del self._taken[destination]
        self.used -= 1

    def free_toward(self, destination: bytes) -> int:
        """How many more flows could go toward ``destination``."""
        return self.shared.free_toward(destination)

    @property
    def destinations(self) -> int:
        """How many destinations the VM has flows to."""
        return len(self._taken)

    @property
    def held(self) -> int:
        """The same as ``used``: what the flows of the VM hold."""
        return sum(self._taken.values())

    def busiest(self) -> Iterator[tuple[tuple[bytes, int], ...] | None]:
        """The destinations that take the VM's most ports, busiest first; None after each slice."""
        return busiest_of(self._taken, lambda destination: self._taken.get(destination, 0))

    # A public IP that goes elsewhere takes all its ports along.

    def relocate(self, _ranges: Iterable[range]) -> bool:
        """Forget what is held: the shared ports no longer exist."""
        was_held = self.used > 0
        self.used = 0
        self._taken = {}
        self.gone = True
        return not was_held

    def take_exactly(self, _destination: bytes, _port: int) -> bool:
        """A NAT gateway's ports are taken at random."""
        return False

    def has(self, _port: int) -> bool:
        """Whether a flow may hold this port."""
        return not self.gone


def choose(shares: Sequence[VmNatUsage], destination: bytes, random: Random) -> int:
    """Which share a new flow takes its port from: any free port is as likely as any other.

    -1: none of them has one toward ``destination``.
    """
    room = [share.free for share in shares]
    if not any(room):
        room = [share.free_toward(destination) for share in shares]
    left = int(random.random() * sum(room))
    for number, ports in enumerate(room):
        left -= ports
        if left < 0:
            return number
    return -1


def _held(toward: set[int] | FreePortBitmap | None) -> int:
    if toward is None:
        return 0
    return toward.taken if isinstance(toward, FreePortBitmap) else len(toward)
