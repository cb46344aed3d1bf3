"""The prober as a process: it is nobody, it is replaced, and it never outlives the engine."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.core.inbound.test_load_balancer import TWO
from tests.unit.daemon.start.test_startup import Daemon, alive, ended, eventually


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon on a pretended host, whose probes all fail: nobody gave it their source."""
    tmp_path.chmod(0o755)
    found = Daemon(tmp_path)
    state = f"outside: wan0, stateDirectory: {tmp_path}/state, timeScale: 20"
    found.file.write_text(TWO.replace("outside: wan0", state))
    found.start()
    found.ready()
    yield found
    assert found.process is not None
    children = found.children()
    found.process.kill()
    found.process.communicate()
    eventually(lambda: not any(map(alive, children)))


def health(daemon: Daemon) -> dict[tuple[str, str], dict[str, Any]]:
    with daemon.http() as http:
        lines = http.get("/v1/health").text.splitlines()
    return {(line["rule"], line["vm"]): line for line in map(json.loads, lines)}


def is_known(daemon: Daemon) -> bool:
    return all(health(daemon)["web", vm]["status"] == "Down" for vm in ("vm1", "vm2"))


def prober_of(daemon: Daemon) -> int:
    """The last that was started of the supervisor's two children."""
    eventually(lambda: len(daemon.children()) == 3)
    return daemon.children()[2]


def test_it_has_no_privileges_and_its_results_are_listed(daemon: Daemon) -> None:
    eventually(lambda: is_known(daemon))
    record = health(daemon)["web", "vm1"]
    assert record["lastProbe"]["reason"] == "Cannot assign requested address"
    assert not record["takesNewFlows"]
    lines = Path(f"/proc/{prober_of(daemon)}/status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    if os.geteuid() == 0:
        assert "0" not in status["Uid"].split() + status["Gid"].split()
    with daemon.http() as http:
        assert http.get("/v1/status").json()["healthProbes"] == {
            "targets": 2, "up": 0, "down": 2, "running": True, "restarts": 0,
        }  # fmt: skip
        events = http.get("/v1/events").text
    # Two rules for each VM; one that nothing is known of counts as down.
    assert events.count('"dipDownCount": 2') == 4


def test_one_that_is_killed_is_replaced_and_health_stays(daemon: Daemon) -> None:
    eventually(lambda: is_known(daemon))
    since = health(daemon)["web", "vm1"]["since"]
    first = prober_of(daemon)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: daemon.children()[2:] not in ([], [first]))
    record = health(daemon)["web", "vm1"]
    assert (record["status"], record["since"]) == ("Down", since)
    with daemon.http() as http:
        assert http.get("/v1/status").json()["healthProbes"]["restarts"] == 1
    later = record["lastProbe"]["time"]
    eventually(lambda: health(daemon)["web", "vm1"]["lastProbe"]["time"] > later)


def test_the_end_of_the_api_process_changes_nothing_about_health(daemon: Daemon) -> None:
    eventually(lambda: is_known(daemon))
    prober = prober_of(daemon)
    before = health(daemon)["web", "vm1"]
    api = daemon.children()[1]
    os.kill(api, signal.SIGKILL)
    eventually(lambda: not alive(api))
    eventually(lambda: len(daemon.children()) == 3)
    after = health(daemon)["web", "vm1"]
    assert (after["status"], after["since"]) == (before["status"], before["since"])
    assert alive(prober)


def test_a_stopped_one_delays_no_end(daemon: Daemon) -> None:
    prober = prober_of(daemon)
    os.kill(prober, signal.SIGSTOP)
    assert daemon.process is not None
    daemon.process.terminate()
    assert ended(daemon)[0] == 0
    assert not alive(prober)


def test_it_dies_with_the_engine(daemon: Daemon) -> None:
    prober = prober_of(daemon)
    assert daemon.process is not None
    daemon.process.kill()
    eventually(lambda: not alive(prober))
