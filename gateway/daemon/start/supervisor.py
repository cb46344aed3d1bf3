"""The process that starts and ends processes, so that the engine needs no privilege to do it.
Runs in the supervisor process; its handle, ``Supervisor``, in the engine process.

The engine gives up the capabilities to change users and to signal other users' processes. This
small process, forked before anything else, keeps exactly those and does three things on the
engine's order: start the API process (handing it the sockets that came with the order) in place of
the one before, start the prober likewise, and run ``python -m gateway.daemon.reader`` for a reload.
It reads its orders from the engine alone.

When the engine is gone, however it went, the order channel ends: the supervisor kills both
processes and exits. When the supervisor is gone, they die with it (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from gateway.daemon.api_process.main import Sockets
from gateway.daemon.console import Level, name_process, say
from gateway.daemon.start import privileges

ApiMain = Callable[[Sockets], None]
"""Serves on its sockets until the engine ends."""
ProberMain = Callable[[socket.socket], None]
"""Probes what the engine asks for over this socket, until that closes."""

_START_API, _START_PROBER, _READ_CONFIGURATION = b"start", b"probe", b"read"
_API, _PROBER = "the API process", "the prober"
_SHORT = {_API: "api", _PROBER: "prober"}
GRACE = 0.5
"""Seconds for the API process to write the last events down."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Supervisor:
    """The engine's handle on its supervisor. ``fork`` it before opening anything."""

    def __init__(self, pid: int, orders: socket.socket) -> None:
        self._pid = pid
        self._orders = orders

    @classmethod
    def fork(
        cls,
        api_main: ApiMain,
        prober_main: ProberMain,
        user: tuple[int, int],
        reading: list[str] | None,
    ) -> Supervisor:
        """Start the supervisor. The API process and the prober run as ``user`` (user, group);
        ``reading`` the arguments of ``gateway.daemon.reader``: nothing else will ever be read."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ours.close()
            status = 1
            try:
                _SupervisorProcess(theirs, api_main, prober_main, user, reading).run()
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        return cls(pid, ours)

    def start_api(self, sockets: Sockets) -> None:
        """Start the API process, ending the one before. Raises OSError without a supervisor."""
        descriptors = [sockets.api.fileno(), sockets.control.fileno(), sockets.directory]
        if sockets.http is not None:
            descriptors.append(sockets.http.fileno())
        socket.send_fds(self._orders, [_START_API], descriptors)

    def start_prober(self, control: socket.socket) -> None:
        """Start the prober, ending the one before. Raises OSError if the supervisor is gone."""
        socket.send_fds(self._orders, [_START_PROBER], [control.fileno()])

    def read_configuration(self) -> int:
        """Start reading the file; returns the descriptor that gets what the reader prints.

        Raises OSError if the supervisor is gone.
        """
        reader, writer = os.pipe()
        try:
            socket.send_fds(self._orders, [_READ_CONFIGURATION], [writer])
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return reader

    def close(self, patience: float) -> None:
        """End the supervisor and with it what it started; waits ``patience`` seconds at most."""
        self._orders.close()
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            descriptor = os.pidfd_open(self._pid)
            try:
                ended, _, _ = select.select([descriptor], [], [], patience)
            finally:
                os.close(descriptor)
            if not ended:
                with contextlib.suppress(PermissionError):
                    os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0 if ended else os.WNOHANG)


class _SupervisorProcess:
    """The supervisor's own side."""

    def __init__(
        self,
        orders: socket.socket,
        api_main: ApiMain,
        prober_main: ProberMain,
        user: tuple[int, int],
        reading: list[str] | None,
    ) -> None:
        self._user = user
        self._orders = orders
        self._api_main = api_main
        self._prober_main = prober_main
        self._reading = reading
        self._children: dict[str, int] = {}
        self._reader: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:  # a terminal sends them to all of us; the engine decides
            signal.signal(number, signal.SIG_IGN)
        privileges.keep_only(privileges.SUPERVISOR)
        poll = select.poll()
        poll.register(self._orders, select.POLLIN)
        while True:
            happened = poll.poll(1000)
            self._reap()
            if not happened:
                continue
            order, descriptors, _, _ = socket.recv_fds(self._orders, 64, 4)
            if not order:
                break
            try:
                self._carry_out(order, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        self._end_reader()
        self._end(_PROBER)
        self._end(_API, GRACE)

    def _carry_out(self, order: bytes, descriptors: list[int]) -> None:
        if order == _START_API and len(descriptors) in (3, 4):
            self._end(_API)
            self._start(_API, lambda: self._serve(*descriptors))
        elif order == _START_PROBER and len(descriptors) == 1:
            self._end(_PROBER)
            control = descriptors[0]
            self._start(_PROBER, lambda: self._prober_main(socket.socket(fileno=control)))
        elif order == _READ_CONFIGURATION and len(descriptors) == 1 and self._reading is not None:
            self._read(self._reading, descriptors[0])

    def _serve(self, api: int, control: int, directory: int, http: int | None = None) -> None:
        self._api_main(
            Sockets(
                api=socket.socket(fileno=api),
                control=socket.socket(fileno=control),
                http=None if http is None else socket.socket(fileno=http),
                directory=directory,
            )
        )

    def _start(self, name: str, main: Callable[[], None]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            self._become(name, parent, main)
        self._children[name] = pid

    def _become(self, name: str, parent: int, main: Callable[[], None]) -> NoReturn:
        status = 1
        try:
            name_process(_SHORT[name])
            self._orders.close()
            privileges.drop_to(*self._user)
            privileges.die_with_parent(parent)
            main()
            status = 0
        except Exception as error:
            say(f"{name} failed: {type(error).__name__}: {error}", Level.ERROR)
        finally:
            os._exit(status)

    def _read(self, reading: list[str], output: int) -> None:
        package = Path(__file__).resolve().parents[3]
        path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
        self._end_reader()
        # -P: modules come from where this program's do, never from the current directory
        command = [sys.executable, "-P", "-m", "gateway.daemon.reader", *reading]
        with contextlib.suppress(OSError):  # nothing printed: the engine reports that
            self._reader = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                env={**os.environ, "PYTHONPATH": path},
            )

    def _end(self, name: str, grace: float = 0.0) -> None:
        """Kill a process; it has ``grace`` seconds to end on its own, its channel having ended."""
        pid = self._children.pop(name, None)
        if pid is None:
            return
        if grace:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                select.select([descriptor], [], [], grace)
                os.close(descriptor)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)

    def _end_reader(self) -> None:
        if self._reader is not None:
            self._reader.kill()
            self._reader.wait()
            self._reader = None

    def _reap(self) -> None:
        if self._reader is not None and self._reader.poll() is not None:
            self._reader = None
        for name, pid in list(self._children.items()):
            with contextlib.suppress(ChildProcessError):
                ended, _ = os.waitpid(pid, os.WNOHANG)
                if ended:
                    del self._children[name]
