"""The engine process's loop: one thread, no asyncio, packets first.

A turn: up to 64 packets; expiry; events taken over; one slice of what the API process asked for,
one of what else takes long; then poll: while packets come quickly, again and again before it
sleeps. Nothing else in a turn waits, and each part of it is bounded, so
that neither a listing of the whole table nor a mass expiry holds packets up for more than about a
millisecond.

Time is read once a turn, and every packet of the turn is handled at that time.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from gateway.core.events import Event
from gateway.daemon.engine_process.cpu_quota import processors
from gateway.daemon.engine_process.request_channel import RequestChannel
from gateway.daemon.engine_process.signals import Signals

PACKETS_PER_TURN = 64
EXPIRED_PER_TURN = 512
EXPIRY_INTERVAL = 0.005
"""Seconds (real) between looks at the timers while packets come without a pause."""
IDLE_MILLISECONDS = 50
HOUSEKEEPING_INTERVAL = 1.0
"""Seconds (real) between looks at the queue's own counters."""
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


class Engine(Protocol):
    """The engine as the loop sees it."""

    def expire(self, now: float, limit: int = ...) -> int:
        """End flows whose time is over, ``limit`` at most; how many there were."""

    def take_events(self) -> list[Event]:
        """The events since the last call."""


class EventLoop:
    """EventLoop the loop until ``stop``. ``azure_time`` maps real seconds to the engine's."""

    def __init__(  # noqa: PLR0913
        self,
        engine: Engine,
        control: RequestChannel,
        signals: Signals,
        *,
        monotonic: Callable[[], float],
        azure_time: Callable[[float], float],
        on_event: Callable[[Event], None],
        on_signal: Callable[[int], None],
        on_api_gone: Callable[[], None],
        housekeeping: Callable[[float], None],
    ) -> None:
        self._engine = engine
        self._control = control
        self._signals = signals
        self._monotonic = monotonic
        self._azure_time = azure_time
        self._on_event = on_event
        self._on_signal = on_signal
        self._on_api_gone = on_api_gone
        self._housekeeping = housekeeping
        self._readers: dict[int, Callable[[], None]] = {}
        self._slices: deque[Iterator[object]] = deque()
        self._looks: list[Callable[[], None]] = []
        self._poll = select.poll()
        self._control_fd = -1
        self._control_mask = 0
        self.now = azure_time(monotonic())
        self.stopping = False
        self.packets = 0

    def watch(self, descriptor: int, on_readable: Callable[[], None]) -> None:
        """Call ``on_readable`` when ``descriptor`` can be read or has ended."""
        self._readers[descriptor] = on_readable
        self._poll.register(descriptor, select.POLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Undo ``watch``."""
        del self._readers[descriptor]
        self._poll.unregister(descriptor)

    def every_tick(self, look: Callable[[], None]) -> None:
        """Call ``look`` once a turn, before timers; it is quick."""
        self._looks.append(look)

    def spawn(self, work: Iterator[object]) -> None:
        """Do ``work`` one step a turn, packets in between, until it ends."""
        self._slices.append(work)

    def stop(self) -> None:
        """Leave the loop at the end of this turn."""
        self.stopping = True

    def run(self, queue: PacketSource) -> None:  # noqa: C901, PLR0912
        """Handle packets until ``stop``."""
        engine, control, monotonic = self._engine, self._control, self._monotonic
        queues = queue.descriptors()
        for descriptor in queues:
            self._poll.register(descriptor, select.POLLIN)
        self._poll.register(self._signals.fileno(), select.POLLIN)
        drain, poll = queue.drain, self._poll.poll
        expire_at = housekeeping_at = 0.0
        expired = 0
        ready = [*queues]
        quick, latest = 0, -SOON
        is_alone = processors() < 2  # who would send needs this processor
        while not self.stopping:
            real = monotonic()
            self.now = now = self._azure_time(real)
            drained = 0
            for descriptor in ready:
                drained += drain(descriptor, PACKETS_PER_TURN // len(ready), now)
            self.packets += drained
            if drained:
                quick = quick + 1 if real - latest < SOON else 0
                latest = monotonic()
            for look in self._looks:
                look()
            if real >= expire_at or expired == EXPIRED_PER_TURN:
                expire_at = real + EXPIRY_INTERVAL
                expired = engine.expire(now, EXPIRED_PER_TURN)
                for event in engine.take_events():
                    self._on_event(event)
                if real >= housekeeping_at:
                    housekeeping_at = real + HOUSEKEEPING_INTERVAL
                    self._housekeeping(real)
            if not control.work(now):
                self._on_api_gone()
            self._watch_control()
            self._do_slice()
            busy = (
                drained == PACKETS_PER_TURN
                or expired == EXPIRED_PER_TURN
                or control.has_work
                or bool(self._slices)
            )
            ready.clear()
            until = latest + SOON if quick >= QUICK and not is_alone else latest
            for descriptor, happened in poll(0) if busy else self._wait(until):
                if descriptor in queues:
                    ready.append(descriptor)
                elif descriptor == self._control_fd:
                    # POLLHUP alone, too: reading then tells that the other end is gone
                    if happened & ~select.POLLOUT and not control.read():
                        self._on_api_gone()
                elif descriptor == self._signals.fileno():
                    for number in self._signals.take():
                        self._on_signal(number)
                elif descriptor in self._readers:  # else an earlier one of these unwatched it
                    self._readers[descriptor]()

    def _wait(self, until: float) -> list[tuple[int, int]]:
        """What can be read, and how: looked for ``until`` then, after that slept for."""
        poll, monotonic = self._poll.poll, self._monotonic
        while monotonic() < until:
            if happened := poll(0):
                return happened
        return poll(IDLE_MILLISECONDS)

    def _do_slice(self) -> None:
        if self._slices:
            work = self._slices.popleft()
            if next(work, self) is not self:
                self._slices.append(work)

    def _watch_control(self) -> None:
        """Keep the poll set in step with the control channel, which may come and go."""
        descriptor = self._control.fileno()
        mask = select.POLLIN | (select.POLLOUT if self._control.wants_to_write else 0)
        if descriptor == self._control_fd and (descriptor < 0 or mask == self._control_mask):
            return
        if descriptor != self._control_fd and self._control_fd >= 0:
            self._poll.unregister(self._control_fd)
        if descriptor >= 0:
            self._poll.register(descriptor, mask)
        self._control_fd, self._control_mask = descriptor, mask
