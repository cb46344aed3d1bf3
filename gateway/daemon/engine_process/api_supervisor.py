"""Starts the API process, talks to it over the request channel, and starts it again if it ends.
Runs in the engine process.

The API process is another one, without privileges, and may die or hang at any time: packets are not
affected. It is started again a bounded number of times; then the gateway goes on without it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from gateway.daemon.console import Level, say, warn
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.request_channel import RequestChannel
from gateway.daemon.engine_process.restart_limiter import LIMIT, WINDOW, RestartLimiter

MESSAGES_AT_STOP = 256
_SOCKET_BUFFER = 4 << 20


class ApiSupervisor:
    """The engine process's handle on the API process.

    ``start`` starts one at the other end of a socket, in place of the one before, and raises
    OSError when the supervisor is gone. ``on_gone`` is called when it has ended.
    """

    def __init__(
        self,
        channel: RequestChannel,
        loop: EventLoop,
        start: Callable[[socket.socket], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._channel = channel
        self._start = start
        self._on_gone = on_gone
        self._loop = loop
        self._descriptor = -1  # that the loop reads; -1: there is no API process
        self._awaits_room = False
        self._wanted = True  # False: it ended too often
        self._restarts = RestartLimiter()

    def register(self, loop: EventLoop) -> None:
        """Exchange messages once a turn, and see about once a second that there is one."""
        loop.every(1.0, self._tick)
        loop.before_sleep(self._exchange)
        loop.at_stop(self._send_the_rest)

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self._restarts.count

    def begin(self) -> None:
        """Start it. Raises OSError if the supervisor is gone."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
            self._start(theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._channel.connect(ours)
        self._descriptor, self._awaits_room = ours.fileno(), False
        self._loop.add_reader(self._descriptor, self._readable)

    def end(self) -> None:
        """Let it go: it ends when its channel does."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            self._descriptor = -1
        self._channel.disconnect()

    def _readable(self) -> None:
        if not self._channel.read():
            self._gone()

    def _exchange(self) -> bool:
        channel = self._channel
        if not channel.work():
            self._gone()
        elif self._descriptor >= 0 and channel.wants_to_write is not self._awaits_room:
            self._awaits_room = channel.wants_to_write
            self._loop.await_room(self._descriptor, waits=self._awaits_room)
        return channel.has_work

    def _send_the_rest(self) -> None:
        for _ in range(MESSAGES_AT_STOP):
            if not self._channel.work() or not self._channel.has_work:
                break

    def _gone(self) -> None:
        self.end()
        self._on_gone()

    def _tick(self, real: float) -> None:
        if self._descriptor >= 0 or not self._wanted:
            return
        if not self._restarts.allow(real):
            self._wanted = False
            times = f"{LIMIT + 1} times in {WINDOW:.0f} s"
            line = f"the API process ended {times}: going on without it; packets are not affected"
            say(line, Level.ERROR)
            return
        warn("the API process ended: starting it again; packets are not affected")
        try:
            self.begin()
        except OSError as error:
            self._wanted = False
            say(f"the API process cannot be started: {error.strerror or error}", Level.ERROR)
