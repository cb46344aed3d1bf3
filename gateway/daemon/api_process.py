"""The API process from its start to its end: uvicorn on the socket that the engine process made.

It ends when the engine's end of the channel closes. It handles no signal: the warden ends it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

# All but uvicorn itself would be loaded on first use: after the change to a user who may not be
# able to read where this program is installed (a clone under /root).
import anyio._backends._asyncio  # noqa: F401
import uvicorn
import uvicorn.lifespan.off
import uvicorn.protocols.http.h11_impl

from gateway.daemon.api import Events, application
from gateway.daemon.engine_client import EngineClient
from gateway.daemon.event_log import EventLog
from gateway.daemon.flow_log import FlowLogWriter
from gateway.daemon.sampling import Sampler


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def serve(
    listener: socket.socket, control: socket.socket, log_path: Path, log_directory: int
) -> None:
    """Answer on ``listener``, asking the engine over ``control``, until the engine has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the engine's to act on
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.enable()
    log = EventLog(log_path, directory=log_directory)
    flow_log = FlowLogWriter(log_path.parent, directory=log_directory)
    asyncio.run(_serve(listener, control, log, flow_log))


async def _serve(
    listener: socket.socket, control: socket.socket, log: EventLog, flow_log: FlowLogWriter
) -> None:
    def end() -> None:
        flow_log.flush(time.time())
        os._exit(0)

    events = Events(log)
    engine = EngineClient(
        control,
        on_events=events.add,
        on_gone=end,
        on_flow_log=lambda message: flow_log.add(message, time.time()),
    )
    engine.start()
    sampler = Sampler(engine, log)
    tasks = [asyncio.create_task(_look_at(flow_log)), asyncio.create_task(sampler.run())]
    configuration = uvicorn.Config(
        application(engine, events, flow_log, sampler),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=256,
    )
    await _Server(configuration).serve(sockets=[listener])
    for task in tasks:
        task.cancel()


async def _look_at(flow_log: FlowLogWriter) -> None:
    while True:
        await asyncio.sleep(1)
        flow_log.look(time.time())
