"""``/v1/capture``: a real engine and tap behind a real control channel and API."""

from __future__ import annotations

import asyncio
import io
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from scapy.utils import RawPcapNgReader

from gateway.core.ingress import IngressPath
from gateway.daemon.api_process.capture import streams
from gateway.daemon.api_process.capture.pcapng import Blocks, Statistics
from gateway.daemon.api_process.capture.streams import CaptureStream
from gateway.daemon.channel.api_messages import Kind, decode_header, decode_payload, encode_request
from gateway.daemon.engine_process.request_channel import CAPTURED_UNREAD, RequestChannel
from gateway.daemon.engine_process.requests_capture import (
    MAXIMUM_CAPTURES,
    WAITING_PACKETS,
    CaptureRequests,
)
from gateway.schema.capture_query import CaptureQuery
from tests.scenario import build, describe
from tests.unit.daemon.serving import Served, judging_engine, requests_with, served

PATIENCE = 30.0
DATAGRAM = build("udp 10.0.1.4:4000 > 198.51.100.7:53 len=4")
DENIED = build("tcp 10.0.1.4:4000 > 198.51.100.7:25 syn")
TRANSLATED = "verdict=translated method=DefaultOutboundAccess"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as daemon:
        yield daemon


def eventually(look: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (seen := look()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return seen


def client(daemon: Served) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(daemon.path))
    return httpx.Client(transport=transport, base_url="http://snatgw", timeout=PATIENCE)


class Reading:
    """A capture that is being read."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.read()
        self.number = int(response.headers["Capture"])
        self.content = b""
        self.told: list[Statistics] = []
        self._blocks = Blocks()
        self._pieces = response.iter_raw()

    def some(self, packets: int) -> None:
        """Read until there are so many packets."""
        while self._blocks.packets < packets:
            self._take(next(self._pieces))

    def rest(self) -> None:
        for piece in self._pieces:
            self._take(piece)
        assert self._blocks.rest == 0

    def _take(self, piece: bytes) -> None:
        whole, told = self._blocks.feed(piece)
        self.content += whole
        self.told += told

    def packets(self) -> list[str]:
        return [
            f"{('inside', 'outside')[about.ifname != b'inside']} {describe(data)} | {about.comments[0].decode()}"
            for data, about in RawPcapNgReader(io.BytesIO(self.content))
        ]


@contextmanager
def capturing(daemon: Served, query: str = "") -> Iterator[tuple[Reading, httpx.Client]]:
    with client(daemon) as http, http.stream("GET", f"/v1/capture{query}") as response:
        yield Reading(response), http


def test_a_capture_from_its_beginning_to_its_end(daemon: Served) -> None:
    own = daemon.handlers
    with capturing(daemon) as (reading, http):
        daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
        daemon.handle(DENIED, IngressPath.OUTBOUND)
        reading.some(3)
        assert daemon.handlers is not own
        assert http.delete(f"/v1/capture/{reading.number}").json() == {"capture": reading.number}
        reading.rest()
    assert reading.packets() == [
        f"inside udp 10.0.1.4:4000 > 198.51.100.7:53 len=4 | flow=1 vm=vm1 {TRANSLATED}",
        f"outside udp 203.0.113.10:1024 > 198.51.100.7:53 len=4 | flow=1 vm=vm1 {TRANSLATED}",
        "inside tcp 10.0.1.4:4000 > 198.51.100.7:25 syn | vm=vm1 verdict=denied reason=DeniedBySecurityRule rule=subnet-nsg/no-smtp",
    ]
    assert reading.told == [Statistics(side, 0, "ended=request") for side in (0, 1)]
    assert daemon.handlers is own  # no tap is left
    assert daemon.control.captured is None
    assert daemon.told == [
        ("CaptureStarted", {"capture": 1, "of": "everything"}),
        ("CaptureEnded", {"capture": 1, "packets": 3, "lost": 0}),
    ]


def test_the_first_packets_are_there(daemon: Served) -> None:
    """The engine may send packets before the stream that takes them is made."""
    for _ in range(20):
        before = daemon.captures.running
        with capturing(daemon, "?count=1") as (reading, _):
            eventually(lambda before=before: daemon.captures.running > before or daemon.told)  # type: ignore[misc]
            daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
            reading.rest()
        assert len(reading.packets()) == 1
        assert reading.told[0].comment == "ended=count"


def test_stages_are_noted_for_who_asks(daemon: Served) -> None:
    with (
        capturing(daemon) as (plain, _),
        capturing(daemon, "?trace=1&side=inside") as (traced, http),
    ):
        eventually(lambda: daemon.captures.running == 2)
        daemon.handle(DENIED, IngressPath.OUTBOUND)
        traced.some(1)
        (line,) = traced.packets()
        assert line.endswith(
            " stages=find_by_original,drop_fragments,supersede_reused_tuple,"
            "translate_icmp_error_out,admit_outbound"
        )
        http.delete(f"/v1/capture/{traced.number}")
        traced.rest()
        daemon.handle(DENIED, IngressPath.OUTBOUND)
        plain.some(2)
        http.delete(f"/v1/capture/{plain.number}")
        plain.rest()
    assert not any("stages=" in line for line in plain.packets())


def test_the_engine_filters(daemon: Served) -> None:
    with capturing(daemon, "?vm=vm1&side=outside&snaplen=28&count=1") as (reading, _):
        daemon.handle(build("udp 10.0.2.4:4000 > 198.51.100.7:53"), IngressPath.OUTBOUND)
        daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
        reading.rest()
    ((data, about),) = RawPcapNgReader(io.BytesIO(reading.content))
    assert (len(data), about.wirelen) == (28, 32)
    assert about.comments == [b"flow=2 vm=vm1 " + TRANSLATED.encode()]
    assert eventually(lambda: daemon.told[1:]) == [
        ("CaptureEnded", {"capture": 1, "packets": 1, "lost": 0})
    ]


def test_a_size_is_never_exceeded(daemon: Served) -> None:
    with capturing(daemon, "?size=4096") as (reading, _):
        for _ in range(100):
            daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
        reading.rest()
    assert 3500 < len(reading.content) <= 4096
    assert reading.told[-1].comment == "ended=size"
    eventually(lambda: not daemon.captures.running)


def test_a_duration_ends_it_with_all_that_came(daemon: Served) -> None:
    with capturing(daemon, "?duration=100ms") as (reading, _):
        daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
        reading.rest()
    assert len(reading.packets()) == 2
    assert reading.told[-1].comment == "ended=duration"


def test_a_reader_that_goes_away_ends_it(daemon: Served) -> None:
    own = daemon.handlers
    with capturing(daemon) as (reading, _):
        daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
        reading.some(2)
    eventually(lambda: not daemon.captures.running)
    assert daemon.handlers is own


def test_a_reader_that_is_slow_loses_packets_and_nobody_else_waits(
    daemon: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PENDING", 1 << 20)
    large = build("udp 10.0.1.4:4000 > 198.51.100.7:53 len=60000")
    with capturing(daemon) as (reading, http):
        for _ in range(200):
            daemon.handle(large, IngressPath.OUTBOUND)
        eventually(lambda: not daemon._packets)
        assert http.get("/v1/status").status_code == 200  # while it does not read
        assert http.delete(f"/v1/capture/{reading.number}").status_code == 200
        reading.rest()
    packets = reading.packets()
    lost = sum(told.dropped for told in reading.told[-2:])
    assert lost > 0
    assert len(packets) + lost == 400


def test_refusals(daemon: Served) -> None:
    with client(daemon) as http:
        wrong = http.get("/v1/capture?side=up&size=1")
        assert wrong.status_code == 400
        assert [line.split(":")[0] for line in wrong.json()["problems"]] == ["side", "size"]
        unknown = http.get("/v1/capture?vm=vm")
        assert unknown.status_code == 404
        assert "did you mean vm" in unknown.json()["problems"][0]
        assert http.delete("/v1/capture/7").status_code == 404
        assert http.delete("/v1/capture/x").status_code == 404
        assert http.get("/v1/capture/7").status_code == 405
    assert daemon.told == []


def test_so_many_at_once_and_no_more(daemon: Served) -> None:
    with client(daemon) as http:
        opened = [
            http.send(http.build_request("GET", "/v1/capture?count=2"), stream=True)
            for _ in range(MAXIMUM_CAPTURES)
        ]
        refused = http.get("/v1/capture")
        assert refused.status_code == 503
        assert refused.json()["problems"] == ["4 captures are running: end one of them first"]
        daemon.handle(DATAGRAM, IngressPath.OUTBOUND)
        for response in opened:
            reading = Reading(response)
            reading.rest()
            assert len(reading.packets()) == 2
        eventually(lambda: not daemon.captures.running)
        with capturing(daemon):
            assert daemon.captures.running == 1


# -- the engine's end by itself


class Far:
    """The API process's end of a control channel."""

    def __init__(self) -> None:
        self.engine = judging_engine()
        self.handlers = self.engine.handlers
        self.captures = CaptureRequests(
            self.engine,
            use_handlers=self._use,
            post=lambda name, level, about: None,
            spawn=lambda work: None,
            monotonic=self._now,
        )
        self.channel = RequestChannel()
        self.channel.requests = requests_with(self.captures.handlers)
        self.now = 0.0
        ours, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, self.socket):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.channel.connect(ours)
        self.socket.setblocking(False)

    def _now(self) -> float:
        return self.now

    def _use(self, handlers: Any) -> None:
        self.handlers = handlers
        self.channel.captured = self.captures.next_message if self.captures.running else None

    def ask(self, what: str, **parameters: str) -> tuple[Kind, Any]:
        self.socket.send(encode_request(1, what, parameters))
        assert self.channel.read()
        while not (answers := [m for m in self.turn() if m[0] is not Kind.CAPTURED]):
            assert self.channel.has_work
        return answers[-1]

    def turn(self) -> list[tuple[Kind, Any]]:
        assert self.channel.work()
        found: list[tuple[Kind, Any]] = []
        while True:
            try:
                message = self.socket.recv(1 << 20)
            except BlockingIOError:
                return found
            found.append((decode_header(message)[1], decode_payload(message)))


def test_the_engine_checks_what_it_is_asked() -> None:
    far = Far()
    for what, parameters in (
        ("capture", {"side": "up"}),
        ("capture", {"remote": "x"}),
        ("endCapture", {}),
        ("endCapture", {"capture": "1"}),
        ("endCapture", {"capture": "-1"}),
    ):
        assert far.ask(what, **parameters)[0] is Kind.FAILED
    assert far.ask("capture", size="1")[0] is Kind.FAILED
    assert far.captures.running == 0


def test_few_packets_wait_for_more_and_many_go_at_once() -> None:
    far = Far()
    far.ask("capture")
    far.handlers[IngressPath.OUTBOUND](DATAGRAM, 0.0)
    assert far.turn() == []
    assert not far.channel.has_work  # the loop may sleep
    far.now = 0.1
    assert [len(payload[3]) for _, payload in far.turn()] == [2]
    for _ in range(70):
        far.handlers[IngressPath.OUTBOUND](DATAGRAM, 0.0)
    assert [len(payload[3]) for _, payload in far.turn()] == [140]
    assert far.channel.has_work
    assert far.turn() == []
    assert not far.channel.has_work


def test_captures_take_turns() -> None:
    far = Far()
    far.ask("capture")
    far.ask("capture", side="inside")
    for _ in range(1000):
        far.handlers[IngressPath.OUTBOUND](DATAGRAM, 0.0)
    assert [payload[0] for _ in range(4) for _, payload in far.turn()] == [1, 2, 1, 2]


def test_packets_wait_while_much_is_unread_and_are_lost_beyond_a_bound() -> None:
    far = Far()
    far.ask("capture", snaplen="100")
    large = build("udp 10.0.1.4:4000 > 198.51.100.7:53 len=2000")
    crossings = WAITING_PACKETS
    for number in range(crossings):
        far.handlers[IngressPath.OUTBOUND](large, 0.0)
        if number % 64 == 0:
            assert far.channel.work()
    assert not far.channel.has_work  # nothing turns in vain
    unread = len(far.socket.recv(1 << 20, socket.MSG_PEEK))
    assert unread < CAPTURED_UNREAD
    kind, totals = far.ask("endCapture", capture="1")
    assert kind is Kind.END
    assert sum(totals["matched"]) == 2 * crossings
    assert 0 < sum(totals["lost"]) < crossings
    assert far.handlers is far.engine.handlers


def test_all_end_when_the_other_end_is_gone() -> None:
    far = Far()
    far.ask("capture")
    far.ask("capture")
    far.captures.end_all()
    assert (far.captures.running, far.handlers is far.engine.handlers) == (0, True)
    assert far.channel.captured is None


# -- a stream by itself


@pytest.mark.parametrize("full", [False, True])
def test_the_last_counters_name_what_was_dropped_unseen_within_the_size(full: bool) -> None:
    unseen = {f"Reason{number}": number for number in range(1, 20)}

    async def run() -> bytes:
        query = CaptureQuery.parse({"size": "4096"})
        stream = CaptureStream(1, query, {0: "lan0", 1: "wan0"}, "everything", lambda _: None)
        for lost in range(1, 100 if full else 2):
            stream._counters_due = 0.0
            stream.take((lost, 0), (lost, 0), [], {})
        stream.total((0, 0), (0, 0), unseen)
        stream.end("count")
        return b"".join([piece async for piece in stream.pieces()])

    whole = asyncio.run(run())
    assert len(whole) <= 4096
    said = ",".join(f"{reason}:{count}" for reason, count in unseen.items())
    comment = "ended=count" if full else f"ended=count unseen={said}"
    assert [statistics.comment for statistics in Blocks().feed(whole)[1]][-2:] == [comment] * 2


def test_counters_come_while_packets_are_lost_and_within_the_size() -> None:
    async def run() -> list[Statistics]:
        query = CaptureQuery.parse({"size": "4096"})
        stream = CaptureStream(1, query, {0: "lan0", 1: "wan0"}, "everything", lambda _: None)
        for lost in range(1, 100):
            stream._counters_due = 0.0
            stream.take((lost, 0), (lost, 0), [], {})
        stream.end("request")
        blocks, told, size = Blocks(), [], 0
        async for piece in stream.pieces():
            size += len(piece)
            told += blocks.feed(piece)[1]
            assert blocks.rest == 0  # a stream can be cut between any two pieces
        assert size <= 4096
        return told

    told = asyncio.run(run())
    assert [statistics.dropped for statistics in told[:4]] == [1, 0, 2, 0]
    assert told[-2:] == [Statistics(0, 99, "ended=request"), Statistics(1, 0, "ended=request")]
