"""The engine process's loop: one thread, no asyncio, packets first. It knows none of its parts.
Runs in the engine process.

What takes part registers itself: a descriptor to read (``add_reader``), work of each turn
(``every_tick``), of each so many seconds (``every``), what is sent before the loop may sleep
(``before_sleep``), long work a step a turn (``spawn``), last words (``at_stop``) and what is done
when the last turn is over (``at_end``). Callbacks of a kind are called in the order in which they
were registered; ``gateway.py`` is where that is decided.

A turn: up to 64 packets; ticks; timers that are due; what is to be sent; one step of one long work;
then poll: while packets come quickly, again and again before it sleeps. Nothing else in a turn
waits, and each part of it is bounded, so that neither a listing of the whole table nor a mass
expiry holds packets up for more than about a millisecond.

Time is read once a turn, and every packet of the turn is handled at that time.
"""

from __future__ import annotations

import math
import select
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from gateway.daemon.engine_process.cpu_quota import processors

PACKETS_PER_TURN = 64
IDLE_MILLISECONDS = 50
SOON, QUICK = 0.0003, 8
"""After ``QUICK`` turns with packets, each within ``SOON`` seconds (real) of the one before, the
next is looked for that long before the process sleeps. To wake it, and perhaps its processor, takes
longer than to translate a packet. It costs a whole processor while packets come so, and nothing
while they come less often."""


class PacketSource(Protocol):
    """The packet queue as the loop sees it."""

    def descriptors(self) -> tuple[int, ...]:
        """Those that are readable when packets wait."""

    def drain(self, descriptor: int, limit: int, now: float) -> int:
        """Handle packets that wait, ``limit`` at most; how many there were."""


@dataclass
class _Timer:
    interval: float
    callback: Callable[[float], object]
    due: float = -math.inf


class EventLoop:
    """Turns until ``stop``. ``azure_time`` maps real seconds to the engine's."""

    def __init__(
        self,
        azure_time: Callable[[float], float],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._azure_time = azure_time
        self._monotonic = monotonic
        self._packets: PacketSource | None = None
        self._readers: dict[int, Callable[[], None]] = {}
        self._ticks: list[Callable[[], object]] = []
        self._timers: list[_Timer] = []
        self._timers_due = -math.inf
        self._flushes: list[Callable[[], bool]] = []
        self._slices: deque[Iterator[object]] = deque()
        self._last_words: list[Callable[[], object]] = []
        self._at_end: list[Callable[[], object]] = []
        self._poll = select.poll()
        self._stopping = False
        self.now = azure_time(monotonic())
        """The engine's time of this turn."""
        self.packets = 0

    # -- what takes part

    def packets_from(self, source: PacketSource) -> None:
        """Have packets handled first in each turn."""
        self._packets = source

    def add_reader(self, descriptor: int, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` when ``descriptor`` can be read or has ended."""
        self._readers[descriptor] = on_readable
        self._poll.register(descriptor, select.POLLIN)

    def await_room(self, descriptor: int, *, waits: bool) -> None:
        """Turn when a descriptor that is read can be written, too, or no longer."""
        self._poll.modify(descriptor, select.POLLIN | (select.POLLOUT if waits else 0))

    def remove_reader(self, descriptor: int) -> None:
        """Undo ``add_reader``."""
        del self._readers[descriptor]
        self._poll.unregister(descriptor)

    def every_tick(self, callback: Callable[[], object]) -> None:
        """Call it once a turn, after packets; it is quick."""
        self._ticks.append(callback)

    def every(self, seconds: float, callback: Callable[[float], object]) -> None:
        """Call it at the first turn and when ``seconds`` (real) have passed since the last time,
        with the monotonic time. True: there is more to do, call it in the next turn, at once."""
        self._timers.append(_Timer(seconds, callback))
        self._timers_due = -math.inf

    def before_sleep(self, flush: Callable[[], bool]) -> None:
        """Call it at the end of each turn. True: there is more to do, do not sleep."""
        self._flushes.append(flush)

    def spawn(self, work: Iterator[object]) -> None:
        """Do ``work`` one step a turn, packets in between, until it ends."""
        self._slices.append(work)

    def at_stop(self, callback: Callable[[], object]) -> None:
        """Call it when the loop is asked to stop."""
        self._last_words.append(callback)

    def at_end(self, callback: Callable[[], object]) -> None:
        """Call it after the last turn."""
        self._at_end.append(callback)

    # -- turning

    def stop(self) -> None:
        """Have the last words said, and leave the loop at the end of this turn."""
        if self._stopping:
            return
        self._stopping = True
        for callback in self._last_words:
            callback()

    def run(self) -> None:
        """Handle packets until ``stop``."""
        packets = self._packets
        assert packets is not None
        self._turn_until_stopped(packets)
        for callback in self._at_end:
            callback()

    def _turn_until_stopped(self, packets: PacketSource) -> None:  # noqa: C901
        monotonic, ticks, flushes = self._monotonic, self._ticks, self._flushes
        queues = packets.descriptors()
        for descriptor in queues:
            self._poll.register(descriptor, select.POLLIN)
        drain, poll = packets.drain, self._poll.poll
        ready = [*queues]
        quick, latest = 0, -SOON
        is_alone = processors() < 2  # who would send needs this processor
        while not self._stopping:
            real = monotonic()
            self.now = now = self._azure_time(real)
            drained = 0
            for descriptor in ready:
                drained += drain(descriptor, PACKETS_PER_TURN // len(ready), now)
            if drained:
                self.packets += drained
                quick = quick + 1 if real - latest < SOON else 0
                latest = monotonic()
            for tick in ticks:
                tick()
            busy = drained == PACKETS_PER_TURN
            if real >= self._timers_due and self._run_timers(real):
                busy = True
            for flush in flushes:
                if flush():
                    busy = True
            if self._slices and self._do_slice():
                busy = True
            ready.clear()
            until = latest + SOON if quick >= QUICK and not is_alone else latest
            for descriptor, happened in poll(0) if busy else self._wait(until):
                if descriptor in queues:
                    ready.append(descriptor)
                # POLLHUP alone, too: reading then shows that the other end is gone
                elif happened & ~select.POLLOUT:
                    reader = self._readers.get(descriptor)
                    if reader is not None:  # else an earlier one of these removed it
                        reader()

    def _run_timers(self, real: float) -> bool:
        """Call those that are due; whether one of them has more to do."""
        more = False
        for timer in self._timers:
            if real < timer.due:
                continue
            if timer.callback(real) is True:
                more, timer.due = True, real
            else:
                timer.due = real + timer.interval
        self._timers_due = min((timer.due for timer in self._timers), default=math.inf)
        return more

    def _wait(self, until: float) -> list[tuple[int, int]]:
        """What can be read, and how: looked for ``until`` then, after that slept for."""
        poll, monotonic = self._poll.poll, self._monotonic
        while monotonic() < until:
            if happened := poll(0):
                return happened
        return poll(IDLE_MILLISECONDS)

    def _do_slice(self) -> bool:
        """A step of the longest waiting work; whether there is more."""
        work = self._slices.popleft()
        if next(work, self) is not self:
            self._slices.append(work)
        return bool(self._slices)
