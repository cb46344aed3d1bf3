"""``snatgw top`` where there is no screen: JSON Lines, and what it refuses in one line."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.daemon.serving import Served, flow, served

ROOT = Path(__file__).parents[3]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as daemon:
        daemon.engine.flows = [flow(1), flow(2, vm="vm2")]
        yield daemon


def command(daemon: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "gateway", "top", "--api", str(daemon), *arguments]


def refused(daemon: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        command(daemon, *arguments), capture_output=True, text=True, timeout=60, cwd=ROOT,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr.splitlines()


def test_samples_as_json_lines(daemon: Served) -> None:
    arguments = command(daemon.path, "--json", "--vm", "vm2", "--sort", "-packetsPerSecond")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        samples = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.terminate()
    for sample in samples:
        assert [row["id"] for row in sample["flows"]["rows"]] == [2]
        assert sample["flows"]["total"] == 2


def test_without_a_terminal_it_says_what_to_do_instead(daemon: Served) -> None:
    (line,) = refused(daemon.path)
    assert "no terminal" in line
    assert "--json" in line


@pytest.mark.parametrize("closed", ["stdin", "stdout"])
def test_half_a_terminal_is_none(daemon: Served, closed: str) -> None:
    ours, theirs = pty.openpty()
    streams: dict[str, Any] = {"stdin": theirs, "stdout": theirs, closed: subprocess.DEVNULL}
    done = subprocess.run(
        command(daemon.path), **streams, stderr=subprocess.PIPE, text=True, timeout=60, cwd=ROOT,
        check=False, env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 1
    assert "no terminal" in done.stderr


def test_standard_error_may_be_a_file(daemon: Served, tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    ours, theirs = pty.openpty()
    with errors.open("w") as file:
        process = subprocess.Popen(
            command(daemon.path), stdin=theirs, stdout=theirs, stderr=file, cwd=ROOT,
            env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
    os.close(theirs)
    said = b""
    while b"vm2" not in said:
        said += os.read(ours, 4096)
    os.write(ours, b"q")
    with contextlib.suppress(OSError):  # the other end is closed
        while os.read(ours, 4096):
            pass
    os.close(ours)
    assert process.wait(60) == 0
    assert errors.read_text() == ""


def in_a_terminal(daemon: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit status and output of a run in a terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(daemon, *arguments), stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    return process.wait(60), said.decode()


def test_in_a_terminal_mistakes_are_said_before_the_screen_is_taken(
    daemon: Served, tmp_path: Path
) -> None:
    status, said = in_a_terminal(daemon.path, "--sort", "colour", "--limit", "0")
    assert status == 2
    assert said.count("snatgw: ") == len(said.splitlines()) == 2
    assert "'colour' is no field" in said
    status, said = in_a_terminal(tmp_path / "nobody.sock")
    assert status == 1
    assert "no daemon answers" in said
    status, said = in_a_terminal(daemon.path, "--vm", "vm22")
    assert status == 1
    assert "there is no virtual machine 'vm22', did you mean vm2?" in said
    assert in_a_terminal(daemon.path, TERM="dumb")[0] == 1


def test_it_ends_with_its_terminal_even_under_nohup(daemon: Served) -> None:
    child, ours = pty.fork()
    if not child:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.chdir(ROOT)
        os.environ["TERM"] = "xterm-256color"
        os.execv(sys.executable, command(daemon.path))
    said = b""
    while b"vm2" not in said:
        said += os.read(ours, 4096)
    os.close(ours)
    for _ in range(1200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise AssertionError("it goes on without a terminal")
    assert os.WTERMSIG(status) == signal.SIGHUP
