"""Health probes: the prober with real sockets, and the engine's side of it with a prober of ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from gateway.core.engine import Engine
from gateway.core.inbound.listeners import Target
from gateway.daemon.channel.api_messages import Kind
from gateway.daemon.channel.probe_messages import (
    MAXIMUM_REPORT,
    Result,
    Task,
    decode_report,
    decode_targets,
    encode_report,
    encode_targets,
)
from gateway.daemon.engine_process import probe_supervisor
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.probe_supervisor import ProbeSupervisor
from gateway.daemon.prober.prober import Prober
from tests.scenario import configuration
from tests.unit.core.inbound.test_load_balancer import TWO

PROBED = TWO.replace(
    "{name: p, protocol: Tcp, port: 8080}",
    "{name: p, protocol: Http, port: 8080, requestPath: /health, intervalInSeconds: 10, probeThreshold: 2}",
)


# -- the prober


@pytest.fixture
def prober() -> Iterator[socket.socket]:
    """The engine's end of a prober in a thread."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=lambda: asyncio.run(Prober(theirs).run()))
    thread.start()
    ours.settimeout(30)
    yield ours
    ours.close()
    thread.join(30)
    assert not thread.is_alive()


def _serve(handler: Callable[[socket.socket], None]) -> int:
    """A server on 127.0.0.1 that does this with each connection; its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=handler, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


def _answer(text: bytes, *, stay: bool = False) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        with connection:
            connection.recv(4096)
            connection.sendall(text)
            if stay:
                with contextlib.suppress(ConnectionError):  # who gives up early may reset
                    connection.recv(1)

    return handle


@pytest.fixture
def https(tmp_path: Path) -> Callable[[socket.socket], None]:
    """A server with a certificate that nobody signed, for another name."""
    file = tmp_path / "own.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=nobody",
         "-keyout", file, "-out", tmp_path / "certificate.pem"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", file)

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(4096)
            secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    return serve


def _outcomes(prober: socket.socket, tasks: list[Task]) -> dict[int, Result]:
    """The first result of each task."""
    for message in encode_targets("127.0.0.9", tasks):
        prober.send(message)
    found: dict[int, Result] = {}
    while found.keys() != {task.number for task in tasks}:
        for result in decode_report(prober.recv(MAXIMUM_REPORT)):
            found.setdefault(result.number, result)
    return found


def _task(number: int, protocol: str, port: int, **changes: Any) -> Task:
    task = Task(number, protocol, "127.0.0.1", port, "health", 0.5, 0.5, 1, None)
    return task._replace(**changes)


def test_each_outcome_of_a_probe(
    prober: socket.socket, https: Callable[[socket.socket], None]
) -> None:
    closed = socket.create_server(("127.0.0.1", 0))
    unused = closed.getsockname()[1]
    closed.close()
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    cases = {
        ("Tcp", _serve(lambda connection: None)): (True, "connected"),
        ("Tcp", unused): (False, "refused"),
        ("Http", _serve(_answer(ok))): (True, "HTTP 200"),
        ("Http", _serve(_answer(ok.replace(b": 2", b": 20000"), stay=True))): (True, "HTTP 200"),
        ("Http", _serve(_answer(b"HTTP/1.1 204 No Content\r\n\r\n"))): (False, "HTTP 204"),
        ("Http", _serve(_answer(b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n"))): (False, "HTTP 301"),
        ("Http", _serve(_answer(b"HTTP/1.1 100 Continue\r\n\r\n" + ok))): (True, "HTTP 200"),
        ("Http", _serve(_answer(b"SSH-2.0-OpenSSH\r\n"))): (False, "not HTTP"),
        ("Http", _serve(_answer(b"", stay=True))): (False, "no answer"),
        ("Http", _serve(_answer(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 50, stay=True))): (False, "no answer"),
        ("Https", _serve(https)): (True, "HTTP 200"),
    }  # fmt: skip
    tasks = [_task(number, protocol, port) for number, (protocol, port) in enumerate(cases)]
    found = _outcomes(prober, tasks)
    assert [(found[n].success, found[n].reason) for n in range(len(cases))] == list(cases.values())
    assert all(result.up is result.success for result in found.values())


def test_tls_that_fails_says_so(prober: socket.socket) -> None:
    port = _serve(_answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    found = _outcomes(prober, [_task(0, "Https", port)])
    assert not found[0].success
    assert found[0].reason.startswith("TLS: ")


def test_what_a_server_sees_of_a_probe(prober: socket.socket) -> None:
    seen: list[tuple[str, bytes]] = []

    def handle(connection: socket.socket) -> None:
        with connection:
            seen.append((connection.getpeername()[0], connection.recv(4096)))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    port = _serve(handle)
    _outcomes(prober, [_task(0, "Http", port)])
    source, request = seen[0]
    assert source == "127.0.0.9"
    assert request.startswith(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port)
    assert b"User-Agent: Load Balancer Agent\r\n" in request


def test_results_go_on_health_takes_its_threshold_and_a_list_keeps_what_stays(
    prober: socket.socket,
) -> None:
    healthy = threading.Event()

    def handle(connection: socket.socket) -> None:
        status = b"200 OK" if healthy.is_set() else b"503 Service Unavailable"
        _answer(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")(connection)

    task = _task(7, "Http", _serve(handle), interval=0.05, timeout=0.05, threshold=3)
    other = _task(8, "Tcp", _serve(lambda connection: None), interval=0.05)

    def results() -> Iterator[Result]:
        while True:
            yield from decode_report(prober.recv(MAXIMUM_REPORT))

    _outcomes(prober, [task, other])
    down = next(result for result in results() if result.number == 7 and result.up is False)
    assert down.in_a_row <= -3
    healthy.set()
    for message in encode_targets("127.0.0.9", [task]):  # the other one goes, this one goes on
        prober.send(message)
    up = next(result for result in results() if result.number == 7 and result.up)
    assert up.in_a_row >= 3
    later = results()
    assert {next(later).number for _ in range(5)} == {7}


# -- the engine's side


class Bench:
    """``ProbeSupervisor`` on a real engine; ``prober`` is the other end of its channel."""

    def __init__(self, text: str = PROBED) -> None:
        self.configuration = configuration(text)
        self.engine = Engine(self.configuration, seed=1, probed=True)
        self.said: list[str] = []
        self.readers: dict[int, Callable[[], None]] = {}
        self.work: list[Iterator[object]] = []
        self.probers: list[socket.socket] = []
        loop: EventLoop = Mock(
            add_reader=self.readers.__setitem__,
            remove_reader=self.readers.__delitem__,
            spawn=self.work.append,
            now=0.0,
        )
        self.probes = ProbeSupervisor(self.engine, loop, self._start, self.said.append)

    def _start(self, theirs: socket.socket) -> None:
        self.probers.append(socket.socket(fileno=os.dup(theirs.fileno())))

    @property
    def prober(self) -> socket.socket:
        return self.probers[-1]

    def told(self) -> dict[str, Task]:
        """The targets that the prober was told last, by address."""
        self.prober.settimeout(5)
        tasks: list[Task] = []
        while True:
            part = decode_targets(self.prober.recv(1 << 20))
            tasks += part.tasks
            if part.last:
                return {task.address: task for task in tasks}

    def report(self, *results: Result) -> None:
        """What the prober says, and what follows from it."""
        self.prober.send(encode_report(results))
        for reader in list(self.readers.values()):
            reader()
        for work in self.work:
            for _ in work:
                pass
        self.work.clear()

    def records(self) -> list[Any]:
        steps = list(self.probes.handlers["health"].begin({}, Mock()))
        assert steps[-1] == (Kind.END, None)
        return [row for step in steps[:-1] if step is not None for row in step[1]]


def outcome(task: Task, up: bool) -> Result:
    return Result(task.number, up, 2 if up else -2, up, "HTTP 200" if up else "refused", 1.25)


def test_the_prober_is_told_what_to_do_and_its_word_becomes_health() -> None:
    bench = Bench()
    bench.probes.begin()
    tasks = bench.told()
    assert set(tasks) == {"10.0.1.4", "10.0.1.5"}
    task = tasks["10.0.1.4"]
    assert task[1:] == ("Http", "10.0.1.4", 8080, "/health", 10.0, 10.0, 2, None)
    target = Target("lb", "p", "vm1")
    assert bench.engine.balancer.health_of(target) is None
    bench.report(outcome(task, True))
    assert bench.engine.balancer.health_of(target) is True
    assert bench.engine.take_events() == []
    bench.report(outcome(task, False))
    assert bench.engine.balancer.health_of(target) is False
    assert {event.rule for event in bench.engine.take_events()} == {"web", "dns"}  # type: ignore[union-attr]
    assert bench.probes.status()["down"] == 1


def test_what_no_prober_says_changes_nothing_and_is_counted() -> None:
    bench = Bench()
    bench.probes.begin()
    task = bench.told()["10.0.1.4"]
    for garbage in (b"{}", b"\xff\xff", json.dumps([[task.number, "up"]]).encode()):
        bench.prober.send(garbage)
    bench.report(task_unknown := outcome(task._replace(number=4711), True))
    assert task_unknown.up
    assert bench.probes.garbage == 3
    assert set(bench.engine.balancer.targets().values()) == {None}


def test_a_prober_that_ended_is_replaced_and_told_what_is_known() -> None:
    bench = Bench()
    bench.probes.begin()
    task = bench.told()["10.0.1.4"]
    bench.report(outcome(task, True))
    bench.prober.close()
    for reader in list(bench.readers.values()):
        reader()
    assert bench.readers == {}
    assert bench.engine.balancer.health_of(Target("lb", "p", "vm1")) is True
    bench.probes.tick(time.monotonic())
    assert bench.said == [
        "the prober ended: starting it again; the health of backends stays as it is until then"
    ]
    assert bench.told()["10.0.1.4"] == task._replace(up=True)


def test_a_silent_prober_is_replaced_and_one_that_ends_too_often_is_not() -> None:
    bench = Bench()
    bench.probes.begin()
    now = time.monotonic()
    bench.probes.tick(now + probe_supervisor.SILENCE - 1)
    assert len(bench.probers) == 1
    for number in range(1, 8):
        now += 2 * probe_supervisor.SILENCE
        bench.probes.tick(now)
        assert len(bench.probers) == min(number + 1, 6)
    assert bench.said[-1].startswith("the prober ended 6 times in 600 s: going on without it")


def test_a_reload_keeps_the_numbers_of_what_stays() -> None:
    bench = Bench()
    bench.probes.begin()
    before = bench.told()

    def reload(text: str) -> None:
        after = configuration(text)
        bench.engine.reconfigure(after, 0.0)
        for _ in bench.probes.reconfiguring(after):
            pass

    reload(PROBED.replace("[vm1, vm2]", "[vm2, vm4]"))
    after = bench.told()
    assert after["10.0.1.5"].number == before["10.0.1.5"].number
    assert after["10.0.1.7"].number not in {task.number for task in before.values()}
    bench.report(outcome(before["10.0.1.4"], True))  # it left while this was on its way
    reload(PROBED.replace("port: 8080, requestPath", "port: 8081, requestPath"))
    assert bench.told()["10.0.1.5"].number not in {task.number for task in after.values()}
    reload(PROBED.replace("probe: p, ", ""))
    assert bench.readers == {}
    assert bench.prober.recv(1 << 20) == b""  # its channel closed: it ends
    reload(PROBED)
    assert set(bench.told()) == set(before)
    assert bench.said == []


def test_azures_time_passes_faster_but_not_without_end() -> None:
    fast = Bench(PROBED.replace("outside: wan0", "outside: wan0, timeScale: 4"))
    fast.probes.begin()
    assert fast.told()["10.0.1.4"][5:7] == (2.5, 2.5)
    faster = Bench(PROBED.replace("outside: wan0", "outside: wan0, timeScale: 1000000"))
    faster.probes.begin()
    assert faster.told()["10.0.1.4"][5:7] == (probe_supervisor.SHORTEST_INTERVAL,) * 2


def test_without_probes_there_is_no_prober() -> None:
    bench = Bench(TWO.replace("probe: p, ", ""))
    bench.probes.begin()
    bench.probes.tick(time.monotonic())
    assert bench.probers == []
    assert {row[0][9] for row in bench.records()} == {None}


def test_the_listing_has_every_vm_behind_every_rule_with_its_latest_probe() -> None:
    group = "networkSecurityGroups: [{name: nsg, securityRules: [{name: no-probes, priority: 100, direction: Inbound, access: Deny, protocol: Tcp, sourceAddressPrefix: AzureLoadBalancer, sourcePortRange: '*', destinationAddressPrefix: 10.0.1.5, destinationPortRange: '8080'}]}]\n"
    guarded = PROBED.replace("10.0.1.0/24}]", "10.0.1.0/24, networkSecurityGroup: nsg}]") + group
    bench = Bench(guarded)
    bench.probes.begin()
    bench.report(outcome(bench.told()["10.0.1.4"], True))
    rows = {(record[1], record[6]): (record, latest) for record, latest in bench.records()}
    assert set(rows) == {
        ("web", "vm1"), ("web", "vm2"), ("dns", "vm1"), ("dns", "vm2"), ("own", "vm3"),
        ("ssh1", "vm1"), ("rdp", "vm1"), ("rdp", "vm2"),
    }  # fmt: skip
    record, latest = rows["web", "vm1"]
    assert record[9:] == ("p", True, True, None)
    assert latest[0][3:] == (True, "HTTP 200", 1.25)
    record, latest = rows["web", "vm2"]
    assert record[9:] == ("p", None, False, "nsg/no-probes")
    assert latest is None
    assert rows["ssh1", "vm1"][0][9:] == (None, True, True, None)
