"""The API process from its start to its end: the API on the socket that the engine process made.
Runs in the API process.

Where configured, the site (dashboard, metrics) on a TCP socket as well. It ends when
the engine's end of the channel closes. It handles no signal: the supervisor ends it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp

from gateway.daemon.api_process.capture.streams import CaptureStreams
from gateway.daemon.api_process.engine_client import EngineClient
from gateway.daemon.api_process.event_log import EventLog
from gateway.daemon.api_process.flow_logs.writer import FlowLogWriter
from gateway.daemon.api_process.http_server import answer, answer_anybody
from gateway.daemon.api_process.live.poller import LivePoller
from gateway.daemon.api_process.routes import Events, application

Site = Callable[[ASGIApp, str | None], ASGIApp]
"""Makes what TCP clients get of the API, and the token to ask for (None: none)."""

LAST_WORDS = 0.25
"""Seconds for captures to end well when the engine has."""


@dataclass(frozen=True)
class Sockets:
    """What the API process is handed at its start."""

    api: socket.socket
    control: socket.socket
    http: socket.socket | None
    """Where the site is served; None: nowhere."""
    directory: int
    """Of the event log: a descriptor, for a process that may not walk there."""


def serve(sockets: Sockets, log_path: Path, site: Callable[[ASGIApp], ASGIApp]) -> None:
    """Answer, asking the engine over the control channel, until the engine has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the engine's to act on
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.enable()
    log = EventLog(log_path, directory=sockets.directory)
    flow_log = FlowLogWriter(log_path.parent, directory=sockets.directory)
    asyncio.run(_serve(sockets, log, flow_log, site))


async def _serve(
    sockets: Sockets,
    log: EventLog,
    flow_log: FlowLogWriter,
    site: Callable[[ASGIApp], ASGIApp],
) -> None:
    def end() -> None:
        flow_log.flush(time.time())
        if captures.close_all():  # their readers get the rest
            asyncio.get_running_loop().call_later(LAST_WORDS, os._exit, 0)
        else:
            os._exit(0)

    events = Events(log)
    engine = EngineClient(
        sockets.control,
        on_events=events.add,
        on_gone=end,
        on_flow_log=lambda message: flow_log.add(message, time.time()),
    )
    captures = CaptureStreams(engine)
    engine.start()
    sampler = LivePoller(engine, log)
    api = application(engine, events, flow_log, captures, sampler)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_look_at(flow_log))
        tasks.create_task(sampler.run())
        tasks.create_task(answer(api, sockets.api))
        if sockets.http is not None:
            tasks.create_task(answer_anybody(site(api), sockets.http))


async def _look_at(flow_log: FlowLogWriter) -> None:
    while True:
        await asyncio.sleep(1)
        flow_log.look(time.time())
