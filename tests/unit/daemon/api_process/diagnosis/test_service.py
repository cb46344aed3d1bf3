"""``/v1/diagnose`` over a real socket and control channel, and ``snatgw diagnose`` on top."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from gateway.command import group
from gateway.core.events import PacketsDropped
from gateway.daemon.api_process.diagnosis import service
from gateway.daemon.api_process.diagnosis.service import recent_events
from gateway.daemon.channel.event_views import event_document
from gateway.schema.drop_reasons import DropReason
from tests.unit.cli.test_commands import snatgw
from tests.unit.daemon.serving import Served, flow, pool, served

SERVER = "198.51.100.7"


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(service, "BETWEEN_LOOKS", 0.05)
    with served(tmp_path) as daemon:
        yield daemon


@pytest.fixture
def http(daemon: Served) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(daemon.path))
    with httpx.Client(transport=transport, base_url="http://snatgw", timeout=30) as client:
        yield client


def exhaust(daemon: Served) -> None:
    """vm1's 1,024 ports are held; what else is in the listings is another VM's."""
    daemon.engine.flows = [flow(n) for n in range(1024)] + [
        flow(5000 + n, vm="vm2") for n in range(9)
    ]
    toward = ((SERVER, None, 1024),)
    daemon.engine.ports = [
        pool("vm1", used=1024, free=0, failed=3, destinations=toward),
        None,
        pool("vm1", protocol="Udp", used=0, destinations=()),
        pool("vm1", public_ip="203.0.113.99", method="LoadBalancer"),  # retired
    ]


def findings(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    document = response.json()
    assert document.keys() == {"findings"}
    for finding in document["findings"]:
        assert list(finding) == ["severity", "vm", "title", "text", "advice", "data"]
        assert finding["severity"] in ("Critical", "Warning", "Information", "Good")
    found: list[dict[str, Any]] = document["findings"]
    return found


def test_an_exhausted_vm_is_found_by_name_and_by_address(
    daemon: Served, http: httpx.Client
) -> None:
    exhaust(daemon)
    for vm in ("vm1", "10.0.1.4"):
        (finding,) = findings(http.get(f"/v1/diagnose?vm={vm}"))
        assert (finding["severity"], finding["vm"]) == ("Critical", "vm1")
        assert finding["data"]["destination"] == {"ip": SERVER, "port": None}
        assert (finding["data"]["allocated"], finding["data"]["held"]) == (1024, 1024)
    first, *_, last = findings(http.get("/v1/diagnose"))
    assert first["vm"] == "vm1"
    assert (last["severity"], last["title"]) == ("Good", "2 other VMs are healthy")


def test_a_vm_without_ports_yet_is_no_stranger(http: httpx.Client) -> None:
    (finding,) = findings(http.get("/v1/diagnose?vm=10.0.1.77"))
    assert finding["text"] == "10.0.1.77 has sent nothing yet."


def test_an_unknown_vm_is_404_with_the_nearest_name(http: httpx.Client) -> None:
    response = http.get("/v1/diagnose?vm=wm1")
    assert response.status_code == 404
    (problem,) = response.json()["problems"]
    assert "'wm1'" in problem
    assert "did you mean vm1?" in problem


def test_what_is_asked_wrongly_is_400(http: httpx.Client) -> None:
    assert http.get("/v1/diagnose?wm=vm1").status_code == 400
    assert http.get(f"/v1/diagnose?vm={'x' * 300}").status_code == 400


def test_clients_that_ask_at_once_share_an_answer(daemon: Served, http: httpx.Client) -> None:
    exhaust(daemon)
    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(http.get, ["/v1/diagnose?vm=vm1"] * 12))
    assert {len(findings(answer)) for answer in answers} == {1}
    assert daemon.engine.listings < 12
    # and the next one gets an answer of its own
    daemon.engine.flows, daemon.engine.ports = [], []
    (finding,) = findings(http.get("/v1/diagnose?vm=vm1"))
    assert finding["severity"] == "Good"


def test_events_of_the_last_minutes_count(daemon: Served, http: httpx.Client) -> None:
    now = datetime.now(UTC).timestamp()
    rule = "subnet-nsg/no-smtp"
    denied = PacketsDropped(
        0, DropReason.DENIED_BY_SECURITY_RULE, "vm1", 6, "10.0.1.4", SERVER, 7, rule
    )
    daemon.post(event_document(denied, now - 4000))
    (good,) = findings(http.get("/v1/diagnose?vm=vm1"))
    assert good["severity"] == "Good"
    daemon.post(event_document(denied, now - 100))
    (finding,) = findings(http.get("/v1/diagnose?vm=vm1"))
    assert finding["data"] == {"rule": rule, "packets": 7, "destination": SERVER}


def test_what_lasts_counts_however_long_ago() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def event(operation: str, minutes: int) -> dict[str, Any]:
        time = (now - timedelta(minutes=minutes)).isoformat()
        return {"time": time, "operationName": operation}

    events = [
        event("ReloadRefused", 300), event("PacketsDropped", 200), event("HostChanged", 100),
        event("PacketsDropped", 4),
    ]  # fmt: skip
    names = [e["operationName"] for e in recent_events(events, now)]
    assert names == ["ReloadRefused", "HostChanged", "PacketsDropped"]


def test_the_command_writes_it_to_be_read(daemon: Served) -> None:
    exhaust(daemon)
    result = snatgw("diagnose", "vm1", api=daemon.path)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"Critical: vm1 is out of TCP ports toward {SERVER}"
    assert lines[1].startswith("  All 1,024 TCP SNAT ports on 203.0.113.10 are held by flows to")
    assert any(line.startswith("  → ") for line in lines)
    assert all(len(line) <= 100 for line in lines)
    assert "\x1b" not in result.stdout
    coloured = CliRunner().invoke(group, ["diagnose", "--api", str(daemon.path)], color=True)
    assert "\x1b[31m" in coloured.stdout


def test_the_command_as_json_is_one_object(daemon: Served) -> None:
    exhaust(daemon)
    result = snatgw("diagnose", "--json", api=daemon.path)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["findings"][0]["vm"] == "vm1"


def test_the_command_says_that_there_is_no_such_vm(daemon: Served) -> None:
    result = snatgw("diagnose", "vm9", api=daemon.path)
    assert result.exit_code == 1
    assert "no virtual machine 'vm9'" in result.stderr
    assert result.stderr.count("\n") == 1
