"""The API process is started again when it ends, a few times, and its messages go in the loop."""

from __future__ import annotations

import os
import select
import socket
from typing import Any

import pytest

from gateway.daemon.channel.api_messages import Kind, decode_header, encode_request
from gateway.daemon.engine_process.api_supervisor import ApiSupervisor
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.request_channel import RequestChannel
from gateway.daemon.engine_process.restart_limiter import LIMIT
from tests.unit.daemon.serving import requests_with


class Bench:
    """A supervisor in a real loop, which a test turns; ``api`` is the API process's end."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []
        self.gone = 0
        self.fails = False
        self.loop = EventLoop(lambda real: real)
        self.channel = RequestChannel()
        self.channel.requests = requests_with()
        self.api_process = ApiSupervisor(self.channel, self.loop, self._start, self._on_gone)
        self.api_process.register(self.loop)

    def _start(self, theirs: socket.socket) -> None:
        if self.fails:
            raise BrokenPipeError(32, "Broken pipe")
        self.ends.append(socket.socket(fileno=os.dup(theirs.fileno())))

    def _on_gone(self) -> None:
        self.gone += 1

    @property
    def api(self) -> socket.socket:
        return self.ends[-1]

    def turn(self) -> bool:
        """What can be read is read, then messages are exchanged; whether there is more."""
        for descriptor, happened in self.loop._poll.poll(0):
            if happened & ~select.POLLOUT:
                self.loop._readers[descriptor]()
        return self.api_process._exchange()

    def second(self, real: float) -> None:
        self.api_process._tick(real)


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.api_process.begin()
    return bench


def test_requests_are_read_and_answered(bench: Bench) -> None:
    bench.api.send(encode_request(1, "status"))
    while bench.turn():
        pass
    assert decode_header(bench.api.recv(4096)) == (1, Kind.END)


def test_one_that_ended_is_started_again_and_those_who_waited_are_told(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.second(0.0)
    assert len(bench.ends) == 1
    bench.api.close()
    bench.turn()
    assert (bench.gone, bench.channel.is_connected) == (1, False)
    bench.second(1.0)
    assert (len(bench.ends), bench.channel.is_connected) == (2, True)
    assert bench.api_process.restarts == 1
    bench.api.send(encode_request(1, "status"))
    while bench.turn():
        pass
    assert decode_header(bench.api.recv(4096)) == (1, Kind.END)
    assert "the API process ended: starting it again" in capsys.readouterr().err


def test_one_that_ends_again_and_again_is_not_started_any_more(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    for real in range(LIMIT + 3):
        bench.api.close()
        bench.turn()
        bench.second(float(real))
    assert len(bench.ends) == LIMIT + 1
    assert "going on without it; packets are not affected" in capsys.readouterr().err


def test_where_nobody_can_start_it_the_gateway_goes_on(bench: Bench) -> None:
    bench.api.close()
    bench.turn()
    bench.fails = True
    bench.second(1.0)
    bench.fails = False
    bench.second(2.0)
    assert (len(bench.ends), bench.turn()) == (1, False)


def test_the_loop_waits_for_room_in_a_full_socket(bench: Bench) -> None:
    event: dict[str, Any] = {"text": "x" * 50_000}
    while not bench.channel.wants_to_write:
        bench.channel.post(event)
        bench.turn()
    descriptor = bench.channel.fileno()
    assert bench.loop._poll.poll(0) == []  # it would turn without end
    while bench.channel.wants_to_write:
        bench.api.recv(1 << 20)
        bench.turn()
    assert bench.loop._poll.poll(0) == []
    assert descriptor == bench.channel.fileno()


def test_a_stop_sends_what_waits(bench: Bench) -> None:
    for number in range(200):
        bench.channel.post({"number": number})
    bench.loop.stop()
    bench.api.setblocking(False)
    received = 0
    while True:
        try:
            received += bool(bench.api.recv(1 << 20))
        except BlockingIOError:
            break
    assert received >= 3
    bench.api_process.end()
    assert bench.api.recv(1) == b""
