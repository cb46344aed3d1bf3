"""``/v1/diagnose``: lists ports and status twice and all flows once, and has them diagnosed.
Runs in the API process.

Two listings ``BETWEEN_LOOKS`` apart give the rate at which ports fill up, and whether attempts fail
right now. Clients that ask the same meanwhile share the answer. All of the work is the API
process's; the engine sees two port listings and one of flows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.daemon.api_process.diagnosis.diagnose import diagnose
from gateway.daemon.api_process.diagnosis.facts import Gatherer
from gateway.daemon.api_process.engine_client import (
    Answer,
    EngineClient,
    flow_record,
    port_record,
)
from gateway.daemon.channel.probe_messages import Result
from gateway.schema.queries import parse_since
from gateway.schema.records import HealthRecord, MachineRecord, PortRecord

BETWEEN_LOOKS = 2.0
"""Seconds (real)."""
EVENTS_WINDOW = 300.0
"""Seconds (real) back to which events count."""
_LASTING = frozenset(
    {"Reloaded", "ReloadRefused", "Started", "HostChanged", "HostRestored", "HostFirewall"}
)
"""Events that say what holds until the next of them."""

Event = Mapping[str, Any]


class Diagnosis:
    """Answers for the API. ``no_such_machine`` makes the error for an unknown VM from its name and
    the engine's answer; ``events`` gives all existing events, the oldest first.
    """

    def __init__(
        self,
        engine: EngineClient,
        *,
        status: Callable[[], Awaitable[dict[str, Any]]],
        events: Callable[[], list[dict[str, Any]]],
        no_such_machine: Callable[[str, Answer], Exception],
    ) -> None:
        self._engine = engine
        self._status = status
        self._events = events
        self._no_such_machine = no_such_machine
        self._running: dict[str | None, asyncio.Task[dict[str, Any]]] = {}

    async def document(self, vm: str | None) -> dict[str, Any]:
        """What is wrong with a VM, or with all of them: the API's object."""
        running = self._running.get(vm)
        if running is None:
            running = self._running[vm] = asyncio.create_task(self._diagnose(vm))
            running.add_done_callback(lambda ended: self._forget(vm, ended))
        # a client that leaves must not cancel what others wait for
        return await asyncio.shield(running)

    def _forget(self, vm: str | None, ended: asyncio.Task[dict[str, Any]]) -> None:
        del self._running[vm]
        ended.exception()  # retrieved, also where every client has left

    async def _diagnose(self, vm: str | None) -> dict[str, Any]:
        clock = asyncio.get_running_loop().time
        machines = await self._engine.machines(vm)
        if machines.result is None:
            assert vm is not None
            raise self._no_such_machine(vm, machines)
        earlier = await self._status()
        gatherer = Gatherer(earlier["profile"], _machines(machines))
        first = await self._engine.ports()
        gatherer.first_ports(_ports(first))
        looked = clock()
        await asyncio.sleep(BETWEEN_LOOKS)
        gatherer.second_ports(_ports(await self._engine.ports()))
        flows = await self._engine.flows()
        real = clock() - looked
        for part in flows.records():
            for fields in part:
                gatherer.flow(flow_record(fields))
            await asyncio.sleep(0)  # others' requests, and the engine's messages
        for part in (await self._engine.health()).records():
            for fields, latest in part:
                result = None if latest is None else Result._make(latest[0])
                gatherer.health(HealthRecord._make(fields), result)
        status = await self._status()
        facts = gatherer.facts(
            status,
            earlier,
            recent_events(self._events(), datetime.now(UTC)),
            real=real,
            events_window=EVENTS_WINDOW,
        )
        return {"findings": [f.document() for f in diagnose(facts, one=vm is not None)]}


def recent_events(events: list[dict[str, Any]], now: datetime) -> list[Event]:
    """Those of the last ``EVENTS_WINDOW`` seconds, after the earlier ones that hold still."""
    since = now - timedelta(seconds=EVENTS_WINDOW)
    recent: list[Event] = []
    lasting: list[Event] = []
    for event in events:
        if parse_since(event["time"], now) >= since:
            recent.append(event)
        elif event["operationName"] in _LASTING:
            lasting.append(event)
    return [*lasting, *recent]


def _machines(answer: Answer) -> Iterator[MachineRecord]:
    return (MachineRecord._make(fields) for part in answer.records() for fields in part)


def _ports(answer: Answer) -> Iterator[PortRecord]:
    return (port_record(fields) for part in answer.records() for fields in part)
