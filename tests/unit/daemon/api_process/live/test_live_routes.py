"""``/v1/live`` and ``/v1/history`` over the real channel: samples, filters, formats, refusals."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.cli.api_client import Daemon
from gateway.cli.options import Failure
from gateway.daemon.api_process.engine_client import EngineClient
from gateway.daemon.api_process.event_log import EventLog
from gateway.daemon.api_process.live import flow_sample, poller
from gateway.daemon.api_process.live.poller import LivePoller, pause
from gateway.daemon.channel.event_views import gateway_event
from gateway.schema.live_query import LiveQuery
from gateway.schema.queries import QueryError
from gateway.schema.records import HealthRecord
from tests.unit.core.inbound.test_load_balancer import TWO
from tests.unit.daemon.serving import Served, flow, pool, served


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as daemon:
        daemon.engine.flows = [
            flow(1),
            flow(2, vm="vm2", protocol=17, remote_ip="192.0.2.9", remote_port=53),
            flow(3, vm="vm2", state="CoolDown", public_ip=None),
        ]
        daemon.engine.ports = [pool("vm1"), pool("vm2", protocol="Udp", failed=4)]
        yield daemon


def watch(daemon: Served, **query: str) -> Any:
    return Daemon(str(daemon.path)).lines("/v1/live", query, follow=True)


def first(daemon: Served, **query: str) -> dict[str, Any]:
    with closing(watch(daemon, **query)) as samples:
        return next(samples)


def test_a_sample_has_everything_that_a_face_shows(daemon: Served) -> None:
    sample = first(daemon)
    assert sample.keys() == {
        "time", "sampleSeconds", "gateway", "ports", "flows", "destinations", "rules", "events",
        "eventsOmitted",
    }  # fmt: skip
    assert sample["sampleSeconds"] is None  # nothing to compare with yet
    assert sample["flows"]["total"] == sample["flows"]["matching"] == 3
    row = sample["flows"]["rows"][0]
    assert row["id"] == 1
    assert row["bytesOutPerSecond"] is None
    assert [p["vm"] for p in sample["ports"]] == ["vm1", "vm2"]
    assert "destinations" not in sample["ports"][0]
    assert sample["ports"][1]["failed"] == 4
    assert sample["destinations"][0] == {
        "remote": {"ip": "198.51.100.7", "port": 443}, "flows": 2, "bytesPerSecond": None,
    }  # fmt: skip
    assert sample["gateway"]["flows"] == 3
    assert sample["gateway"]["drops"] == {"Malformed": 2}


def test_the_next_sample_has_rates_and_sorts_by_them(daemon: Served) -> None:
    with closing(watch(daemon, sort="-bytesPerSecond", limit="2")) as samples:
        next(samples)
        later = {"age": 22.34567, "packets_in": 12, "bytes_in": 10120}
        daemon.engine.flows = [flow(1, age=22.34567), *daemon.engine.flows[1:2], flow(4, **later)]
        sample = next(samples)
    assert sample["sampleSeconds"] > 0
    busiest, second = sample["flows"]["rows"]
    assert (busiest["id"], second["id"]) == (4, 1)
    assert busiest["bytesInPerSecond"] > 0
    assert second["bytesInPerSecond"] == 0
    gateway = sample["gateway"]
    assert gateway["bytesInPerSecond"] > 0
    both = gateway["packetsOutPerSecond"] + gateway["packetsInPerSecond"]
    assert gateway["packetsPerSecond"] == pytest.approx(both, abs=0.01)
    assert both > 0
    assert sample["destinations"][0]["bytesPerSecond"] > 0


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({"match": "VM2 udp"}, [2]),
        ({"match": "192.0.2.9:53"}, [2]),
        ({"match": "443 vm2"}, [3]),
        ({"match": "cool"}, [3]),
        ({"match": "DefaultOut vm1"}, [1]),
        ({"match": "vm1 vm2"}, []),
        ({"match": "  "}, [1, 2, 3]),
        ({"vm": "vm2", "sort": "-id"}, [3, 2]),
        ({"vm": "vm2", "match": "udp"}, [2]),
        ({"sort": "-id", "limit": "1"}, [3]),
    ],
)
def test_filters_and_free_text(daemon: Served, query: dict[str, str], ids: list[int]) -> None:
    flows = first(daemon, **query)["flows"]
    assert [row["id"] for row in flows["rows"]] == ids
    assert flows["total"] == 3
    assert flows["matching"] == (len(ids) if "limit" not in query else 3)


def test_events_are_those_since_the_previous_sample(daemon: Served) -> None:
    daemon.post(gateway_event(0.0, "Started", "Informational", {}))
    with closing(watch(daemon)) as samples:
        next(samples)
        for n in range(poller.MAXIMUM_EVENTS + 3):
            daemon.post(gateway_event(float(n), "Reloaded", "Informational", {"n": n}))
        sample = next(samples)
        while not sample["events"]:
            sample = next(samples)
        seen = sample["events"]
        omitted = sample["eventsOmitted"]
        while len(seen) + omitted < poller.MAXIMUM_EVENTS + 3:
            sample = next(samples)
            seen += sample["events"]
            omitted += sample["eventsOmitted"]
    numbers = [event["properties"]["n"] for event in seen]
    assert numbers == sorted(numbers)
    assert numbers[-1] == poller.MAXIMUM_EVENTS + 2


def test_watchers_share_one_listing(daemon: Served) -> None:
    with closing(watch(daemon)) as one, closing(watch(daemon, match="udp")) as other:
        next(one), next(other)
        before = daemon.engine.listings
        samples = [next(one), next(other)]
        assert daemon.engine.listings - before <= 2
    assert [len(s["flows"]["rows"]) for s in samples] == [3, 1]


def test_backends_are_there_where_inbound_rules_have_some(daemon: Served, tmp_path: Path) -> None:
    assert "health" not in first(daemon)
    (tmp_path / "balanced").mkdir()
    with served(tmp_path / "balanced", TWO) as balanced:
        listed = list(Daemon(str(balanced.path)).lines("/v1/health", {}))
        assert len(listed) == 8
        assert first(balanced)["health"]["backends"] == listed


def test_of_very_many_backends_those_that_are_down_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_sample, "MAXIMUM_BACKENDS", 2)
    records = [
        HealthRecord(
            balancer="lb", rule=f"r{n}", method="LoadBalancingRule", protocol=6,
            public_ip="203.0.113.20", frontend_port=80, vm="vm1", private_ip="10.0.1.4",
            backend_port=80, probe="p", up=up, takes_flows=True, denied_by=None,
        )
        for n, up in enumerate([True, False, None, True, False])
    ]  # fmt: skip
    found = flow_sample.backend_documents([[(tuple(record), None) for record in records]])
    assert [one["rule"] for one in found] == ["r1", "r4"]


def test_server_sent_events(daemon: Served) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(daemon.path))
        connection.sendall(
            b"GET /v1/live?limit=1 HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
        )
        with connection.makefile("rb") as stream:
            head = b"".join(iter(stream.readline, b"\r\n"))
            lines = [stream.readline().strip() for _ in range(4)]
    assert b"content-type: text/event-stream" in head
    assert lines[1] == b"event: sample"
    assert lines[2].startswith(b"data: ")
    assert json.loads(lines[2].removeprefix(b"data: "))["flows"]["total"] == 3
    assert lines[3] == b""


def test_every_mistake_in_a_query_is_named(daemon: Served) -> None:
    with pytest.raises(Failure) as refused:
        first(
            daemon, limit="1001", interval="0.5", format="xml", sort="bytesPerSec", matches="x",
            state="Open",
        )  # fmt: skip
    fields = {problem.partition(":")[0] for problem in refused.value.problems}
    assert fields == {"limit", "interval", "format", "sort", "matches", "state"}
    assert "did you mean bytesPerSecond?" in " ".join(refused.value.problems)


def test_free_text_is_bounded_and_a_pace_is_a_number() -> None:
    for wrong in ({"match": "x" * 201}, {"interval": "nan"}, {"interval": "fast"}):
        with pytest.raises(QueryError):
            LiveQuery.parse(wrong)


def test_watchers_are_bounded(daemon: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "MAXIMUM_WATCHERS", 1)
    with closing(watch(daemon)) as samples:
        next(samples)
        with pytest.raises(Failure, match="1 watchers are there already"):
            first(daemon)
    while True:  # the place of who has left is free soon
        try:
            assert first(daemon)["flows"]["total"] == 3
            break
        except Failure:
            continue


def test_the_engine_lists_a_quarter_of_the_time_at_most() -> None:
    assert pause(listing=0.1, whole=0.2) == 1.0
    assert pause(listing=0.5, whole=0.6) == 2.0
    assert pause(listing=0.5, whole=3.0) == 6.0


def test_a_vm_that_there_is_not_is_no_idle_one(daemon: Served) -> None:
    with pytest.raises(Failure) as refused:
        first(daemon, vm="vm22")
    assert refused.value.problems == ["vm: there is no virtual machine 'vm22', did you mean vm2?"]


@pytest.mark.parametrize("active", [False, True])
def test_without_a_watcher_packets_of_a_fast_path_are_not_known(active: bool) -> None:
    sampler = LivePoller(cast(EngineClient, None), EventLog(None))

    async def looked_at_twice() -> dict[str, Any]:
        status = {"packets": 10, "fastPath": {"active": active}}
        await sampler._gateway(status, [], {})
        return await sampler._gateway(status | {"packets": 20}, [], {})

    rate = asyncio.run(looked_at_twice())["packetsPerSecond"]
    assert rate is None if active else rate > 0


def test_history_is_there_without_a_watcher(daemon: Served) -> None:
    daemon.post(
        {
            "time": "2999-01-01T00:00:00.000Z", "category": "LoadBalancerAlertEvent",
            "operationName": "LoadBalancerProbeHealthStatus", "level": "Warning",
            "resource": "publicIPAddresses/203.0.113.10", "properties": {},
        }
    )  # fmt: skip
    daemon.post(gateway_event(32503680000.0, "Started", "Informational", {}))
    client = Daemon(str(daemon.path))
    while True:
        history = client.one("GET", "/v1/history?seconds=60")
        if history["ports"] and history["events"]:
            break
    assert history["stepSeconds"] == 5
    assert len(history["times"]) == 12
    assert [n for n in history["gateway"]["flows"] if n is not None][-1] in (0, 3)
    assert {len(series) for series in history["gateway"].values()} == {12}
    assert history["ports"][0]["used"][-1] in (3, None)
    assert [event["category"] for event in history["events"]] == ["LoadBalancerAlertEvent"]


def test_a_wrong_history_query_is_refused(daemon: Served) -> None:
    with pytest.raises(Failure) as refused:
        Daemon(str(daemon.path)).one("GET", "/v1/history?seconds=x&limit=0&second=1")
    assert len(refused.value.problems) == 3
