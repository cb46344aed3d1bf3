"""The gateway in the engine process: its parts, and the order in which the loop has them.
Runs in the engine process.

Nothing happens here. Each part is an object that registers with the event loop what it reads, does
from time to time and says at the end; this file makes them and hands each what it needs. What comes
before there is a loop, and is undone after it, is ``start/startup.py``'s.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from gateway import __version__
from gateway.core.engine import Engine
from gateway.core.established import PacketHandler
from gateway.daemon.engine_process.api_supervisor import ApiSupervisor
from gateway.daemon.engine_process.clock import Clock
from gateway.daemon.engine_process.drop_monitor import DropMonitor
from gateway.daemon.engine_process.engine_timers import EngineTimers
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.event_publisher import EventPublisher
from gateway.daemon.engine_process.fast_path_offload import (
    FastPathOffload,
    OffloadReports,
    fast_path_status,
)
from gateway.daemon.engine_process.flow_log_sender import FlowLogSender
from gateway.daemon.engine_process.guard_monitor import GuardMonitor
from gateway.daemon.engine_process.host import Diverted, Queue
from gateway.daemon.engine_process.host_monitor import HostMonitor
from gateway.daemon.engine_process.probe_supervisor import ProbeSupervisor
from gateway.daemon.engine_process.queue_monitor import QueueMonitor
from gateway.daemon.engine_process.request_channel import RequestChannel
from gateway.daemon.engine_process.requests import Requests
from gateway.daemon.engine_process.requests_capture import CaptureRequests
from gateway.daemon.engine_process.requests_listings import ListingRequests
from gateway.daemon.engine_process.requests_metrics import MetricsRequests
from gateway.daemon.engine_process.requests_reload import ReloadRequests
from gateway.daemon.engine_process.requests_security import SecurityRequests
from gateway.daemon.engine_process.requests_status import StatusRequests
from gateway.daemon.engine_process.reset_sender import ResetSender
from gateway.daemon.engine_process.signals import SignalActions, Signals
from gateway.daemon.engine_process.state_events import StateEvents
from gateway.daemon.engine_process.state_writer import StateWriter
from gateway.datapath.fastpath import FastPath
from gateway.datapath.reset_socket import ResetSocket
from gateway.model.configuration import Configuration


class Part(Protocol):
    """What takes part in the loop."""

    def register(self, loop: EventLoop) -> None:
        """Take part from now on."""


@dataclass(frozen=True)
class RunningEngine:
    """An engine with its clock and its fast path, which goes on where the earlier one was."""

    engine: Engine
    clock: Clock
    fast_path: FastPath | str
    """It, or why there is none."""
    offload: FastPathOffload | None
    state_writer: StateWriter

    @classmethod
    def start(
        cls, configuration: Configuration, fast_path: FastPath | str, state_writer: StateWriter
    ) -> RunningEngine:
        """An engine for this configuration, with the state that was left, if it can be used."""
        began, scale = time.monotonic(), configuration.gateway.time_scale
        clock = Clock(state_writer.base(began, scale), scale)
        now = clock.azure(began)
        offload = None
        if not isinstance(fast_path, str):
            offload = FastPathOffload(fast_path, clock.azure, scale)
        engine = state_writer.resume(
            configuration,
            lambda saved, seed: Engine(saved, seed=seed, now=now, offload=offload, probed=True),
            offload,
            now,
        )
        state_writer.begin(engine, offload, base=clock.base, scale=scale)
        return cls(engine, clock, fast_path, offload, state_writer)


@dataclass(frozen=True)
class Supervised:
    """What another process does for this one; each raises OSError when the supervisor is gone."""

    start_api: Callable[[socket.socket], None]
    """Start an API process at the other end of a socket, in place of the one before."""
    start_prober: Callable[[socket.socket], None]
    read_configuration: Callable[[], int]
    """Start reading the file; the descriptor that gets the result."""


class Gateway:
    """A gateway around a running engine, on a host whose packets are diverted to ``queue``."""

    def __init__(
        self,
        running: RunningEngine,
        file: Path | None,
        signals: Signals,
        queue: Queue,
        diverted: Diverted,
        resets: ResetSocket,
        supervised: Supervised,
    ) -> None:
        engine, clock, offload = running.engine, running.clock, running.offload
        state_writer = running.state_writer
        self._signals, self._queue, self._diverted = signals, queue, diverted
        self._offload = offload
        self._loop = loop = EventLoop(clock.azure)
        self._channel = channel = RequestChannel()
        self._events = events = EventPublisher(channel, clock)
        queue_monitor = QueueMonitor(queue, events.post)
        timers = EngineTimers(engine, events.post_engine_event)
        host = HostMonitor(diverted, running.fast_path, events.post)
        drops = DropMonitor(diverted, queue, running.fast_path, engine.drops)
        guard = GuardMonitor(diverted, drops.count_quietly, events.post)
        flow_logs = FlowLogSender(engine, clock.scale, loop, channel, events.post)
        self._captures = captures = CaptureRequests(
            engine,
            use_handlers=self._use_handlers,
            post=events.post,
            spawn=loop.spawn,
            look_at_drops=drops.tick,
        )
        reset_sender = ResetSender(engine, resets, captures.made)
        self.api = ApiSupervisor(channel, loop, supervised.start_api, captures.end_all)
        self.probes = ProbeSupervisor(engine, loop, supervised.start_prober)
        reload = ReloadRequests(
            engine,
            diverted,
            file,
            loop,
            read=supervised.read_configuration,
            parts=(self.probes.reconfiguring, state_writer.reconfiguring),
            post=events.post,
        )
        status = StatusRequests(
            engine,
            file,
            clock.scale,
            loop,
            {
                "queue": queue_monitor.status,
                "fastPath": partial(fast_path_status, offload, running.fast_path),
                "host": host.status,
                "guard": guard.status,
                "state": state_writer.status,
                "tcpResets": reset_sender.status,
                "events": events.status,
                "flowLogs": flow_logs.status,
                "captures": lambda: captures.running,
                "healthProbes": self.probes.status,
                "apiRestarts": lambda: self.api.restarts,
            },
        )
        channel.requests = Requests(
            ListingRequests(engine, lambda: loop.now).handlers,
            SecurityRequests(engine).handlers,
            MetricsRequests(engine, lambda: loop.now).handlers,
            captures.handlers,
            self.probes.handlers,
            reload.handlers,
            status.handlers,
        )
        self._parts: tuple[Part, ...] = (
            queue_monitor,
            SignalActions(signals, reload.on_hangup),
            *(() if offload is None else (OffloadReports(offload, engine.lifecycle),)),
            state_writer,
            reset_sender,
            timers,
            reload,
            drops,
            host,
            guard,
            self.probes,
            StateEvents(state_writer, events.post),
            events,
            flow_logs,
            captures,
            self.api,
        )
        """In the order of a turn's work, of a second's, and of the last words at a stop."""

    def run(self) -> None:
        """Handle packets until a signal says to stop."""
        self._events.post("Started", "Informational", {"version": __version__, "pid": os.getpid()})
        for part in self._parts:
            part.register(self._loop)
        self._loop.at_stop(self._leave_at_stop)
        self._loop.run()

    def leave(self) -> None:
        """Have live flows go on in the kernel until the next daemon is there, and nothing else."""
        self._diverted.leave()
        if self._offload is not None:
            self._offload.leave()

    def _leave_at_stop(self) -> None:
        self._diverted.leave()  # a stop by Ctrl-C may be half of a restart as well
        if self._signals.stopped_by == signal.SIGTERM:
            self.leave()

    def end_processes(self) -> None:
        """Let the API process and the prober go."""
        self.probes.end()
        self.api.end()

    def _use_handlers(self, handlers: tuple[PacketHandler, ...]) -> None:
        """The captures have packets watched, or no longer watched."""
        capturing = self._captures.running > 0
        self._queue.change_handlers(handlers, finished=capturing)
        self._channel.captured = self._captures.next_message if capturing else None
