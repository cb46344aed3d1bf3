"""The prober: a process of its own that sends health probes and reports what came of them.
Runs in the prober process.

It runs as the API process does, as an unprivileged user without capabilities: binding to an address
of this host's takes none. The engine sends it targets and receives results; that is all it knows.
That it is a process means that nothing else's work delays a probe, and that a probe delays no
packet.

Each target has a task. Targets are spread over their interval, so that hundreds of them make a
steady trickle; the first round is within a second, so that a start does not wait for it. A probe is
one connection: opened and closed for Tcp, one GET for Http and Https, whose certificate is not
verified. HTTP is spoken by h11; a client library above it costs five times as much for the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import time

import h11

from gateway.core.backend_health import ProbeHysteresis
from gateway.daemon.channel.probe_messages import (
    MAXIMUM_REASON,
    RESULTS_PER_REPORT,
    Result,
    Targets,
    Task,
    decode_targets,
    encode_report,
)

FIRST_ROUND = 1.0
"""Seconds in which every target is probed for the first time."""
REPORT_INTERVAL = 1.0
"""Seconds between reports; a change of health does not wait for the next one."""
MAXIMUM_MESSAGE = 1 << 20
_CHUNK = 16 << 10
_GOLDEN = 0.6180339887498949
_IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h: the port is chosen when the destination is known
_MAXIMUM_BODY = 64 << 10  # bytes of an answer that are read, so that its sender sees no reset
_BODY_PATIENCE = 1.0


class _Failed(Exception):
    """A probe's failure, in a word or two."""


def serve(connection: socket.socket) -> None:
    """Probe what the engine says over ``connection``, until it closes."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # the supervisor ends us
        signal.signal(number, signal.SIG_IGN)
    asyncio.run(Prober(connection).run())
    os._exit(0)  # as the API process: what a fork inherited is not ours to tidy up


class Prober:
    """Tasks for targets, and the results that wait to be reported."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._coming: list[Task] = []
        self._waiting: dict[int, Result] = {}
        self._gone = asyncio.Event()
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE  # as Azure: any certificate will do

    async def run(self) -> None:
        """Until the engine's end closes."""
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._readable)
        while not self._gone.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), REPORT_INTERVAL)
            self._report()

    def _readable(self) -> None:
        try:
            message = self._connection.recv(MAXIMUM_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            self._gone.set()
            return
        self._take(decode_targets(message))

    def _take(self, targets: Targets) -> None:
        self._coming += targets.tasks
        if not targets.last:
            return
        wanted = {task.number: task for task in self._coming}
        self._coming = []
        for number in self._tasks.keys() - wanted.keys():
            self._tasks.pop(number).cancel()
            self._waiting.pop(number, None)
        for number in wanted.keys() - self._tasks.keys():
            # Neighbours in the list are far apart in the interval.
            position = number * _GOLDEN % 1
            probing = self._keep_probing(wanted[number], targets.source, position)
            self._tasks[number] = asyncio.create_task(probing)

    async def _keep_probing(self, task: Task, source: str, position: float) -> None:
        """Probe a target at every interval; ``position`` (0 to 1) is its place in it."""
        streak = ProbeHysteresis(task.threshold, task.interval, task.up)
        begun = time.monotonic()
        due = begun + position * min(FIRST_ROUND, task.interval)
        following = begun + task.interval * (1 + position)
        while True:
            await asyncio.sleep(due - time.monotonic())
            started = time.monotonic()
            success = False
            try:
                async with asyncio.timeout(task.timeout) as limit:
                    reason = await self._probe(task, source, limit)
                success = True
            except TimeoutError:
                reason = "no answer"
            except _Failed as error:
                reason = str(error)
            ended = time.monotonic()
            changed = streak.result(success, ended)
            milliseconds = round((ended - started) * 1000, 3)
            self._waiting[task.number] = Result(
                task.number, streak.up, streak.in_a_row, success, reason, milliseconds
            )
            if changed:
                self._report()
            due = max(following, ended)
            following = due + task.interval

    async def _probe(self, task: Task, source: str, limit: asyncio.Timeout) -> str:
        """How a probe succeeded; raises _Failed, or is cancelled when its time is over."""
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            connection.bind((source, 0))
            loop = asyncio.get_running_loop()
            await loop.sock_connect(connection, (task.address, task.port))
            if task.protocol == "Tcp":
                return "connected"
            return await self._get(connection, task, limit)
        except ConnectionRefusedError:
            raise _Failed("refused") from None
        except ConnectionResetError:
            raise _Failed("reset") from None
        except ssl.SSLError as error:
            raise _Failed(f"TLS: {error.reason or 'failed'}"[:MAXIMUM_REASON]) from None
        except TimeoutError:  # the kernel's own, or ours
            raise
        except OSError as error:
            raise _Failed((error.strerror or "failed")[:MAXIMUM_REASON]) from None
        finally:
            connection.close()

    async def _get(self, connection: socket.socket, task: Task, limit: asyncio.Timeout) -> str:
        """One GET; only 200 is success."""
        secure = task.protocol == "Https"
        reader, writer = await asyncio.open_connection(
            sock=connection,
            ssl=self._tls if secure else None,
            server_hostname=task.address if secure else None,
        )
        try:
            http = h11.Connection(h11.CLIENT)
            usual = 443 if secure else 80
            host = task.address if task.port == usual else f"{task.address}:{task.port}"
            request = h11.Request(
                method="GET",
                target=task.path if task.path.startswith("/") else f"/{task.path}",
                headers=[
                    ("Host", host),
                    ("User-Agent", "Load Balancer Agent"),
                    ("Connection", "close"),
                ],
            )
            writer.write((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
            while True:
                event = http.next_event()
                if isinstance(event, h11.Response):
                    if event.status_code != 200:
                        raise _Failed(f"HTTP {event.status_code}")
                    limit.reschedule(None)  # what follows is courtesy
                    await self._read_on(http, reader)
                    return "HTTP 200"
                if event is h11.NEED_DATA:
                    http.receive_data(await reader.read(_CHUNK))
                elif not isinstance(event, h11.InformationalResponse):
                    raise _Failed("closed without an answer")
        except h11.RemoteProtocolError:
            raise _Failed("not HTTP") from None
        finally:
            writer.transport.abort()

    async def _read_on(self, http: h11.Connection, reader: asyncio.StreamReader) -> None:
        """The rest of a good answer, as far as it comes soon: nothing depends on it."""
        left = _MAXIMUM_BODY
        with contextlib.suppress(TimeoutError, OSError, h11.RemoteProtocolError):
            async with asyncio.timeout(_BODY_PATIENCE):
                while left > 0:
                    event = http.next_event()
                    if event is h11.NEED_DATA:
                        data = await reader.read(_CHUNK)
                        left -= len(data)
                        http.receive_data(data)
                    elif not isinstance(event, h11.Data):
                        return

    def _report(self) -> None:
        """Send what waits; an empty report says that we are there."""
        results = list(self._waiting.values())
        for start in range(0, max(len(results), 1), RESULTS_PER_REPORT):
            part = results[start : start + RESULTS_PER_REPORT]
            try:
                self._connection.send(encode_report(part))
            except BlockingIOError:
                return  # with the next one
            except OSError:
                self._gone.set()
                return
            for result in part:
                self._waiting.pop(result.number, None)
