"""Captures in the engine process: begun and ended by the API process, handed to it in messages.
Runs in the engine process.

The first one puts the tap between queue and engine, the last one takes it away. What is captured
waits here, within bounds, until the control channel has room for it; what does not fit is counted.
The API process makes pcapng of it (``streams.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address
from typing import Any

from gateway.core.capture_tap import CaptureFilter, CaptureSession, CaptureTap
from gateway.core.engine import Engine
from gateway.core.established import PacketHandler
from gateway.core.explain import address_of
from gateway.core.flows.resets import Reset
from gateway.daemon.channel.api_messages import Kind
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.requests import (
    Parameters,
    RequestHandler,
    Steps,
    in_slices,
)
from gateway.schema.capture_query import CaptureQuery, described
from gateway.schema.captures import INSIDE, OUTSIDE, CapturedPacket
from gateway.schema.queries import QueryError, whole

MAXIMUM_CAPTURES = 4
WAITING_BYTES = 4 << 20
"""Of a capture's packets, until they can be sent; more are lost."""
WAITING_PACKETS = 16_384
MESSAGE_BYTES = 256 << 10
MESSAGE_PACKETS = 256
PATIENCE = 0.02
"""Seconds (real) that fewer than half a message's packets wait for more."""
NAMES_PER_PART = 1024
_MOST_CAPTURES = 1 << 62

_SIDES = {"inside": INSIDE, "outside": OUTSIDE, "both": None}


def message(
    number: int, session: CaptureSession, packets: list[CapturedPacket], unseen: dict[str, int]
) -> Any:
    """What goes to the API process, plain values: capture, matched and lost by side, packets, and
    how many were dropped unseen, by reason."""
    return number, tuple(session.matched), tuple(session.lost), packets, unseen


class CaptureRequests:
    """The captures of one engine. ``use_handlers`` has packets handled by these handlers from now
    on."""

    def __init__(
        self,
        engine: Engine,
        *,
        use_handlers: Callable[[tuple[PacketHandler, ...]], None],
        post: Callable[[str, str, dict[str, Any]], None],
        spawn: Callable[[Iterator[object]], None],
        look_at_drops: Callable[[], None] = lambda: None,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``post`` takes events about captures that begin and end: name, level and properties.

        ``spawn`` does what takes long, a step at a time. ``look_at_drops`` counts what was dropped
        unseen until now.
        """
        self._engine = engine
        self._use_handlers = use_handlers
        self._post = post
        self._spawn = spawn
        self._look_at_drops = look_at_drops
        self._monotonic = monotonic
        self._patience = PATIENCE
        self._tap = CaptureTap(engine, clock)
        self._running: dict[int, CaptureSession] = {}
        self._sent: dict[int, float] = {}  # when a capture's last message went
        self._unseen_before: dict[int, dict[str, int]] = {}
        self._number = 0
        self.handlers: Mapping[str, RequestHandler] = {
            "capture": in_slices(_parsed, self._begin),
            "endCapture": in_slices(_number, self._end),
        }

    def register(self, loop: EventLoop) -> None:
        """Have everything that waits sent before a stop."""
        loop.at_stop(self.hurry)

    @property
    def running(self) -> int:
        """How many there are."""
        return len(self._running)

    def next_message(self) -> Any:
        """The next message with packets, if one is due, else None."""
        now = self._monotonic()
        for number, session in self._running.items():
            waiting = len(session)
            if not waiting or (
                waiting < MESSAGE_PACKETS // 2
                and session.size < MESSAGE_BYTES // 2
                and now - self._sent[number] < self._patience
            ):
                continue
            # The next time it is another one's turn.
            self._running[number] = self._running.pop(number)
            self._sent[number] = now
            packets = session.take(MESSAGE_BYTES, MESSAGE_PACKETS)
            return message(number, session, packets, self._unseen(number))
        return None

    def made(self, reset: Reset) -> None:
        """The gateway itself sends an RST."""
        if self._running:
            self._tap.made(reset)

    def hurry(self) -> None:
        """Have everything that waits sent at once from now on: the gateway stops."""
        self._patience = 0.0

    def end_all(self) -> None:
        """Forget all captures: they have no reader any more."""
        for number in list(self._running):
            self._stop(number)

    def _begin(self, asked: tuple[CaptureQuery, str]) -> Steps:
        query, description = asked
        if len(self._running) >= MAXIMUM_CAPTURES:
            yield Kind.FAILED, [f"{MAXIMUM_CAPTURES} captures are running: end one of them first"]
            return
        address = None if query.vm is None else address_of(self._engine, query.vm)
        if query.vm is not None and address is None:
            names = [machine.name for machine in self._engine.outbound.machines.values()]
            for start in range(0, len(names), NAMES_PER_PART):
                yield Kind.PART, names[start : start + NAMES_PER_PART]
            yield Kind.END, None
            return
        session = CaptureSession(_filter_of(query, address), WAITING_BYTES, WAITING_PACKETS)
        self._number += 1
        number = self._number
        self._running[number] = session
        self._look_at_drops()
        self._unseen_before[number] = self._engine.drops.unseen
        self._sent[number] = self._monotonic()
        self._tap.attach(session)
        if len(self._running) == 1 or query.trace:
            self._use_handlers(self._tap.handlers())
        for _ in self._engine.watch_flows(self._tap.wants):  # what eBPF carries is not seen
            yield None
        self._post("CaptureStarted", "Informational", {"capture": number, "of": description})
        gateway = self._engine.configuration.gateway
        yield (
            Kind.END,
            {"capture": number, "inside": list(gateway.inside), "outside": gateway.outside},
        )

    def _end(self, number: int) -> Steps:
        """All that waits, then the totals."""
        if number > self._number:
            yield Kind.FAILED, ["capture: no such capture"]
            return
        self._look_at_drops()
        unseen = self._unseen(number)
        session = self._stop(number)
        if session is None:
            yield Kind.FAILED, [f"capture: {number} has ended"]
            return
        while len(session):
            packets = session.take(MESSAGE_BYTES, MESSAGE_PACKETS)
            yield Kind.CAPTURED, message(number, session, packets, unseen)
        counted = {"matched": list(session.matched), "lost": list(session.lost)}
        yield Kind.END, counted | {"unseen": unseen}

    def _unseen(self, number: int) -> dict[str, int]:
        """Packets that were dropped in the kernel since a capture began, by reason."""
        before = self._unseen_before.get(number, {})
        return {
            reason: grown
            for reason, count in self._engine.drops.unseen.items()
            if (grown := count - before.get(reason, 0))
        }

    def _stop(self, number: int) -> CaptureSession | None:
        session = self._running.pop(number, None)
        if session is None:
            return None
        del self._sent[number], self._unseen_before[number]
        self._tap.detach(session)
        if not self._running:
            self._use_handlers(self._engine.handlers)
        elif session.traces:
            self._use_handlers(self._tap.handlers())
        wanted = self._tap.wants if self._running else None
        self._spawn(self._engine.watch_flows(wanted))
        properties = {"capture": number, "packets": sum(session.matched)}
        self._post("CaptureEnded", "Informational", properties | {"lost": sum(session.lost)})
        return session


def _parsed(values: Parameters) -> tuple[CaptureQuery, str]:
    """The query, and how it is described in events."""
    return CaptureQuery.parse(values), described(values)


def _number(values: Parameters) -> int:
    try:
        return whole(values.get("capture", ""), 1, _MOST_CAPTURES)
    except ValueError:
        raise QueryError(["capture: no such capture"]) from None


def _filter_of(query: CaptureQuery, vm_address: IPv4Address | None) -> CaptureFilter:
    return CaptureFilter(
        side=_SIDES[query.side],
        vm=query.vm,
        vm_address=None if vm_address is None else vm_address.packed,
        remote=None if query.remote_ip is None else IPv4Address(query.remote_ip).packed,
        remote_port=None if query.remote_port is None else query.remote_port.to_bytes(2, "big"),
        protocol=query.protocol,
        snap_length=query.snap_length,
        trace=query.trace,
    )
