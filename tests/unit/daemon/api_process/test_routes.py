"""The HTTP API over a real Unix socket and a real control channel."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.daemon.channel.api_messages import Kind
from tests.unit.daemon.serving import Served, flow, pool, served


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as daemon:
        yield daemon


@pytest.fixture
def http(daemon: Served) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(daemon.path))
    with httpx.Client(transport=transport, base_url="http://snatgw", timeout=30) as client:
        yield client


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in response.text.splitlines()]


def ids(response: httpx.Response) -> list[int]:
    return [line["id"] for line in lines(response)]


def test_flows_filter_sort_and_limit(daemon: Served, http: httpx.Client) -> None:
    daemon.engine.flows = [flow(n, bytes_out=n * 7 % 100, vm=f"vm{n % 3}") for n in range(1000)]
    assert len(ids(http.get("/v1/flows"))) == 1000
    assert ids(http.get("/v1/flows?limit=3")) == [0, 1, 2]
    assert ids(http.get("/v1/flows?vm=vm1&limit=2")) == [1, 4]
    assert ids(http.get("/v1/flows?sort=-id&limit=2")) == [999, 998]
    most = lines(http.get("/v1/flows?sort=-bytesOut&limit=5"))
    assert [line["bytesOut"] for line in most] == [99] * 5
    everything = lines(http.get("/v1/flows?sort=bytesOut"))
    sizes = [line["bytesOut"] for line in everything]
    assert (len(sizes), sizes) == (1000, sorted(sizes))


def test_lists_of_a_vm_that_there_is_not(daemon: Served, http: httpx.Client) -> None:
    daemon.engine.flows = [flow(1), flow(2, vm="left", private_ip="10.0.9.9")]
    daemon.engine.ports = [pool("vm1"), pool("left")]
    for path in ("/v1/flows", "/v1/ports"):
        answer = http.get(path, params={"vm": "vn1"})
        assert answer.status_code == 404
        (line,) = answer.json()["problems"]
        assert line.startswith("vm: there is no virtual machine 'vn1', did you mean vm")
        assert http.get(path, params={"vm": "10.0.9.8"}).status_code == 404  # in no subnet
        assert http.get(path, params={"vm": "x" * 5000}).status_code == 400
        # Nothing of them, but they exist, or might: any address of a subnet may be a VM's.
        for vm in ("vm3", "10.0.1.77"):
            assert lines(http.get(path, params={"vm": vm})) == []
        # By its address; and what a VM has left that is in the configuration no more.
        assert [line["vm"] for line in lines(http.get(path, params={"vm": "10.0.1.4"}))] == ["vm1"]
        assert [line["vm"] for line in lines(http.get(path, params={"vm": "left"}))] == ["left"]


def test_a_listing_shows_what_was_there_when_it_was_asked_for(
    daemon: Served, http: httpx.Client
) -> None:
    for number in range(20):
        daemon.engine.flows.append(flow(number))
        assert len(ids(http.get("/v1/flows"))) == number + 1


def test_clients_at_once_share_a_listing(daemon: Served, http: httpx.Client) -> None:
    daemon.engine.flows = [flow(number) for number in range(20_000)]
    with ThreadPoolExecutor(16) as pool_of_clients:
        targets = ["/v1/flows?limit=1"] * 16
        assert [ids(response) for response in pool_of_clients.map(http.get, targets)] == [[0]] * 16
    assert daemon.engine.listings < 16


def unread(daemon: Served, target: str) -> socket.socket:
    """A client that asks and does not read, when its answer has begun."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(30)
    client.connect(str(daemon.path))
    client.sendall(f"GET {target} HTTP/1.1\r\nHost: snatgw\r\n\r\n".encode())
    assert client.recv(15) == b"HTTP/1.1 200 OK"
    return client


def until(answers: Callable[[], bool]) -> None:
    for _ in range(3000):
        if answers():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_slow_readers_keep_a_bounded_part_of_listings_in_memory(
    daemon: Served, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.daemon.api_process.routes.MAXIMUM_HELD", 1_000_000)
    daemon.engine.flows = [flow(number) for number in range(20_000)]
    with unread(daemon, "/v1/flows"):
        answer = http.get("/v1/flows?limit=1")
        assert answer.status_code == 503
        assert "have not come to their end" in answer.json()["problems"][0]
    until(lambda: http.get("/v1/flows?limit=1").status_code == 200)
    assert len(ids(http.get("/v1/flows"))) == 20_000


def test_slow_readers_of_whole_sorted_listings_hold_up_their_like_alone(
    daemon: Served, http: httpx.Client
) -> None:
    daemon.engine.flows = [flow(number) for number in range(20_000)]
    with ThreadPoolExecutor(1) as another:
        with unread(daemon, "/v1/flows?sort=-id"), unread(daemon, "/v1/flows?sort=-id"):
            waiting = another.submit(http.get, "/v1/flows?sort=-id")
            transport = httpx.HTTPTransport(uds=str(daemon.path))
            with httpx.Client(transport=transport, base_url="http://snatgw", timeout=30) as client:
                assert ids(client.get("/v1/flows?sort=-id&limit=1")) == [19_999]
                assert len(ids(client.get("/v1/flows"))) == 20_000
            assert not waiting.done()
        assert len(ids(waiting.result(30))) == 20_000


def test_bad_values_are_400_with_a_line_each(http: httpx.Client) -> None:
    response = http.get("/v1/flows?remote=x&limit=0&colour=red")
    assert response.status_code == 400
    assert len(response.json()["problems"]) == 3
    for target in ("/v1/ports?vn=1", "/v1/events?since=soon", "/v1/events?follow=yes"):
        response = http.get(target)
        assert response.status_code == 400, target
        assert len(response.json()["problems"]) == 1


def test_a_query_that_the_engine_would_not_take_is_refused_at_once(
    daemon: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is dropped there as garbage: nobody would ever answer."""
    monkeypatch.setattr("gateway.daemon.api_process.engine_client.MAXIMUM_REQUEST", 60)
    transport = httpx.HTTPTransport(uds=str(daemon.path))
    with httpx.Client(transport=transport, base_url="http://snatgw", timeout=3) as client:
        for path in ("/v1/capture?remote=198.51.100.7:443", "/v1/nsg?vm=10.0.1.4"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert "too long" in answer.json()["problems"][0]


def test_unknown_paths_and_methods_are_explained(http: httpx.Client) -> None:
    for response, status in ((http.get("/v1/flow"), 404), (http.get("/v1/reload"), 405)):
        assert response.status_code == status
        assert len(response.json()["problems"]) == 1


def test_ports_of_a_vm(daemon: Served, http: httpx.Client) -> None:
    daemon.engine.ports = [pool("vm1"), None, pool("vm2")]
    assert [line["vm"] for line in lines(http.get("/v1/ports"))] == ["vm1", "vm2"]
    assert [line["vm"] for line in lines(http.get("/v1/ports?vm=vm2"))] == ["vm2"]


def test_events_since_and_follow(daemon: Served, http: httpx.Client) -> None:
    for minute in range(5):
        daemon.post({"time": f"2026-01-31T12:0{minute}:00.000Z", "minute": minute})
    with http.stream("GET", "/v1/events?since=2026-01-31T12:03:00Z&follow=1") as response:
        received = response.iter_lines()
        seen = [json.loads(next(received))["minute"] for _ in range(2)]
        daemon.post({"time": "2026-01-31T12:05:00.000Z", "minute": 5})
        seen.append(json.loads(next(received))["minute"])
    assert seen == [3, 4, 5]
    assert [e["minute"] for e in lines(http.get("/v1/events"))] == [0, 1, 2, 3, 4, 5]
    assert [e["minute"] for e in lines(http.get("/v1/events?limit=2"))] == [4, 5]


def test_status_is_one_object(daemon: Served, http: httpx.Client) -> None:
    daemon.engine.flows = [flow(1)]
    document = http.get("/v1/status").json()
    assert document["flows"] == 1
    assert document["events"]["unwritten"] == 0


def test_reload_answers_changes_or_problems(daemon: Served, http: httpx.Client) -> None:
    def accept(answer: Any) -> None:
        answer(Kind.PART, ["one", "two"])
        answer(Kind.PART, ["three"])
        answer(Kind.END, {"warnings": ["careful"], "refusedFlows": 5, "endedFlows": 2})

    daemon.on_reload = accept
    response = http.post("/v1/reload")
    assert response.json() == {
        "changes": ["one", "two", "three"],
        "warnings": ["careful"],
        "refusedFlows": 5,
        "endedFlows": 2,
    }
    assert http.post("/v1/reload?enforce=1").status_code == 200
    assert http.post("/v1/reload?enforce=yes").status_code == 400
    assert daemon.enforced == [False, True]
    daemon.on_reload = lambda answer: answer(Kind.FAILED, ["a.yaml: wrong", "a.yaml: worse"])
    response = http.post("/v1/reload")
    assert response.status_code == 422
    assert response.json() == {"problems": ["a.yaml: wrong", "a.yaml: worse"]}
