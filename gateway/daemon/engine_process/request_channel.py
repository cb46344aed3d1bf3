"""The engine's end of the channel to the API process: never waits, and does work in slices.
Runs in the engine process.

``read`` takes requests, ``work`` does one bounded slice of the oldest one (``requests.py`` has who
answers; at most 16 flows, half a tenth of a millisecond), ``post`` keeps events until they can be
sent. Whatever does not fit into the socket waits here, within bounds; events beyond them are
counted as lost. Packets come first: the loop calls ``work`` once a turn.

It knows nothing of sockets' other end: that process may be slow, hung, gone or hostile.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator
from fcntl import ioctl
from struct import Struct
from termios import TIOCOUTQ
from typing import Any

from gateway.daemon.channel.api_messages import (
    MAXIMUM_REQUEST,
    GarbageError,
    Kind,
    Request,
    decode_header,
    decode_request,
    encode,
)
from gateway.daemon.engine_process.requests import Requests

EVENTS_PER_MESSAGE = 64
EVENTS_BYTES = 128 << 10
"""Of a message with several events: what the socket cannot take whole it rejects for ever."""
MAXIMUM_PENDING = 64
"""Requests that wait; more are rejected. The API process shares answers and never needs as many."""
MAXIMUM_EVENTS = 10_000
"""Events that wait to be sent; more are counted as lost."""
REQUESTS_PER_TURN = 8
CAPTURED_UNREAD = 512 << 10
"""Bytes that the other end has not read yet beyond which captured packets wait, and may be lost:
a full socket would hold up the answers to everybody else."""

_integer = Struct("i")


class RequestChannel:
    """Requests of the API process and events for it, over ``connection`` (None: no API process)."""

    def __init__(self) -> None:
        self.requests: Requests | None = None
        """Who answers; nothing is answered before it is set."""
        self.flow_log: Callable[[], Any] = lambda: None
        """Gives the next message for the flow logs, or None."""
        self._flow_log_goes_on = False
        self.captured: Callable[[], Any] | None = None
        """While there are captures: gives the next message with packets, or None."""
        self._captured_goes_on = False
        self._connection: socket.socket | None = None
        self._waiting: deque[Request] = deque()
        self._current: Iterator[bytes] | None = None
        self._unsent: deque[bytes] = deque()  # at most a few: one slice, and reload's answers
        self._events: deque[dict[str, Any]] = deque()
        self._blocked = False
        self.events_lost = 0
        self.garbage = 0

    def connect(self, connection: socket.socket) -> None:
        """Talk over ``connection`` from now on; what the previous one asked is forgotten."""
        self.disconnect()
        connection.setblocking(False)
        self._connection = connection

    def disconnect(self) -> None:
        """Forget the other end and what it asked; events wait for the next one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._waiting.clear()
        # what was taken from the flow log is no answer: it waits for the next one
        kept = [m for m in self._unsent if decode_header(m)[1] is Kind.FLOW_LOG]
        self._unsent = deque(kept)
        self._current = None
        self._blocked = False

    def fileno(self) -> int:
        """The descriptor to poll; -1 without an API process."""
        return -1 if self._connection is None else self._connection.fileno()

    @property
    def is_connected(self) -> bool:
        """Whether the other end is there."""
        return self._connection is not None

    @property
    def wants_to_write(self) -> bool:
        """Something waits for room in the socket: poll for writing."""
        return self._blocked

    @property
    def has_work(self) -> bool:
        """The next turn should come at once."""
        if self._connection is None or self._blocked:
            return False
        answering = self._waiting or self._current
        return bool(
            self._unsent
            or self._events
            or answering
            or self._flow_log_goes_on
            or (self._captured_goes_on and self.captured is not None)
        )

    def post(self, event: dict[str, Any]) -> None:
        """Keep an event until the API process takes it."""
        if len(self._events) >= MAXIMUM_EVENTS:
            self.events_lost += 1
            return
        self._events.append(event)

    def read(self) -> bool:
        """Take what the other end asks. False: it is gone."""
        connection = self._connection
        if connection is None:
            return True
        for _ in range(REQUESTS_PER_TURN):
            try:
                data = connection.recv(MAXIMUM_REQUEST + 1)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        try:
            request = decode_request(data)
        except GarbageError:
            self.garbage += 1
            return
        if len(self._waiting) >= MAXIMUM_PENDING:
            if len(self._unsent) < MAXIMUM_PENDING:
                busy = [f"more than {MAXIMUM_PENDING} requests are waiting: try again"]
                self._unsent.append(encode(request.number, Kind.FAILED, busy))
            return
        self._waiting.append(request)

    def work(self) -> bool:
        """One slice: send what waits, then a slice of a listing. False: the other end is gone."""
        self._blocked = False
        if self._connection is None:
            return True
        if self._events:
            batch = [self._events[i] for i in range(min(EVENTS_PER_MESSAGE, len(self._events)))]
            message = encode(0, Kind.EVENTS, batch)
            while len(message) > EVENTS_BYTES and len(batch) > 1:
                del batch[len(batch) // 2 :]
                message = encode(0, Kind.EVENTS, batch)
            sent = self._send(message)
            if not sent:
                return sent is not None
            for _ in batch:
                self._events.popleft()
        if not self._unsent:
            self._slice()
            self._take_flow_log()
            if self.captured is not None:
                self._take_captured(self.captured)
        while self._unsent:
            sent = self._send(self._unsent[0])
            if not sent:
                return sent is not None
            self._unsent.popleft()
        return True

    def _slice(self) -> None:
        if self._current is None and self._waiting and self.requests is not None:
            self._current = self._answer(self._waiting.popleft())
        if self._current is None:
            return
        message = next(self._current, None)
        if message is None:
            self._current = None
        elif message:
            self._unsent.append(message)

    def _take_flow_log(self) -> None:
        payload = self.flow_log()
        self._flow_log_goes_on = payload is not None
        if payload is not None:
            self._unsent.append(encode(0, Kind.FLOW_LOG, payload))

    def _take_captured(self, captured: Callable[[], Any]) -> None:
        self._captured_goes_on = False
        assert self._connection is not None
        try:
            unread = _integer.unpack(ioctl(self._connection, TIOCOUTQ, bytes(_integer.size)))[0]
        except OSError:
            return  # the other end is gone: sending will report it
        payload = captured() if unread < CAPTURED_UNREAD else None
        if payload is not None:
            self._captured_goes_on = True
            self._unsent.append(encode(0, Kind.CAPTURED, payload))

    def _send(self, message: bytes) -> bool | None:
        """True: sent. False: no room now. None: the other end is gone."""
        assert self._connection is not None
        try:
            self._connection.send(message)
        except BlockingIOError:
            self._blocked = True
            return False
        except OSError:
            return None
        return True

    def _answer(self, request: Request) -> Iterator[bytes]:
        """Messages of an answer; empty ones stand for a slice of work that has nothing to send."""
        number, connection = request.number, self._connection

        def respond(kind: Kind, payload: Any) -> None:
            if connection is not None and connection is self._connection:
                self._unsent.append(encode(number, kind, payload))

        assert self.requests is not None
        for step in self.requests.answer(request, respond):
            yield b"" if step is None else encode(number, *step)
