"""Health probes as the engine process has them: what is probed, from which process, and the
results. Runs in the engine process.

The prober (``prober.py``) is another process, started only where there is something to probe. It
gets the list of targets at its start and with each reload, with what is known of their health, and
reports results. A change of health goes to the engine, which has the events and the flows; the
latest result of each target stays here for listings. A prober that ends or falls silent is started
again, within bounds; until then health stays as it is.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from gateway.core.backend_health import ProbeTarget, probe_targets_in_slices
from gateway.core.engine import Engine
from gateway.core.inbound.listeners import Target
from gateway.daemon.channel.api_messages import Kind
from gateway.daemon.channel.probe_messages import (
    MAXIMUM_REPORT,
    NotAReportError,
    Result,
    Task,
    decode_report,
    encode_targets,
)
from gateway.daemon.console import warn
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.requests import RequestHandler, Steps, in_slices, nothing
from gateway.daemon.engine_process.restart_limiter import LIMIT, WINDOW, RestartLimiter
from gateway.model.configuration import Configuration
from gateway.model.resolved.tags import PLATFORM_ADDRESS

SHORTEST_INTERVAL = 0.25
"""Seconds (real) between probes of one target, however fast Azure's time passes."""
MOST_PER_SECOND = 500
"""Probes of all targets; with more targets than that allows, intervals grow."""
SILENCE = 10.0
"""Seconds without a report, after which a prober is restarted; it has one each second."""
REPORTS_PER_TURN = 32
RECORDS_PER_PART = 64
_SOCKET_BUFFER = 1 << 20


class _Latest(NamedTuple):
    """A target's latest result; Unix times."""

    result: Result
    came: float
    since: float  # its health is what it is


class ProbeSupervisor:
    """The engine's handle on the prober.

    ``start`` starts one at the other end of a socket, in place of the one before, and raises
    OSError when the supervisor is gone. ``say`` is for the operator.
    """

    def __init__(
        self,
        engine: Engine,
        loop: EventLoop,
        start: Callable[[socket.socket], None],
        say: Callable[[str], None] = warn,
    ) -> None:
        self._engine = engine
        self._start = start
        self._loop = loop
        self._say = say
        self._scale = engine.configuration.gateway.time_scale
        self._connection: socket.socket | None = None
        self._unsent: deque[bytes] = deque()
        self._heard = 0.0
        self._wanted = True  # False: it ended too often
        self._restarts = RestartLimiter()
        self._numbers: dict[ProbeTarget, int] = {}
        self._targets: dict[int, ProbeTarget] = {}
        self._next_number = 0
        self._latest: dict[int, _Latest] = {}
        self._settling = False
        self._settle_again = False
        self.garbage = 0
        for _ in self._number_targets(engine.configuration):
            pass
        self.handlers: Mapping[str, RequestHandler] = {"health": in_slices(nothing, self._records)}

    # -- the prober

    def register(self, loop: EventLoop) -> None:
        """See about once a second that the prober is there."""
        loop.every(1.0, self.tick)

    def begin(self) -> None:
        """Start probing, if there is anything to. Raises OSError if the supervisor is gone."""
        if self._targets:
            self._connect(time.monotonic())

    def reconfiguring(self, configuration: Configuration) -> Iterator[None]:
        """Probe what another configuration says; flows whose backend is gone end. In slices."""
        yield from self._number_targets(configuration)
        self._settle()
        if not self._targets:
            self.end()
        elif self._connection is not None:
            yield
            self._tell_targets()
        elif self._wanted:
            self._restart(time.monotonic(), None)

    def tick(self, real: float) -> None:
        """About once a second: send what waits, and see that the prober is there."""
        if self._connection is None:
            if self._targets and self._wanted:
                self._restart(real, "the prober ended: starting it again")
            return
        self._send()
        if real - self._heard > SILENCE:
            self.end()
            self._restart(real, f"the prober said nothing for {SILENCE:.0f} s: starting another")

    def end(self) -> None:
        """Let the prober go: it ends when its channel does."""
        if self._connection is not None:
            self._loop.remove_reader(self._connection.fileno())
            self._connection.close()
            self._connection = None
        self._unsent.clear()

    def _restart(self, real: float, why: str | None) -> None:
        if why is not None:
            if not self._restarts.allow(real):
                self._wanted = False
                self._say(
                    f"the prober ended {LIMIT + 1} times in {WINDOW:.0f} s: going on without it; "
                    "the health of backends stays as it is"
                )
                return
            self._say(f"{why}; the health of backends stays as it is until then")
        try:
            self._connect(real)
        except OSError as error:
            self._wanted = False
            self._say(f"the prober cannot be started: {error.strerror or error}")

    def _connect(self, real: float) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
            ours.setblocking(False)
            self._start(theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._connection = ours
        self._heard = real
        self._loop.add_reader(ours.fileno(), self._readable)
        self._tell_targets()

    def _tell_targets(self) -> None:
        known = self._engine.balancer.targets()
        source = str(PLATFORM_ADDRESS.network_address)
        shortest = max(SHORTEST_INTERVAL, len(self._targets) / MOST_PER_SECOND)
        tasks = (
            Task(
                number,
                target.protocol,
                str(target.address),
                target.port,
                target.path,
                interval := max(target.interval / self._scale, shortest),
                min(max(target.timeout / self._scale, SHORTEST_INTERVAL), interval),
                target.threshold,
                known.get(target.target),
            )
            for number, target in self._targets.items()
        )
        self._unsent.clear()
        self._unsent.extend(encode_targets(source, tasks))
        self._send()

    def _send(self) -> None:
        assert self._connection is not None
        with contextlib.suppress(BlockingIOError, OSError):  # who is gone is noticed by reading
            while self._unsent:
                self._connection.send(self._unsent[0])
                self._unsent.popleft()

    def _number_targets(self, configuration: Configuration) -> Iterator[None]:
        numbers: dict[ProbeTarget, int] = {}
        targets: dict[int, ProbeTarget] = {}
        for target in probe_targets_in_slices(configuration):
            if target is None:
                yield
                continue
            number = self._numbers.get(target)
            if number is None:
                number, self._next_number = self._next_number, self._next_number + 1
            numbers[target], targets[number] = number, target
        self._numbers, self._targets = numbers, targets
        self._latest = {n: latest for n, latest in self._latest.items() if n in self._targets}

    # -- what it reports

    def _readable(self) -> None:
        assert self._connection is not None
        for _ in range(REPORTS_PER_TURN):
            try:
                data = self._connection.recv(MAXIMUM_REPORT + 1)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.end()
                return
            self._heard = time.monotonic()
            try:
                results = decode_report(data)
            except NotAReportError:
                self.garbage += 1
                continue
            for result in results:
                self._take(result)

    def _take(self, result: Result) -> None:
        target = self._targets.get(result.number)
        if target is None:
            return  # it was taken off the list while this was on its way
        before = self._latest.get(result.number)
        now = time.time()
        same = before is not None and before.result.up is result.up
        since = before.since if before is not None and same else now
        self._latest[result.number] = _Latest(result, now, since)
        if result.up is None:
            return
        if self._engine.health.report(target.target, result.up, self._loop.now):
            self._settle()

    def _settle(self) -> None:
        """End the flows that their backend's state does not let go on: one walk at a time."""
        if self._settling:
            self._settle_again = True
            return
        self._settling = True
        self._loop.spawn(self._settling_walk())

    def _settling_walk(self) -> Iterator[None]:
        while True:
            self._settle_again = False
            for _ in self._engine.health.settle():
                yield None
            if not self._settle_again:
                break
        self._settling = False

    # -- listings

    def _records(self, _: None = None) -> Steps:
        """Every VM behind every rule: fields of its record, and of its latest result or None."""
        engine = self._engine
        latest = {self._targets[n].target: found for n, found in self._latest.items()}
        part: list[tuple[Any, ...]] = []
        for record in engine.health.records(engine.configuration, engine.admission.policy):
            probed = latest.get(Target(record.balancer, record.probe or "", record.vm))
            fields = None if probed is None else (tuple(probed.result), probed.came, probed.since)
            part.append((tuple(record), fields))
            if len(part) == RECORDS_PER_PART:
                yield Kind.PART, part
                part = []
        if part:
            yield Kind.PART, part
        yield Kind.END, None

    def status(self) -> dict[str, Any]:
        """For the daemon's status."""
        up = list(self._engine.balancer.targets().values())
        return {
            "targets": len(self._targets),
            "up": sum(state is True for state in up),
            "down": sum(state is False for state in up),
            "running": self._connection is not None,
            "restarts": self._restarts.count,
        }
