"""``/v1/live`` and ``/v1/history``: the sampler's work as HTTP (docs/api.md).
Runs in the API process.

A stream is NDJSON, or Server-Sent Events where the client accepts them (a browser's EventSource).
It ends when the reader leaves.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway.daemon.api_process.live.history import MAXIMUM_POOLS, STEP, STEPS
from gateway.daemon.api_process.live.poller import LivePoller
from gateway.schema.live_query import LiveQuery
from gateway.schema.queries import FlowQuery, QueryError, unknown_parameters, whole

DEFAULT_SECONDS = 900
MAXIMUM_SECONDS = int(STEP * STEPS)
DEFAULT_POOLS = 100
MAXIMUM_EVENTS = 1000
_STREAM_HEADERS = {"Cache-Control": "no-store"}


def live_routes(
    sampler: LivePoller, expect_machine: Callable[[FlowQuery], Awaitable[None]]
) -> list[Route]:
    """The routes, over a sampler that runs. ``expect_machine`` raises where a VM is none."""

    async def live(request: Request) -> Response:
        values = dict(request.query_params)
        query = LiveQuery.parse(values, request.headers.get("accept", ""))
        await expect_machine(query.filters)
        samples = sampler.watch(query)
        if query.sse:
            return StreamingResponse(
                _as_events(samples), media_type="text/event-stream", headers=_STREAM_HEADERS
            )
        return StreamingResponse(
            _as_lines(samples), media_type="application/x-ndjson", headers=_STREAM_HEADERS
        )

    async def history(request: Request) -> Response:
        seconds, limit, vm = _history_query(dict(request.query_params))
        return StreamingResponse(
            _history(sampler, seconds, limit, vm), media_type="application/json"
        )

    return [Route("/v1/live", live), Route("/v1/history", history)]


async def _as_lines(samples: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for sample in samples:
        yield sample + b"\n"


async def _as_events(samples: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for sample in samples:
        yield b"event: sample\ndata: " + sample + b"\n\n"


def _history_query(values: dict[str, str]) -> tuple[int, int, str | None]:
    problems = unknown_parameters(values, ("seconds", "vm", "limit"))
    found = []
    for name, default, most in (
        ("seconds", DEFAULT_SECONDS, MAXIMUM_SECONDS),
        ("limit", DEFAULT_POOLS, MAXIMUM_POOLS),
    ):
        try:
            found.append(whole(values.get(name, str(default)), 1, most))
        except ValueError:
            problems.append(f"{name}: {values[name]!r} is no whole number from 1 to {most}")
    if problems:
        raise QueryError(problems)
    return found[0], found[1], values.get("vm")


async def _history(
    sampler: LivePoller, seconds: int, limit: int, vm: str | None
) -> AsyncIterator[bytes]:
    """One object, written piece by piece: with many pools it is large."""
    now, wall = time.monotonic(), time.time()
    head, pools = sampler.history.pieces(now, wall, seconds, vm, limit)
    begin = head["times"][0]  # times are all of one form: their texts are in order
    events = [
        event
        for event in sampler.log.after(0, 1 << 30)[0]
        if _is_marked(event) and event["time"] >= begin
    ]
    yield json.dumps(head).encode()[:-1] + b', "ports": ['
    separator = b""
    for pool in pools:
        yield separator + json.dumps(pool).encode()
        separator = b", "
        await asyncio.sleep(0)
    latest = json.dumps(events[-MAXIMUM_EVENTS:], ensure_ascii=False).encode()
    yield b'], "events": ' + latest + b"}"


def _is_marked(event: dict[str, Any]) -> bool:
    """Whether an event belongs on a time axis: exhausted ports, what probes found, Azure's own."""
    exhausted = event["properties"].get("eventDescription") == "Ports exhausted"
    return bool(exhausted or event["category"].startswith("LoadBalancer"))
