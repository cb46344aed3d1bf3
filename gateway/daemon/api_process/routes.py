"""The HTTP API that every client uses: docs/api.md has the user's side of it.
Runs in the API process.

Lists are NDJSON, streamed; single things are one JSON object. An error is ``{"problems": [...]}``
with a sentence each: 400 for what the client asked wrongly, 404 for a VM that there is not, 422 for
a configuration that is rejected, 503 when the engine cannot answer. Filters, order and JSON are
this process's work: the engine only hands out its records.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gateway.daemon.api_process.capture.capture_routes import capture_routes
from gateway.daemon.api_process.capture.streams import CaptureStreams
from gateway.daemon.api_process.diagnosis.service import Diagnosis
from gateway.daemon.api_process.engine_client import (
    Answer,
    EngineClient,
    EngineFailedError,
    flow_record,
    port_record,
)
from gateway.daemon.api_process.event_log import EventLog
from gateway.daemon.api_process.flow_logs.writer import FlowLogWriter
from gateway.daemon.api_process.live.live_routes import live_routes
from gateway.daemon.api_process.live.poller import LivePoller
from gateway.daemon.api_process.metrics import metrics_endpoint
from gateway.daemon.channel.json_views import (
    flow_document,
    health_documents,
    port_document,
    security_rule_document,
)
from gateway.daemon.channel.rule_encoding import read_rules
from gateway.schema.explain_query import MAXIMUM_NAME, ExplainQuery
from gateway.schema.queries import (
    FlowQuery,
    QueryError,
    Readers,
    parse_flag,
    parse_limit,
    parse_since,
    read_parameters,
    suggestion,
    unknown_parameters,
)
from gateway.schema.records import FlowRecord, SecurityRuleRecord

EVENTS_PER_CHUNK = 256
MAXIMUM_HELD = 512 << 20
"""Bytes of listings that slow readers may keep here; then there is no further one for a while."""
WHOLE_SORTS = 2
"""Listings at a time that are sorted without a limit: objects take five times what bytes do."""
SMALL = 1 << 20
"""Bytes of a listing that may be sorted at any time."""
NDJSON = "application/x-ndjson"


class Events:
    """The event log with a bell: followers wait for the next event."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self._bell = asyncio.Event()

    def add(self, events: list[dict[str, Any]]) -> None:
        """Log events and wake those who follow."""
        self.log.add(events)
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    async def wait(self, number: int) -> None:
        """Until there is an event of this number."""
        while self.log.next_number <= number:
            await self._bell.wait()


class NoSuchMachineError(Exception):
    """There is no VM of this name; the answer's parts name the existing ones."""

    def __init__(self, name: str, answer: Answer) -> None:
        names = [known for part in answer.records() for known in part]
        super().__init__(f"vm: there is no virtual machine {name!r}{suggestion(name, names)}")


def application(  # noqa: C901, PLR0915
    engine: EngineClient,
    events: Events,
    flow_log: FlowLogWriter | None = None,
    captures: CaptureStreams | None = None,
    sampler: LivePoller | None = None,
) -> Starlette:
    """The API over an engine's client, an event log, the flow logs' writer, captures, a sampler.

    The sampler is one that the caller has running; without it there is nothing live.
    """

    sorting = asyncio.Semaphore(WHOLE_SORTS)

    async def machine(vm: str) -> Answer:
        if len(vm) > MAXIMUM_NAME:
            raise QueryError([f"vm: a name of more than {MAXIMUM_NAME} characters"])
        return await engine.machines(vm)

    async def expect_machine(query: FlowQuery, answer: Answer | None = None) -> None:
        """Raises NoSuchMachineError for a VM that there is not, nor flows of one that was."""
        if query.vm is None:
            return
        found = await machine(query.vm)
        if found.result is None:
            flows = await engine.flows() if answer is None else answer
            await _expect_any(flows, lambda r: query.is_of(flow_record(r)), query.vm, found)

    async def flows(request: Request) -> Response:
        query = FlowQuery.parse(dict(request.query_params))
        if engine.held > MAXIMUM_HELD:
            line = "listings are being read that have not come to their end: try again later"
            raise EngineFailedError([line])
        answer = await engine.flows()
        await expect_machine(query, answer)
        return _lines(_flow_lines(answer, query, sorting))

    async def ports(request: Request) -> Response:
        values = dict(request.query_params)
        _refuse_unknown(values, "vm")
        vm = values.get("vm")
        found = None if vm is None else await machine(vm)
        answer = await engine.ports()
        if found is not None:
            if found.result is None:
                await _expect_any(answer, lambda r: port_record(r).vm == vm, vm, found)
            else:
                vm = next(found.records())[0][0]  # it may have been asked for by its address
        return _lines(_port_lines(answer, vm))

    async def health(request: Request) -> Response:
        values = dict(request.query_params)
        _refuse_unknown(values, "vm")
        vm = values.get("vm")
        if vm is not None:
            found = await machine(vm)
            if found.result is None:
                raise NoSuchMachineError(vm, found)
        return _lines(_health_lines(await engine.health(), vm))

    async def list_events(request: Request) -> Response:
        values = dict(request.query_params)
        readers: Readers = {
            "since": lambda text: {"since": parse_since(text, datetime.now(UTC))},
            "limit": lambda text: {"limit": parse_limit(text)},
            "follow": lambda _: {"follow": parse_flag(values, "follow")},
        }
        found = read_parameters(values, readers, ("since", "follow", "limit"))
        return _lines(
            _event_lines(events, found.get("since"), found.get("limit"), found.get("follow", False))
        )

    async def explain(request: Request) -> Response:
        values = dict(request.query_params)
        ExplainQuery.parse(values)
        answer = await engine.explain(values)
        if answer.result is None:
            raise NoSuchMachineError(values["vm"], answer)
        return JSONResponse(answer.result)

    async def security_rules(request: Request) -> Response:
        values = dict(request.query_params)
        _refuse_unknown(values, "vm", "expand")
        expand = parse_flag(values, "expand")
        _refuse_long_name(values)
        answer = await engine.security_rules(values)
        if answer.result is None:
            raise NoSuchMachineError(values["vm"], answer)
        return _lines(_rule_lines(answer, expand))

    async def status_document() -> dict[str, Any]:
        document = await engine.status()
        document["events"] = {
            **document.get("events", {}),
            "kept": len(events.log.after(0, 1 << 30)[0]),
            "unwritten": events.log.unwritten,
        }
        if flow_log is not None:
            logged = document.get("flowLogs", {})
            document["flowLogs"] = {**logged, "unwritten": flow_log.unwritten}
        return document

    async def status(request: Request) -> Response:
        _refuse_unknown(dict(request.query_params))
        return JSONResponse(await status_document())

    diagnosis = Diagnosis(
        engine,
        status=status_document,
        events=lambda: events.log.after(0, 1 << 30)[0],
        no_such_machine=NoSuchMachineError,
    )

    async def diagnose(request: Request) -> Response:
        values = dict(request.query_params)
        _refuse_unknown(values, "vm")
        _refuse_long_name(values)
        return JSONResponse(await diagnosis.document(values.get("vm")))

    async def reload(request: Request) -> Response:
        values = dict(request.query_params)
        _refuse_unknown(values, "enforce")
        return JSONResponse(await engine.reload(enforce=parse_flag(values, "enforce")))

    return Starlette(
        routes=[
            Route("/v1/flows", flows),
            Route("/v1/ports", ports),
            Route("/v1/health", health),
            Route("/v1/events", list_events),
            Route("/v1/explain", explain),
            Route("/v1/nsg", security_rules),
            Route("/v1/status", status),
            Route("/v1/diagnose", diagnose),
            Route("/v1/reload", reload, methods=["POST"]),
            Route("/metrics", metrics_endpoint(engine, status_document)),
            *([] if captures is None else capture_routes(captures)),
            *([] if sampler is None else live_routes(sampler, expect_machine)),
        ],
        exception_handlers={
            QueryError: _problems(400),
            NoSuchMachineError: _no_such_machine,
            EngineFailedError: _engine_failed,
            HTTPException: _http_error,
        },
    )


def _problems(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def respond(_request: Request, error: Exception) -> Response:
        assert isinstance(error, QueryError)
        return JSONResponse({"problems": error.problems}, status)

    return respond


async def _engine_failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, EngineFailedError)
    status = 422 if request.url.path == "/v1/reload" else 503
    return JSONResponse({"problems": error.problems}, status)


async def _no_such_machine(_request: Request, error: Exception) -> Response:
    return JSONResponse({"problems": [str(error)]}, 404)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    line = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse({"problems": [line]}, error.status_code)


def _refuse_unknown(values: dict[str, str], *known: str) -> None:
    problems = unknown_parameters(values, known)
    if problems:
        raise QueryError(problems)


def _refuse_long_name(values: dict[str, str]) -> None:
    if len(values.get("vm", "")) > MAXIMUM_NAME:
        raise QueryError([f"vm: a name of more than {MAXIMUM_NAME} characters"])


def _lines(lines: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(lines, media_type=NDJSON)


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode() + b"\n"


async def _expect_any(
    answer: Answer, matches: Callable[[Any], bool], vm: str | None, names: Answer
) -> None:
    """A VM that is gone may have something left; else there is none of this name."""
    for part in answer.records():
        if any(map(matches, part)):
            return
        await asyncio.sleep(0)
    raise NoSuchMachineError(str(vm), names)


async def _flow_lines(
    answer: Answer, query: FlowQuery, sorting: asyncio.Semaphore
) -> AsyncIterator[bytes]:
    whole = query.key is not None and query.limit is None and answer.size > SMALL
    async with sorting if whole else nullcontext():
        async for lines in _chosen_lines(answer, query):
            yield lines


async def _chosen_lines(answer: Answer, query: FlowQuery) -> AsyncIterator[bytes]:
    key, left = query.key, query.limit
    chosen: list[FlowRecord] = []
    for part in answer.records():
        matching = [r for r in map(flow_record, part) if query.matches(r)]
        if key is not None:
            chosen += matching
            if left is not None and len(chosen) > 4 * left + 1024:
                chosen = _first(chosen, query, left)
        else:
            if left is not None:
                matching = matching[:left]
                left -= len(matching)
            if matching:
                yield b"".join(_line(flow_document(r)) for r in matching)
            if left == 0:
                return
        await asyncio.sleep(0)  # others' requests, and the engine's messages
    if key is None:
        return
    chosen = _first(chosen, query, len(chosen) if left is None else left)
    for start in range(0, len(chosen), 128):
        yield b"".join(_line(flow_document(r)) for r in chosen[start : start + 128])
        await asyncio.sleep(0)


def _first(records: list[FlowRecord], query: FlowQuery, count: int) -> list[FlowRecord]:
    choose = heapq.nlargest if query.descending else heapq.nsmallest
    return choose(count, records, key=query.key)


async def _port_lines(answer: Answer, vm: str | None) -> AsyncIterator[bytes]:
    for part in answer.records():
        records = [r for r in map(port_record, part) if vm is None or r.vm == vm]
        if records:
            yield b"".join(_line(port_document(r)) for r in records)
        await asyncio.sleep(0)


async def _health_lines(answer: Answer, vm: str | None) -> AsyncIterator[bytes]:
    for part in answer.records():
        for document in health_documents(part):
            if vm is None or vm in (document["vm"], document["backend"]["ip"]):
                yield _line(document)
        await asyncio.sleep(0)


async def _rule_lines(answer: Answer, expand: bool) -> AsyncIterator[bytes]:
    """As the engine lists them; for a VM, each direction's levels in the order asked."""
    records = read_rules(answer.records())
    levels = answer.result["levels"]
    rules: Iterable[tuple[SecurityRuleRecord, str | None]]
    if levels is None:
        rules = ((record, None) for record in records)
    else:
        found = list(records)
        rules = (
            (record, level)
            for direction, order in (("Inbound", levels), ("Outbound", levels[::-1]))
            for level, group in order
            for record in found
            if record.group == group and record.direction == direction
        )
    for record, level in rules:
        yield _line(security_rule_document(record, level, expand=expand))
        await asyncio.sleep(0)


async def _event_lines(
    events: Events, since: datetime | None, limit: int | None, follow: bool
) -> AsyncIterator[bytes]:
    """Past events first; ``limit`` is of these, the latest. Then, if asked, each as it comes."""
    past, number = events.log.after(0, 1 << 30)

    def wanted(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if since is None:
            return batch
        return [event for event in batch if parse_since(event["time"], since) >= since]

    if since is not None:
        past = wanted(past)
    elif follow and limit is None:
        past = []
    if limit is not None:
        past = past[-limit:]
    for start in range(0, len(past), EVENTS_PER_CHUNK):
        yield b"".join(map(_line, past[start : start + EVENTS_PER_CHUNK]))
    while follow:
        await events.wait(number)
        batch, number = events.log.after(number, EVENTS_PER_CHUNK)
        yield b"".join(map(_line, wanted(batch)))
