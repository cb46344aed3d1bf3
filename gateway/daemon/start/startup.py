"""``snatgw run`` from its first line to its last: each step can be undone, and is.
Runs in the engine process.

Load, probe, claim, socket, queue, rules, API process, ``ready``, loop: in this order, so that what
can be rejected is rejected before the host is touched. A failure or a signal half-way undoes what
was done, in reverse. At the end the rules go first and the rest after them; a SIGKILL leaves them,
and without a reader on the queue they let nothing through, until the next start takes them over.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.daemon.api_process.event_log import DIRECTORY, FILE, prepare_directory
from gateway.daemon.api_process.main import Site, Sockets, serve
from gateway.daemon.console import Level, name_process, say, warn, wrong_settings
from gateway.daemon.engine_process.gateway import Gateway, RunningEngine, Supervised
from gateway.daemon.engine_process.host import Diverted, Queue
from gateway.daemon.engine_process.sd_notify import notify
from gateway.daemon.engine_process.signals import STOP, Signals
from gateway.daemon.engine_process.state_events import say_what_became_of_it
from gateway.daemon.engine_process.state_writer import StateWriter
from gateway.daemon.prober import prober
from gateway.daemon.start import privileges
from gateway.daemon.start.api_socket import ApiSocketError, open_api_socket, remove_api_socket
from gateway.daemon.start.http_listener import (
    HttpListener,
    HttpListenerError,
    dashboard_token,
    open_http_listener,
)
from gateway.daemon.start.supervisor import Supervisor
from gateway.datapath.errors import DatapathError
from gateway.datapath.fastpath import FastPath
from gateway.datapath.host.host_probes import FIREWALL, Finding
from gateway.datapath.queue import PacketHandlers, Uncut
from gateway.datapath.reset_socket import ResetSocket
from gateway.model.configuration import Configuration
from gateway.model.reading.load import THE_FILES, Interfaces, Loaded

SUPERVISOR_PATIENCE = 2.0


class StartError(Exception):
    """Why the gateway does not start; ``problems`` has a line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


class Host(Protocol):
    """What the datapath does for the daemon (``host.py``). Failures are DatapathError."""

    def with_real_names(self, configuration: Configuration) -> Configuration:
        """The configuration with the names that interfaces have, not alternative ones."""

    def findings(self, configuration: Configuration) -> list[Finding]:
        """What the kernel and the host have, and lack."""

    def claim(self, configuration: Configuration) -> AbstractContextManager[object]:
        """Take the interfaces, which one gateway at a time may have."""

    def queue(
        self, configuration: Configuration, handlers: PacketHandlers, uncut: Uncut
    ) -> AbstractContextManager[Queue]:
        """Open the packet queue."""

    def fast_path(self, configuration: Configuration) -> AbstractContextManager[FastPath]:
        """Load and attach the fast path."""

    def diversion(
        self, configuration: Configuration, queue: Queue
    ) -> AbstractContextManager[Diverted]:
        """Set rules, addresses and settings; they go at its end."""


@dataclass(frozen=True)
class Start:
    """What to run. ``file`` is None where there is none to reload."""

    read: Callable[[], Loaded]
    file: Path | None
    api: Path
    site: Site
    """What ``gateway.http`` serves: the daemon knows no client."""
    interfaces: Interfaces = THE_FILES
    """With what a reload reads ``file``; ``read`` has them already."""


def run(start: Start, host: Host) -> int:
    """Run the gateway until a signal ends it; returns the exit status."""
    try:
        with ExitStack() as undo:
            signals = Signals()
            undo.callback(signals.close)
            _run(start, host, signals, undo)
    except (StartError, DatapathError) as error:
        for problem in error.problems:
            say(f"snatgw: {problem}", Level.ERROR)
        return 1
    except _StopRequestedError:
        return 0
    return 0


class _StopRequestedError(Exception):
    """A signal came before the gateway was up."""


def _run(start: Start, host: Host, signals: Signals, undo: ExitStack) -> None:  # noqa: C901, PLR0912, PLR0915
    name_process("engine")
    mistaken = wrong_settings()
    if mistaken:
        raise StartError(mistaken)
    configuration = host.with_real_names(_load(start))
    gateway_settings = configuration.gateway
    findings = host.findings(configuration)
    unmet = [finding.sentence for finding in findings if finding.stops]
    if unmet:
        raise StartError(unmet)

    # Before anything is opened: what a forked process inherits, it holds on to.
    log = gateway_settings.state_directory / DIRECTORY / FILE
    user = privileges.api_user()
    if user[0] == 0:
        warn("the API process runs as root, without capabilities: this one may not change users")
    token = _token(configuration)
    supervisor = Supervisor.fork(
        lambda sockets: serve(sockets, log, lambda api: start.site(api, token)),
        prober.serve,
        user,
        None if start.file is None else start.interfaces.reading(start.file),
    )
    undo.callback(supervisor.close, SUPERVISOR_PATIENCE)

    undo.enter_context(host.claim(configuration))
    try:
        listener = undo.enter_context(open_api_socket(start.api))
    except ApiSocketError as error:
        raise StartError([str(error)]) from error
    undo.callback(remove_api_socket, start.api)
    http = _listen(configuration, token)
    if http is not None:
        undo.callback(http.close)
    try:
        prepare_directory(gateway_settings.state_directory, *user)
        directory = os.open(log.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        line = f"{error.filename or gateway_settings.state_directory}: {error.strerror}"
        raise StartError([f"gateway.stateDirectory: {line}"]) from error
    undo.callback(os.close, directory)
    state_writer = StateWriter.open(gateway_settings.state_directory)
    undo.callback(state_writer.close)
    _stop_if_asked(signals)

    fast_path = _fast_path(configuration, host, undo)
    resets = ResetSocket()
    undo.callback(resets.close)
    # The rules need the queue's number, and the queue needs the engine.
    running = RunningEngine.start(configuration, fast_path, state_writer)
    engine = running.engine
    queue = undo.enter_context(host.queue(configuration, engine.handlers, engine.count_segments))
    diverted = undo.enter_context(host.diversion(configuration, queue))
    supervised = Supervised(
        start_api=lambda control: supervisor.start_api(
            Sockets(listener, control, None if http is None else http.socket, directory)
        ),
        start_prober=supervisor.start_prober,
        read_configuration=supervisor.read_configuration,
    )
    gateway = Gateway(running, start.file, signals, queue, diverted, resets, supervised)
    if isinstance(fast_path, FastPath):  # after the diversion, which removes what a crash left
        fast_path.attach()
    _stop_if_asked(signals, gateway.leave)

    privileges.keep_only(privileges.engine(maps=isinstance(fast_path, FastPath)))
    undo.callback(gateway.end_processes)
    try:
        gateway.api.begin()
    except OSError as error:
        reason = error.strerror or error
        raise StartError([f"the API process cannot be started: {reason}"]) from error
    try:
        gateway.probes.begin()
    except OSError as error:
        reason = error.strerror or error
        raise StartError([f"the prober cannot be started: {reason}"]) from error
    if isinstance(fast_path, FastPath) and fast_path.not_inherited:
        warn(
            f"fast path: starts empty, not with the maps that were left: {fast_path.not_inherited}"
        )
    say_what_became_of_it(state_writer)
    if isinstance(fast_path, str) and gateway_settings.fast_path != "off":
        warn(f"no fast path, every packet passes the engine: {fast_path}")
    for finding in findings:
        if finding.name == "IPv6" or (finding.name == FIREWALL and not finding.ok):
            warn(finding.sentence)
    gc.collect()
    gc.freeze()
    gc.disable()
    if http is not None:
        say(f"dashboard: {http.url}")
    _ready(start, configuration)
    gateway.run()


def _fast_path(configuration: Configuration, host: Host, undo: ExitStack) -> FastPath | str:
    """The fast path, or why there is none. Raises DatapathError where there must be one."""
    wanted = configuration.gateway.fast_path
    if wanted == "off":
        return "gateway.fastPath is off"
    try:
        return undo.enter_context(host.fast_path(configuration))
    except DatapathError as error:
        if wanted == "on":
            raise DatapathError([f"gateway.fastPath = on: {p}" for p in error.problems]) from None
        return "; ".join(error.problems)


def _load(start: Start) -> Configuration:
    loaded = start.read()
    errors = [str(problem) for problem in loaded.problems if problem.severity == "error"]
    if loaded.configuration is None:
        raise StartError(errors)
    for problem in loaded.problems:
        warn(str(problem))
    return loaded.configuration


def _token(configuration: Configuration) -> str | None:
    """What the dashboard asks for, where others than this host reach it."""
    endpoint = configuration.gateway.http_endpoint
    if endpoint is None or endpoint.is_loopback:
        return None
    try:
        return dashboard_token(configuration.gateway.state_directory)
    except HttpListenerError as error:
        raise StartError([f"the dashboard's token: {error}"]) from error


def _listen(configuration: Configuration, token: str | None) -> HttpListener | None:
    endpoint = configuration.gateway.http_endpoint
    try:
        return None if endpoint is None else open_http_listener(endpoint, token)
    except HttpListenerError as error:
        raise StartError([str(error)]) from error


def _stop_if_asked(signals: Signals, leave: Callable[[], None] = lambda: None) -> None:
    """``leave`` is called if another start is to be expected."""
    wanted = STOP & set(signals.take())
    if wanted == {signal.SIGTERM}:
        leave()
    if wanted:
        raise _StopRequestedError


def _ready(start: Start, configuration: Configuration) -> None:
    gateway = configuration.gateway
    publics = ", ".join(str(public.ip_address) for public in configuration.public_ip_addresses)
    print(
        f"ready: {', '.join(gateway.inside)} -> {gateway.outside} by {publics or 'no public IP'}; "
        f"API on {start.api}, pid {os.getpid()}",
        flush=True,
    )
    sys.stdout.flush()
    notify("READY=1")
