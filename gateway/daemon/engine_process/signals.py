"""SIGTERM, SIGINT and SIGHUP as something to poll: nothing happens inside a signal handler.
Runs in the engine process.

They are taken from the first moment of ``snatgw run``, so that one that comes half-way through the
start is acted upon between two steps, when everything done so far can be undone.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from types import FrameType

from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.sd_notify import notify

STOP = frozenset({signal.SIGTERM, signal.SIGINT})
RELOAD = signal.SIGHUP


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up descriptor has the number already."""


class Signals:
    """Catches the daemon's signals until ``close``. Main thread only."""

    def __init__(self) -> None:
        self.stopped_by: int | None = None
        """The signal that stopped the loop."""
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handlers = {
            number: signal.signal(number, _noted) for number in (*sorted(STOP), RELOAD)
        }

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._reader.fileno()

    def take(self) -> list[int]:
        """The signals that have come since the last call, oldest first."""
        try:
            return list(self._reader.recv(64))
        except BlockingIOError:
            return []

    def close(self) -> None:
        """Give the signals back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before)
        self._reader.close()
        self._writer.close()


class SignalActions:
    """What signals lead to in the loop: it stops, or ``on_reload`` is called."""

    def __init__(self, signals: Signals, on_reload: Callable[[], None]) -> None:
        self._signals = signals
        self._on_reload = on_reload
        self._loop: EventLoop

    def register(self, loop: EventLoop) -> None:
        """Act on signals from now on, and tell the service manager when the loop stops."""
        self._loop = loop
        loop.add_reader(self._signals.fileno(), self._act)
        loop.at_stop(lambda: notify("STOPPING=1"))

    def _act(self) -> None:
        for number in self._signals.take():
            if number in STOP:
                self._signals.stopped_by = self._signals.stopped_by or number
                self._loop.stop()
            elif number == RELOAD:
                self._on_reload()
