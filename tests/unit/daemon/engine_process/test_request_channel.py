"""The channel between engine and API process: framing, garbage, slices, back-pressure."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.daemon.channel.api_messages import (
    Kind,
    decode_header,
    decode_payload,
    encode_request,
)
from gateway.daemon.engine_process import request_channel
from gateway.daemon.engine_process.request_channel import RequestChannel
from gateway.daemon.engine_process.requests import (
    Parameters,
    Steps,
    at_once,
    in_slices,
    later,
    nothing,
)
from gateway.daemon.engine_process.requests_listings import FLOWS_PER_SLICE, ListingRequests
from gateway.daemon.engine_process.requests_reload import enforces
from tests.unit.daemon.serving import FakeEngine, flow, pool, requests_with


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


def pieces(values: Parameters) -> Steps:
    """Answers in three turns what it was asked."""
    yield Kind.PART, [1]
    yield None
    yield Kind.END, dict(values)


@pytest.fixture
def pair(engine: FakeEngine) -> Iterator[tuple[RequestChannel, socket.socket]]:
    channel = RequestChannel()
    channel.requests = requests_with(
        ListingRequests(engine, lambda: 0.0).handlers,
        {
            "status": at_once(nothing, lambda _: {"flows": len(engine.flows)}),
            "reload": later(enforces, lambda enforce, respond: respond(Kind.FAILED, [enforce])),
            "nsg": in_slices(dict, pieces),
        },
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.connect(ours)
    theirs.setblocking(False)
    yield channel, theirs
    channel.disconnect()
    theirs.close()


def messages(connection: socket.socket) -> list[tuple[int, Kind, Any]]:
    found: list[tuple[int, Kind, Any]] = []
    while True:
        try:
            message = connection.recv(1 << 20)
        except BlockingIOError:
            return found
        if not message:
            return found
        found.append((*decode_header(message), decode_payload(message)))


def test_garbage_is_counted_and_the_next_request_answered(
    pair: tuple[RequestChannel, socket.socket],
) -> None:
    channel, api = pair
    api.send(b"\x80\x04garbage")
    api.send(os.urandom(200))
    api.send(b"x" * 8000)
    api.send(encode_request(3, "status"))
    assert channel.read()
    assert channel.garbage == 3
    assert channel.has_work
    assert channel.work()
    assert messages(api) == [(3, Kind.END, {"flows": 0})]


def test_a_listing_comes_in_slices_one_a_turn(
    pair: tuple[RequestChannel, socket.socket], engine: FakeEngine
) -> None:
    channel, api = pair
    engine.flows = [flow(number) for number in range(300)]
    api.send(encode_request(1, "flows"))
    channel.read()
    sizes = []
    while channel.has_work:
        assert channel.work()
        sizes += [None if payload is None else len(payload) for _, _, payload in messages(api)]
    assert sizes == [*[FLOWS_PER_SLICE] * (300 // FLOWS_PER_SLICE), 300 % FLOWS_PER_SLICE, None]


def test_ports_pause_where_the_engine_says_so(
    pair: tuple[RequestChannel, socket.socket], engine: FakeEngine
) -> None:
    channel, api = pair
    engine.ports = [pool("vm1"), None, None, pool("vm2")]
    api.send(encode_request(1, "ports"))
    channel.read()
    turns = 0
    while channel.has_work:
        assert channel.work()
        turns += 1
    received = messages(api)
    assert [kind for _, kind, _ in received] == [Kind.PART, Kind.END]
    assert [record[0] for record in received[0][2]] == ["vm1", "vm2"]
    assert turns >= 4


def test_events_wait_for_room_and_are_counted_when_there_is_none(
    pair: tuple[RequestChannel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, api = pair
    socket.socket(fileno=os.dup(channel.fileno())).setsockopt(
        socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16
    )
    monkeypatch.setattr(request_channel, "MAXIMUM_EVENTS", 3000)
    for number in range(3000):
        channel.post({"number": number, "padding": "x" * 500})
    for _ in range(3000):
        assert channel.work()
    assert channel.wants_to_write
    assert not channel.has_work  # no busy loop while the other end sleeps
    for _ in range(100_000):
        channel.post({"number": -1})
    assert channel.events_lost > 90_000
    seen: list[Any] = []
    while len(seen) < 3000:
        assert channel.work()
        for _, kind, payload in messages(api):
            assert kind is Kind.EVENTS
            seen += [event["number"] for event in payload]
    assert seen[:3000] == list(range(3000))


def test_large_events_go_a_few_at_a_time(
    pair: tuple[RequestChannel, socket.socket],
) -> None:
    """All in one are more than a socket takes in Debian: it would refuse them again and again."""
    channel, theirs = pair
    events = [{"number": number, "text": "x" * 20_000} for number in range(64)]
    for event in events:
        channel.post(event)
    found: list[Any] = []
    for _ in range(64):
        assert channel.work()
        for _, kind, batch in messages(theirs):
            assert kind is Kind.EVENTS
            found += batch
    assert found == events


def test_more_requests_than_fit_are_refused_with_a_sentence(
    pair: tuple[RequestChannel, socket.socket],
) -> None:
    channel, api = pair
    for number in range(1, 71):
        api.send(encode_request(number, "status"))
        channel.read()
    while channel.has_work:
        channel.work()
    kinds = [kind for _, kind, _ in messages(api)]
    assert kinds.count(Kind.END) == 64
    assert kinds.count(Kind.FAILED) == 6


def test_the_other_ends_death_is_noticed(pair: tuple[RequestChannel, socket.socket]) -> None:
    channel, api = pair
    api.close()
    assert not channel.read()
    channel.post({"number": 1})
    assert not channel.work()
    channel.disconnect()
    assert channel.fileno() == -1
    assert channel.work()  # and is nobody's problem afterwards


def test_an_answer_for_a_process_that_died_is_not_given_to_its_successor() -> None:
    answers: list[Any] = []
    channel = RequestChannel()
    channel.requests = requests_with(
        {"reload": later(enforces, lambda enforce, respond: answers.append(respond))}
    )
    ours, first = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.connect(ours)
    first.send(encode_request(1, "reload"))
    channel.read()
    channel.work()
    ours, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    second.setblocking(False)
    channel.connect(ours)
    answers[0](Kind.END, {"warnings": []})
    channel.work()
    assert messages(second) == []
    channel.disconnect()
    first.close()
    second.close()


def test_a_request_is_small_json() -> None:
    assert json.loads(encode_request(5, "ports")) == {"number": 5, "request": "ports"}
    request = encode_request(6, "nsg", {"vm": "vm1"})
    assert json.loads(request) == {"number": 6, "request": "nsg", "parameters": {"vm": "vm1"}}


def test_a_question_gets_its_parameters_and_answers_a_step_a_turn(
    pair: tuple[RequestChannel, socket.socket],
) -> None:
    channel, api = pair
    api.send(encode_request(1, "nsg", {"vm": "vm1"}))
    channel.read()
    seen = []
    while channel.has_work:
        assert channel.work()
        seen.append(messages(api))
    assert seen[:3] == [[(1, Kind.PART, [1])], [], [(1, Kind.END, {"vm": "vm1"})]]


def test_a_reload_says_whether_to_enforce(pair: tuple[RequestChannel, socket.socket]) -> None:
    channel, api = pair
    api.send(encode_request(1, "reload"))
    api.send(encode_request(2, "reload", {"enforce": "1"}))
    channel.read()
    while channel.has_work:
        channel.work()
    said = [payload for _, _, payload in messages(api)]
    assert said == [[False], [True]]
