"""The gateway while it runs: what each thing that happens in the loop leads to.

Events of the core go to the API process, signals stop or reload, the queue's own losses become
events, an API process that died is started again (a bounded number of times). What starts and
undoes all of this is ``lifecycle.py``.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.core.engine import Engine
from gateway.core.established import PacketHandler
from gateway.core.events import Event
from gateway.daemon.channel.api_messages import Kind
from gateway.daemon.channel.event_views import event_document, gateway_event
from gateway.daemon.channel.flow_log_message import message
from gateway.daemon.channel.json_views import iso
from gateway.daemon.console import Level, say, warn
from gateway.daemon.engine_process import sd_notify as notify
from gateway.daemon.engine_process.drop_monitor import DropMonitor
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.fast_path_offload import FastPathOffload
from gateway.daemon.engine_process.guard_monitor import GuardMonitor
from gateway.daemon.engine_process.host import Diverted, Queue, losses, queue_document
from gateway.daemon.engine_process.host_monitor import HostMonitor
from gateway.daemon.engine_process.probe_supervisor import ProbeSupervisor
from gateway.daemon.engine_process.reload import (
    Outcome,
    Reloader,
    ReloadRefusedError,
    fixed_changes,
)
from gateway.daemon.engine_process.request_channel import RequestChannel
from gateway.daemon.engine_process.requests_capture import CaptureRequests
from gateway.daemon.engine_process.requests_metrics import MetricsRequests
from gateway.daemon.engine_process.requests_security import SecurityRequests
from gateway.daemon.engine_process.restart_limiter import LIMIT, WINDOW, RestartLimiter
from gateway.daemon.engine_process.signals import RELOAD, STOP, Signals
from gateway.daemon.engine_process.state_events import StateNews
from gateway.daemon.engine_process.state_writer import StateWriter
from gateway.datapath.errors import DatapathError
from gateway.datapath.fastpath import FastPath
from gateway.datapath.reset_socket import ResetSocket
from gateway.model.configuration import Configuration

CHANGES_IN_EVENT = 50
OVERFLOW_INTERVAL = 10.0
"""Seconds (real) between events about packets that the queue loses; each has all since the last."""
FLOW_LOG_ENTRIES = 512
"""In a message to the API process; fewer wait for up to a second."""
FLOW_LOG_MESSAGES_AT_STOP = 256
RESETS_PER_TURN = 128
"""TCP resets that are sent between two chances to handle packets, so that none waits for them."""
_SOCKET_BUFFER = 4 << 20


class Gateway:
    """A running gateway around its engine.

    ``diverted`` is the host's side, once its packets are diverted; ``start_api`` starts an API
    process at the other end of a socket, ``start_prober`` a prober; ``read_configuration`` starts
    reading the file and returns the descriptor that gets the result. The last three raise OSError
    when the supervisor is gone.
    """

    def __init__(  # noqa: PLR0913
        self,
        configuration: Configuration,
        file: Path | None,
        signals: Signals,
        *,
        fast_path: FastPath | str,
        state_writer: StateWriter,
        resets: ResetSocket,
        diverted: Callable[[], Diverted],
        start_api: Callable[[socket.socket], None],
        start_prober: Callable[[socket.socket], None],
        read_configuration: Callable[[], int],
    ) -> None:
        self.configuration = configuration
        self._scale = configuration.gateway.time_scale
        self._began = time.monotonic()
        self._base = state_writer.base(self._began, self._scale)
        self._fast_path = fast_path
        self._offloading: FastPathOffload | None = None
        if not isinstance(fast_path, str):
            self._offloading = FastPathOffload(fast_path, self._azure_time, self._scale)
        self._state_writer = state_writer
        now = self._azure_time(self._began)
        self.engine = state_writer.resume(
            configuration,
            lambda told, seed: Engine(
                told, seed=seed, now=now, offload=self._offloading, probed=True
            ),
            self._offloading,
            now,
        )
        state_writer.begin(self.engine, self._offloading, base=self._base, scale=self._scale)
        self._state_news = StateNews(state_writer, self._own_event)
        self._file = file
        self._diverted = diverted
        self._host = HostMonitor(diverted, fast_path, self._own_event)
        self._drops = DropMonitor(diverted, fast_path, self.engine.drops)
        self._guard = GuardMonitor(diverted, self._drops.count_quietly, self._own_event)
        self._start_api = start_api
        self._started_at = time.time()
        self._queue: Queue | None = None
        self._losses: dict[str, int] = {}
        self._losses_due = 0.0
        self._handler_errors = 0
        self._restarts = RestartLimiter()
        self._api_wanted = True
        self._api_running = False
        self._events_lost = 0
        self._flow_log_due = False
        self._flow_log_lost = 0
        self.probes = ProbeSupervisor(
            self.engine,
            configuration,
            start=start_prober,
            watch=lambda *looked_at: self.turns.watch(*looked_at),
            unwatch=lambda descriptor: self.turns.unwatch(descriptor),
            spawn=lambda work: self.turns.spawn(work),
            now=lambda: self.turns.now,
            say=warn,
        )
        self._captures = CaptureRequests(
            self.engine,
            use_handlers=self._use_handlers,
            on_event=lambda name, about: self._own_event(name, "Informational", about),
            spawn=lambda work: self.turns.spawn(work),
            look_at_drops=self._drops.look,
        )
        self.control = RequestChannel(
            self.engine,
            status=self.status,
            reload=self._reload,
            questions={
                **SecurityRequests(self.engine).questions,
                **MetricsRequests(self.engine, lambda: self.turns.now).questions,
                **self._captures.questions,
                **self.probes.questions,
            },
            flow_log=self._next_flow_log,
        )
        self.turns = EventLoop(
            self.engine,
            self.control,
            signals,
            monotonic=time.monotonic,
            azure_time=self._azure_time,
            on_event=self._on_event,
            on_signal=self._on_signal,
            on_api_gone=self._on_api_gone,
            housekeeping=self._housekeeping,
        )
        if self._offloading is not None:
            self.turns.every_tick(self._look_at_fast_path)
        self.turns.every_tick(state_writer.look)
        self._resets = resets
        self._outbox = self.engine.lifecycle.reset_queue
        if self.engine.profile.tcp_reset_on_idle or self.engine.profile.nat_gateway is not None:
            self.turns.every_tick(self._send_resets)
        self._reloader = Reloader(
            read=read_configuration,
            watch=self.turns.watch,
            unwatch=self.turns.unwatch,
            apply=self._apply,
            review=lambda enforce: self.engine.review(enforce=enforce),
            in_slices=self.turns.spawn,
            report=self._report_reload,
        )

    def run(self, queue: Queue) -> None:
        """Handle packets until a signal says to stop."""
        self._queue = self._drops.queue = queue
        self._own_event("Started", "Informational", {"version": __version__, "pid": os.getpid()})
        self._state_news.begin()
        self._host.watch(self.turns)
        self._guard.watch(self.turns)
        self.turns.run(queue)
        self._state_writer.finish()

    def leave(self) -> None:
        """Have live flows go on in the kernel until the next daemon is there, and nothing else."""
        self._diverted().leave()
        if self._offloading is not None:
            self._offloading.leave()

    def start_api(self) -> None:
        """Start the API process. Raises OSError if its supervisor is gone."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
            self._start_api(theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.control.connect(ours)
        self._api_running = True

    def status(self) -> dict[str, Any]:
        """The daemon's and the engine's state, ready for JSON."""
        gateway = self.configuration.gateway
        return {
            "version": __version__,
            "pid": os.getpid(),
            "configuration": None if self._file is None else str(self._file),
            "startedAt": iso(self._started_at),
            "uptimeSeconds": round(time.monotonic() - self._began, 3),
            "timeScale": self._scale,
            "inside": list(gateway.inside),
            "outside": gateway.outside,
            "publicIps": [str(p.ip_address) for p in self.configuration.public_ip_addresses],
            "http": gateway.http,
            **self.engine.status(self.turns.now),
            "packets": self.turns.packets,
            "queue": {} if self._queue is None else queue_document(self._queue),
            "fastPath": self._fast_path_status(),
            "host": self._host.document(),
            "guard": self._guard.status(),
            "state": self._state_writer.document(),
            "tcpResets": {
                "sent": self._resets.sent,
                "failed": self._resets.failed,
                "waiting": len(self._outbox),
                "suppressed": self._outbox.suppressed,
            },
            "events": {"lost": self.control.events_lost},
            "flowLogs": self._flow_log_status(),
            "captures": self._captures.running,
            "healthProbes": self.probes.status(),
            "apiRestarts": self._restarts.count,
        }

    def _fast_path_status(self) -> dict[str, Any]:
        if self._offloading is None:
            return {"active": False, "reason": self._fast_path}
        path = self._offloading.path
        return {
            "active": True,
            "flows": self._offloading.flows,
            "capacity": path.capacity,
            "refused": path.refused,
            "heldBack": path.held_back,
        }

    def _look_at_fast_path(self) -> None:
        assert self._offloading is not None
        self._offloading.report(self.engine.lifecycle)

    def _send_resets(self) -> None:
        for _ in range(min(len(self._outbox), RESETS_PER_TURN)):
            reset = self._outbox.take()
            if reset is not None:
                self._captures.made(reset)
                self._resets.send(reset.packet)

    def _azure_time(self, real: float) -> float:
        return (real - self._base) * self._scale

    def _on_event(self, event: Event) -> None:
        wall = time.time() - (self.turns.now - event.time) / self._scale
        self.control.post(event_document(event, wall))

    def _own_event(self, operation: str, level: str, properties: dict[str, Any]) -> None:
        say(f"event {operation}: {properties}", Level.DEBUG)
        self.control.post(gateway_event(time.time(), operation, level, properties))

    def _on_signal(self, number: int) -> None:
        if number in STOP:
            notify.notify("STOPPING=1")
            self._guard.look(math.inf)  # the next daemon does not tell of what is ours to tell
            self._own_event("Stopped", "Informational", {"pid": os.getpid()})
            if self.engine.flow_log is not None:
                self.engine.flow_log.leave()
            self._flow_log_due = True
            self._captures.hurry()
            for _ in range(FLOW_LOG_MESSAGES_AT_STOP):
                if not self.control.work(self.turns.now) or not self.control.has_work:
                    break
            self._diverted().leave()  # a stop by Ctrl-C may be half of a restart as well
            if number == signal.SIGTERM:
                self.leave()
            self.turns.stop()
        elif number == RELOAD:
            self._reload(lambda kind, payload: None, enforce=False)

    def _use_handlers(self, handlers: tuple[PacketHandler, ...]) -> None:
        """The captures have packets watched, or no longer watched."""
        assert self._queue is not None
        capturing = self._captures.running > 0
        self._queue.change_handlers(handlers, finished=capturing)
        self.control.captured = self._captures.next_message if capturing else None

    # -- flow logs

    def _next_flow_log(self) -> Any:
        """The next message for the flow logs: what makes one full, or what a second has brought."""
        log = self.engine.flow_log
        if log is None or (len(log) < FLOW_LOG_ENTRIES and not self._flow_log_due):
            return None
        entries = log.take(FLOW_LOG_ENTRIES)
        self._flow_log_due = len(log) > 0
        if not entries:
            return None
        mode = self.configuration.gateway.flow_logs
        return message(mode, self.turns.now, time.time(), self._scale, entries)

    def _flow_log_status(self) -> dict[str, Any]:
        log = self.engine.flow_log
        if log is None:
            return {"mode": "off"}
        return {
            "mode": self.configuration.gateway.flow_logs,
            "waiting": len(log),
            "lost": log.lost,
            "denialsNotLogged": log.denials_not_logged,
        }

    # -- reload

    def _reload(self, answer: Callable[[Kind, Any], None], enforce: bool) -> None:
        if self._file is None:
            problem = "started without a configuration file: there is nothing to reload"
            self._report_reload(Outcome(problems=[problem]))
            answer(Kind.FAILED, [problem])
            return
        self._reloader.request(answer, enforce=enforce)

    def _apply(self, configuration: Configuration) -> list[str]:
        try:
            configuration = self._diverted().with_real_names(configuration)
        except DatapathError as error:
            raise ReloadRefusedError(error.problems) from None
        problems = fixed_changes(self.configuration, configuration)
        if problems:
            raise ReloadRefusedError(problems)
        try:
            self._diverted().change(configuration)
        except Exception as error:  # whatever the host refuses, the gateway goes on as it was
            problems = [f"the rules could not be changed: {error}"]
            try:
                self._diverted().change(self.configuration)
            except Exception as second:
                problems.append(f"the earlier rules could not be restored: {second}")
            raise ReloadRefusedError(problems) from error
        changes = self.engine.reconfigure(configuration, self.turns.now)
        self.probes.reconfigured(configuration)
        self.configuration = configuration
        self._state_writer.reconfigured(configuration)
        return changes

    def _report_reload(self, outcome: Outcome) -> None:
        changes, problems = outcome.changes, outcome.problems
        for line in outcome.warnings:
            warn(line)
        for line in problems:
            say(f"reload refused: {line}", Level.ERROR)
        if problems:
            shown = problems[:CHANGES_IN_EVENT]
            self._own_event("ReloadRefused", "Error", {"problems": shown, "count": len(problems)})
            return
        refused, ended = outcome.refused_flows, outcome.ended_flows
        flows = f"; of the live flows, rules now refuse {refused}, {ended} ended" if refused else ""
        say(f"reloaded: {len(changes)} change{'' if len(changes) == 1 else 's'}{flows}")
        properties = {
            "changes": changes[:CHANGES_IN_EVENT],
            "count": len(changes),
            "refusedFlows": refused,
            "endedFlows": ended,
        }
        self._own_event("Reloaded", "Informational", properties)

    # -- the API process

    def _on_api_gone(self) -> None:
        self.control.disconnect()
        self._captures.end_all()
        self._api_running = False

    def _housekeeping(self, real: float) -> None:
        """About once a second."""
        self._reloader.look(real)
        assert self._queue is not None
        self._look_at_queue(self._queue, real)
        self._drops.look()
        self._host.look()
        self._guard.look(real)
        self.probes.look(real)
        self.turns.spawn(self._state_writer.each_second())
        self._state_news.look()
        lost = self.control.events_lost
        if lost > self._events_lost and self._api_running:
            self._own_event("EventsLost", "Warning", {"count": lost - self._events_lost})
            self._events_lost = lost
        log = self.engine.flow_log
        self._flow_log_due = log is not None
        if log is not None and log.lost != self._flow_log_lost:
            if log.lost > self._flow_log_lost:
                count = log.lost - self._flow_log_lost
                self._own_event("FlowLogEntriesLost", "Warning", {"count": count})
            self._flow_log_lost = log.lost
        if self._api_wanted and not self._api_running:
            self._restart_api(real)

    def _look_at_queue(self, queue: Queue, real: float) -> None:
        statistics = queue.statistics()
        now = losses(statistics)
        grown = {name: n - self._losses.get(name, 0) for name, n in now.items()}
        if any(n > 0 for n in grown.values()) and real >= self._losses_due:
            self._own_event("QueueOverflow", "Error", grown)
            self._losses = now
            self._losses_due = real + OVERFLOW_INTERVAL
        errors = statistics.handler_errors - self._handler_errors
        if errors:
            self._handler_errors = statistics.handler_errors
            count = f"{errors} packets were dropped because of a mistake in this program:"
            say(f"{count}\n{queue.last_error.rstrip()}", Level.ERROR)
            self._own_event("HandlerError", "Error", {"count": errors, "trace": queue.last_error})

    def _restart_api(self, real: float) -> None:
        if not self._restarts.allow(real):
            self._api_wanted = False
            say(
                f"the API process ended {LIMIT + 1} times in {WINDOW:.0f} s: "
                "going on without it; packets are not affected",
                Level.ERROR,
            )
            return
        warn("the API process ended: starting it again; packets are not affected")
        try:
            self.start_api()
        except OSError as error:
            self._api_wanted = False
            say(f"the API process cannot be started: {error.strerror or error}", Level.ERROR)
