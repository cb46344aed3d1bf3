"""Captures in the API process: the engine's messages as pcapng, streamed to the client that asked.
Runs in the API process.

A stream is made of whole blocks, so that it can be cut between any two of its pieces: header, two
interfaces, packets as they come, counters when packets were lost, and at the end the counters again
with the reason in a comment. A reader that is slow costs packets, which are counted with those that
the engine lost; never memory beyond a bound, and never time of other requests.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from gateway import __version__
from gateway.daemon.api_process.capture import pcapng
from gateway.daemon.api_process.engine_client import Answer, EngineClient, EngineFailedError
from gateway.schema.capture_query import CaptureQuery, described, engines_part
from gateway.schema.captures import INSIDE, OUTSIDE, CapturedPacket, PacketAnnotation

PENDING = 8 << 20
"""Bytes that wait for a stream's reader; what comes beyond is lost."""
PIECE = 256 << 10
"""Bytes that are handed to the reader at once, about."""
COUNTERS_INTERVAL = 1.0
"""Seconds between counters in a stream that loses packets."""
TAIL = 2 * 256
"""Bytes that the last counters take at most, without what they say of packets dropped unseen."""
UNSEEN_ROOM = 2 * 48
"""Bytes that each reason of those takes at most."""
COMMENTS_KEPT = 1024
_NAMES = {INSIDE: "inside", OUTSIDE: "outside"}


def comment_of(annotation: PacketAnnotation) -> str:
    """A packet's comment: ``flow=7 vm=vm1 verdict=translated method=DefaultOutboundAccess``."""
    flow, vm, method, verdict, reason, rule, to_flow, to_vm, stages = annotation
    said = {
        "flow": flow,
        "vm": vm,
        "verdict": verdict,
        "reason": reason,
        "rule": rule,
        "method": method,
        "toFlow": to_flow,
        "toVm": to_vm,
        "stages": stages,
    }
    return " ".join(f"{name}={value}" for name, value in said.items() if value is not None)


class CaptureStream:
    """One capture as a stream of pcapng."""

    def __init__(
        self,
        number: int,
        query: CaptureQuery,
        interfaces: Mapping[int, str],
        of: str,
        on_ended: Callable[[CaptureStream], None],
    ) -> None:
        """``interfaces``: the real ones' names by side; ``of``: the filter, for people.

        ``on_ended`` is called once, when no more packets are taken.
        """
        self.number = number
        self.ended: str | None = None  # why
        self._query = query
        self._on_ended = on_ended
        self._started = time.time_ns()
        self._pieces: deque[bytes] = deque()
        self._pending = 0
        self._taken = 0  # bytes of the stream that were made
        self._count = 0
        self._complete = False
        self._bell = asyncio.Event()
        self._comments: dict[PacketAnnotation, bytes] = {}
        self._matched, self._lost, self._delivered = [0, 0], [0, 0], [0, 0]
        self._unseen: dict[str, int] = {}
        self._late = [0, 0]  # lost because the reader is slow
        self._counted: list[int] = [0, 0]
        self._counters_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        host = os.uname()
        self._put(
            pcapng.section_header(
                host.machine,
                f"{host.sysname} {host.release}",
                f"snatgw {__version__}",
                f"snatgw capture {number} of {of}: both sides of the translation. Packets of one "
                "flow have the same flow=, the two sides of one packet the same packet ID.",
            )
        )
        for side in (INSIDE, OUTSIDE):
            self._put(pcapng.interface(_NAMES[side], interfaces[side], query.snap_length))

    # -- what comes

    def take(
        self,
        matched: tuple[int, int],
        lost: tuple[int, int],
        packets: list[CapturedPacket],
        unseen: dict[str, int],
    ) -> None:
        """Packets of the engine, and its counters with them."""
        if self.ended is not None:
            return
        query = self._query
        self.total(matched, lost, unseen)
        made: list[bytes] = []
        size = 0
        for number, side, direction, moment, length, data, annotation in packets:
            if self._pending + size + len(data) > PENDING:
                self._late[side] += 1
                continue
            block = pcapng.packet(
                side, direction, moment, length, data, number, self._comment(annotation)
            )
            if query.size is not None and self._taken + size + len(block) + self._tail > query.size:
                self._put(b"".join(made))
                self.end("size")
                return
            size += len(block)
            made.append(block)
            self._delivered[side] += 1
            self._count += 1
            if self._count == query.count:
                self._put(b"".join(made))
                self.end("count")
                return
        self._put(b"".join(made))
        self._count_losses()

    def _comment(self, annotation: PacketAnnotation) -> bytes:
        comment = self._comments.get(annotation)
        if comment is None:
            if len(self._comments) >= COMMENTS_KEPT:
                self._comments.clear()
            comment = self._comments[annotation] = comment_of(annotation).encode()
        return comment

    def _count_losses(self) -> None:
        lost = self._losses()
        now = time.monotonic()
        if lost == self._counted or now < self._counters_due:
            return
        counters = self._counters()
        if self._query.size is None or self._taken + len(counters) + self._tail <= self._query.size:
            self._counted, self._counters_due = lost, now + COUNTERS_INTERVAL
            self._put(counters)

    @property
    def _tail(self) -> int:
        return TAIL + UNSEEN_ROOM * len(self._unseen)

    def _losses(self) -> list[int]:
        return [self._lost[side] + self._late[side] for side in (INSIDE, OUTSIDE)]

    def _counters(self, comment: str = "") -> bytes:
        now, lost = time.time_ns(), self._losses()
        return b"".join(
            pcapng.statistics(
                side,
                self._started,
                now,
                self._matched[side],
                lost[side],
                self._delivered[side],
                comment,
            )
            for side in (INSIDE, OUTSIDE)
        )

    # -- the end

    def end_after(self, seconds: float, end: Callable[[], None]) -> None:
        """Call ``end`` when the time is over, unless the stream has ended."""
        self._timer = asyncio.get_running_loop().call_later(seconds, end)

    def end(self, why: str) -> None:
        """No more packets. What waits is still the reader's, and the counters close it."""
        if self.ended is not None:
            return
        self.ended = why
        if self._timer is not None:
            self._timer.cancel()
        unseen = ",".join(f"{reason}:{count}" for reason, count in self._unseen.items())
        counters = self._counters(f"ended={why} unseen={unseen}" if unseen else f"ended={why}")
        if self._query.size is not None and self._taken + len(counters) > self._query.size:
            counters = self._counters(f"ended={why}")
        self._put(counters)
        self._complete = True
        self._bell.set()
        self._on_ended(self)

    def abandon(self) -> None:
        """The reader is gone."""
        self._pieces.clear()
        self._pending = 0
        self.end("reader")

    def total(
        self, matched: tuple[int, int], lost: tuple[int, int], unseen: dict[str, int]
    ) -> None:
        """The engine's counters. ``unseen``: packets that were dropped in the kernel, by reason."""
        self._matched, self._lost, self._unseen = list(matched), list(lost), unseen

    # -- what goes

    def _put(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            self._pending += len(data)
            self._taken += len(data)
            self._bell.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The stream, whole blocks at a time, as it comes."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            while self._pieces:
                together = [self._pieces.popleft()]
                size = len(together[0])
                while self._pieces and size + len(self._pieces[0]) <= PIECE:
                    size += len(self._pieces[0])
                    together.append(self._pieces.popleft())
                yield b"".join(together)
                self._pending -= size
            if self._complete and not self._pieces:
                return


class CaptureStreams:
    """All captures that have a reader."""

    def __init__(self, engine: EngineClient) -> None:
        self._engine = engine
        self._running: dict[int, CaptureStream] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._opening = 0
        self._early: list[Any] = []  # packets of a capture that is being opened
        engine.on_captured = self._take

    async def open(self, values: Mapping[str, str]) -> CaptureStream | Answer:
        """Begin a capture; an Answer without result: no such VM, its parts name those there are.

        Raises QueryError and EngineFailedError.
        """
        query = CaptureQuery.parse(values)
        self._opening += 1
        try:
            answer = await self._engine.capture(engines_part(values))
            if answer.result is None:
                return answer
            return self._opened(answer.result, query, values)
        finally:
            self._opening -= 1
            if not self._opening:
                self._early.clear()

    def _opened(
        self, begun: dict[str, Any], query: CaptureQuery, values: Mapping[str, str]
    ) -> CaptureStream:
        number: int = begun["capture"]
        interfaces = {INSIDE: ", ".join(begun["inside"]), OUTSIDE: begun["outside"]}
        stream = CaptureStream(number, query, interfaces, described(values), self._ended)
        self._running[number] = stream
        if query.duration is not None:
            stream.end_after(query.duration, lambda: self._end_soon(stream, "duration"))
        for message in [early for early in self._early if early[0] == number]:
            self._take(message)
        return stream

    async def close(self, number: int) -> bool:
        """End a capture with all that was captured until now; False: there is none."""
        stream = self._running.get(number)
        if stream is None:
            return False
        await self._end(stream, "request")
        return True

    def close_all(self) -> bool:
        """End all with what there is: the engine is gone. Whether there were any."""
        streams = list(self._running.values())
        self._running.clear()
        for stream in streams:
            stream.end("gateway")
        return bool(streams)

    def _take(self, message: Any) -> None:
        number, *counted = message
        stream = self._running.get(number)
        if stream is not None:
            stream.take(*counted)
        elif self._opening:
            self._early.append(message)

    def _end_soon(self, stream: CaptureStream, why: str) -> None:
        task = asyncio.ensure_future(self._end(stream, why))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, stream: CaptureStream, why: str) -> None:
        try:
            answer = await self._engine.end_capture(stream.number)
            result = answer.result
            stream.total(result["matched"], result["lost"], result["unseen"])
        except EngineFailedError:
            pass  # it has ended meanwhile, or the engine has
        self._running.pop(stream.number, None)
        stream.end(why)

    def _ended(self, stream: CaptureStream) -> None:
        """By the reader, most often: the engine need not continue."""
        if self._running.pop(stream.number, None) is not None:
            asked = self._engine.end_capture(stream.number)
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())
