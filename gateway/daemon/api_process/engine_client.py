"""The API process's end of the channel to the engine process. Runs in the API process.

Requests are numbered; answers come in parts. A snapshot of the flow table is kept as the bytes that
came (a third of what objects take). One listing runs at a time: clients that ask meanwhile share
the next one, so that many clients cost the engine as much as one. Runs on the event loop;
needs no lock.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

from gateway.daemon.channel.api_messages import (
    MAXIMUM_MESSAGE,
    MAXIMUM_REQUEST,
    GarbageError,
    Kind,
    decode_header,
    decode_payload,
    encode_request,
)
from gateway.schema.records import FlowRecord, PortRecord

MESSAGES_PER_WAKEUP = 64
PATIENCE = 5.0
"""Seconds without a word of the engine after which a request is given up."""
RELOAD_PATIENCE = 75.0
"""For a reload: the engine waits for the file's reader and for netfilter without a word."""


class EngineFailedError(Exception):
    """The engine could not do what was asked; ``problems`` has a line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


@dataclass(eq=False)
class Answer:
    """What the engine answered: the listing's parts as they came, and the last message's object."""

    parts: list[bytes] = field(default_factory=list)
    result: Any = None
    size: int = 0
    """Bytes of the parts."""

    def records(self) -> Iterator[list[Any]]:
        """The listing, part by part."""
        return (decode_payload(part) for part in self.parts)


class EngineClient:
    """Asks the engine. ``on_events`` and ``on_flow_log`` get what the engine reports, and so does
    ``on_captured`` once it is set."""

    def __init__(
        self,
        connection: socket.socket,
        *,
        on_events: Callable[[list[dict[str, Any]]], None],
        on_gone: Callable[[], None],
        on_flow_log: Callable[[Any], None] = lambda message: None,
    ) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._on_events = on_events
        self._on_gone = on_gone
        self._on_flow_log = on_flow_log
        self.on_captured: Callable[[Any], None] = lambda message: None
        self._number = 0
        self._heard = 0.0
        self._pending: dict[int, tuple[Answer, asyncio.Future[Answer]]] = {}
        self._alive: WeakSet[Answer] = WeakSet()
        self._running: dict[str, asyncio.Future[Answer]] = {}
        self._next: dict[str, asyncio.Future[Answer]] = {}

    def start(self) -> None:
        """Listen to the engine, on the running event loop."""
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._readable)

    @property
    def held(self) -> int:
        """Bytes of all answers that are still in use."""
        return sum(answer.size for answer in self._alive)

    async def flows(self) -> Answer:
        """A snapshot of the flow table; its parts are lists of FlowRecord's fields."""
        return await self._share("flows")

    async def ports(self) -> Answer:
        """The SNAT port inventory; its parts are lists of PortRecord's fields."""
        return await self._share("ports")

    async def metrics(self) -> Answer:
        """What only a scrape needs; its parts are sections with rows (``metrics_answers``)."""
        return await self._share("metrics")

    async def health(self) -> Answer:
        """Every VM behind every inbound rule, for ``read_health``."""
        return await self._share("health")

    async def machines(self, vm: str | None) -> Answer:
        """How VMs go out: MachineRecord's fields. No result: as for ``explain``."""
        return await self._patiently(self._ask("machines", {} if vm is None else {"vm": vm}))

    async def status(self) -> dict[str, Any]:
        """The engine process's status."""
        answer = await self._patiently(self._ask("status"))
        assert isinstance(answer.result, dict)
        return answer.result

    async def explain(self, parameters: Mapping[str, str]) -> Answer:
        """What a packet would meet; no result: no such VM, and the parts name those there are."""
        return await self._patiently(self._ask("explain", parameters))

    async def security_rules(self, parameters: Mapping[str, str]) -> Answer:
        """Security rules, for ``read_rules``; no result: as for ``explain``."""
        return await self._patiently(self._ask("nsg", parameters))

    async def capture(self, parameters: Mapping[str, str]) -> Answer:
        """Begin a capture; no result: as for ``explain``. Its packets go to ``on_captured``."""
        asked = self._ask("capture", parameters)
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(self._end_unwanted)
            raise

    def _end_unwanted(self, asked: asyncio.Future[Answer]) -> None:
        if not asked.cancelled() and asked.exception() is None and asked.result().result:
            self.end_capture(asked.result().result["capture"])

    def end_capture(self, number: int) -> asyncio.Future[Answer]:
        """End a capture: what was captured until now comes first, then the answer, its totals."""
        return self._ask("endCapture", {"capture": str(number)})

    async def reload(self, *, enforce: bool = False) -> dict[str, Any]:
        """Have the configuration read again; raises EngineFailedError if it is rejected."""
        parameters = {"enforce": "1"} if enforce else {}
        answer = await self._patiently(self._ask("reload", parameters), RELOAD_PATIENCE)
        changes = [line for part in answer.records() for line in part]
        return {"changes": changes, **(answer.result or {})}

    async def _share(self, what: str) -> Answer:
        """A listing that begins after this call: a client sees the effect of what it has just
        done."""
        running = self._running.get(what)
        if running is None or running.done():
            chosen = self._ask(what)
            self._run(what, chosen)
        else:
            chosen = self._next.get(what) or self._after(running, what)
        return await self._patiently(chosen)

    async def _patiently(self, asked: asyncio.Future[Answer], patience: float = PATIENCE) -> Answer:
        """The answer; a client that leaves does not cancel what others may wait for.

        Raises EngineFailedError if the engine sends nothing at all for ``patience`` seconds.
        """
        now = asyncio.get_running_loop().time
        began = now()
        while not asked.done():
            left = max(began, self._heard) + patience - now()
            if left <= 0:
                silence = f"the engine has sent nothing for {patience:.0f} s"
                raise EngineFailedError([f"{silence}: its process is stopped, or overloaded"])
            await asyncio.wait([asked], timeout=left)
        return asked.result()

    def _run(self, what: str, listing: asyncio.Future[Answer]) -> None:
        """Remember a listing while it runs, and no longer: it may be large."""

        def forget(ended: asyncio.Future[Answer]) -> None:
            if self._running.get(what) is ended:
                del self._running[what]

        self._running[what] = listing
        listing.add_done_callback(forget)

    def _after(self, running: asyncio.Future[Answer], what: str) -> asyncio.Future[Answer]:
        """The listing that begins when ``running`` has ended, for all who ask meanwhile."""

        async def listing() -> Answer:
            await asyncio.wait([running])
            self._run(what, self._next.pop(what))
            return await self._ask(what)

        self._next[what] = task = asyncio.ensure_future(listing())
        return task

    def _ask(
        self, what: str, parameters: Mapping[str, str] | None = None
    ) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        request = encode_request(self._number + 1, what, parameters)
        if len(request) > MAXIMUM_REQUEST:  # the engine would drop it, and no answer would come
            future.set_exception(EngineFailedError([f"{what}: the query is too long"]))
            return future
        self._number += 1
        number = self._number
        answer = Answer()
        self._alive.add(answer)
        self._pending[number] = answer, future
        try:
            self._connection.send(request)
        except BlockingIOError:
            del self._pending[number]
            future.set_exception(EngineFailedError(["the engine is too busy: try again"]))
        except OSError:
            self._gone()
        return future

    def _readable(self) -> None:
        for _ in range(MESSAGES_PER_WAKEUP):
            try:
                message = self._connection.recv(MAXIMUM_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._gone()
                return
            self._heard = asyncio.get_running_loop().time()
            try:
                self._take(message)
            except GarbageError:
                self._gone()
                return

    def _take(self, message: bytes) -> None:
        number, kind = decode_header(message)
        if kind is Kind.EVENTS:
            self._on_events(decode_payload(message))
            return
        if kind is Kind.FLOW_LOG:
            self._on_flow_log(decode_payload(message))
            return
        if kind is Kind.CAPTURED:
            self.on_captured(decode_payload(message))
            return
        if number not in self._pending:
            return
        answer, future = self._pending[number]
        if kind is Kind.PART:
            answer.parts.append(message)
            answer.size += len(message)
            return
        del self._pending[number]
        if future.done():
            return
        if kind is Kind.FAILED:
            future.set_exception(EngineFailedError(decode_payload(message)))
        else:
            answer.result = decode_payload(message)
            future.set_result(answer)

    def _gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._connection.fileno())
        for _, future in self._pending.values():
            if not future.done():
                future.set_exception(EngineFailedError(["the engine has ended"]))
        self._pending.clear()
        self._on_gone()


def flow_record(fields: tuple[Any, ...]) -> FlowRecord:
    """A flow as it was before the channel."""
    return FlowRecord._make(fields)


def port_record(fields: tuple[Any, ...]) -> PortRecord:
    """A port pool as it was before the channel."""
    return PortRecord._make(fields)
