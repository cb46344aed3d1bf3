"""The lab comes up whole or not at all, and goes without a trace, however it was left."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.lab import processes
from tests.netns.lab.conftest import Commands


def status(lab: Commands) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab.succeed("status", "--json"))
    return found


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if processes.start_time(pid) is not None]


def start_and_stop_halfway(lab: Commands, number: signal.Signals) -> None:
    """Begin `up`, and signal it as soon as its first server is recorded."""
    with subprocess.Popen(
        lab.line("up"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as going:
        while going.poll() is None:
            try:
                if json.loads(lab.lab.state_file.read_text())["processes"]:
                    break
            except (OSError, ValueError):
                continue
        assert going.poll() is None, "up ended before it could be stopped"
        going.send_signal(number)
        going.wait()


def test_up_status_down_leave_nothing(fresh: Commands) -> None:
    assert status(fresh)["state"] == "down"
    printed = fresh.succeed("up", "--time-scale", "60")
    assert f"export SNATGW_API={fresh.lab.api_socket}" in printed
    assert "timeScale: 60" in fresh.lab.configuration.read_text()
    found = status(fresh)
    assert found["state"] == "up"
    assert {process["service"] for process in found["processes"]} == {
        "nginx",
        "iperf3",
        "echo",
        "dns",
        "gateway",
        "web-vm4",
        "web-vm5",
    }
    pids = processes.inside(fresh.lab.namespaces)
    assert len(pids) >= 5

    assert "removed" in fresh.succeed("down")
    assert fresh.traces() == []
    assert alive(pids) == []
    assert "was not up" in fresh.succeed("down")


def test_up_twice_is_refused_and_disturbs_nothing(up: Commands) -> None:
    before = status(up)
    again = up("up")
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1
    assert "already up" in again.stderr
    assert f"snatgw lab down --name {up.lab.name}" in again.stderr
    assert status(up) == before


def test_two_labs_side_by_side(up: Commands, fresh: Commands) -> None:
    fresh.succeed("up")
    for lab in (up, fresh):
        assert (
            lab.output("vm1", "dig", "+short", "myip.opendns.com", "@resolver1.opendns.com")
            == "203.0.113.10"
        )
    fresh.succeed("down")
    assert status(up)["state"] == "up"


def test_a_configuration_that_is_refused_leaves_nothing(fresh: Commands, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("gateway: {insde: [lan0]}\n")
    done = fresh("up", "--config", str(bad))
    assert done.returncode == 1
    assert "gateway.log ends with:" in done.stderr
    assert "insde" in done.stderr
    assert fresh.traces() == []


def test_a_configuration_that_is_not_there(fresh: Commands, tmp_path: Path) -> None:
    done = fresh("up", "--config", str(tmp_path / "none.yaml"))
    assert (done.returncode, done.stderr) == (
        1,
        f"snatgw lab: {tmp_path}/none.yaml: no such file\n",
    )
    assert fresh.traces() == []


def test_an_up_that_is_terminated_cleans_up_after_itself(fresh: Commands) -> None:
    start_and_stop_halfway(fresh, signal.SIGTERM)
    assert fresh.traces() == []


def test_down_removes_what_a_killed_up_left(fresh: Commands) -> None:
    start_and_stop_halfway(fresh, signal.SIGKILL)
    assert status(fresh)["state"] == "incomplete"
    refused = fresh("up")
    assert refused.returncode == 1
    assert "half up or left behind" in refused.stderr
    pids = processes.inside(fresh.lab.namespaces)
    fresh.succeed("down")
    assert fresh.traces() == []
    assert alive(pids) == []


def test_down_needs_no_record(fresh: Commands) -> None:
    fresh.succeed("up")
    fresh.lab.state_file.unlink()
    pids = processes.inside(fresh.lab.namespaces)
    fresh.succeed("down")
    assert fresh.traces() == []
    assert alive(pids) == []


def test_down_ends_what_a_user_left_running(fresh: Commands) -> None:
    fresh.succeed("up")
    with subprocess.Popen(
        fresh.line("exec", "vm1", "sh", "-c", "trap '' TERM; echo on; while :; do sleep 1; done"),
        stdout=subprocess.PIPE,
    ) as left:
        assert left.stdout is not None
        left.stdout.readline()
        fresh.succeed("down")
        assert left.wait() == -signal.SIGKILL
    assert fresh.traces() == []


def test_status_says_what_has_ended(fresh: Commands) -> None:
    fresh.succeed("up")
    echo = next(p for p in status(fresh)["processes"] if p["service"] == "echo")
    os.kill(echo["pid"], signal.SIGKILL)
    while processes.start_time(echo["pid"]) is not None:
        pass
    found = status(fresh)
    assert found["state"] == "incomplete"
    assert [p["service"] for p in found["processes"] if not p["running"]] == ["echo"]


@pytest.mark.parametrize("code", [0, 7])
def test_exec_passes_input_output_and_status(up: Commands, code: int) -> None:
    done = up("exec", "vm2", "sh", "-c", f"tr a-z A-Z; echo oops >&2; exit {code}", stdin="hello")
    assert (done.returncode, done.stdout, done.stderr) == (code, "HELLO", "oops\n")


def test_exec_passes_options_on(up: Commands) -> None:
    assert up.output("vm1", "echo", "--name", "-n", "--help") == "--name -n --help"


def test_exec_in_an_unknown_vm(up: Commands) -> None:
    done = up("exec", "vm9", "true")
    assert done.returncode == 1
    assert (
        done.stderr
        == "snatgw lab: there is no VM 'vm9': the lab has vm1, vm2, vm3, vm4, vm5, gw, internet\n"
    )


def test_exec_without_a_lab(fresh: Commands) -> None:
    done = fresh("exec", "vm1", "true")
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not up" in done.stderr
