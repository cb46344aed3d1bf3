"""A run of tests that is interrupted, at whatever moment, leaves nothing on the machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns.datapath.topology import Namespaces
from tests.netns.topology import Topology, eventually
from tests.reaper import JOURNALS, MARK, NETNS, marked

ROOT = Path(__file__).parents[2]
TEST = """
from tests.netns.conftest import fresh, mode
from tests.netns.gateway import Gateway

def test_something_long(fresh):
    Gateway(fresh).start()
    fresh.client("vm1")
    fresh.capture("vm1", "eth0")
    print("READY", flush=True)
    fresh.run("vm1", "sleep", "100")
"""


@pytest.fixture(autouse=True, scope="module")
def mode() -> None:
    """Once is enough: what carries flows has no part in this."""


class Run:
    """A pytest of its own, in a session of its own, as a terminal would have it."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.file = directory / "test_long.py"
        self.file.write_text(TEST)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *arguments),
                *("--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")),
                *("--confcutdir", str(ROOT), "-p", "tests.conftest"),
                *("-k", "slow", str(self.file)),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def namespaces(self) -> list[str]:
        return [p.name for p in NETNS.glob(f"snatgw-t{self.process.pid}-*")]

    def ready(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if "READY" in line:
                return
        raise AssertionError("the run ended by itself")

    def left(self) -> list[str]:
        """What of it is on the machine."""
        own = f"snatgw-t{self.process.pid}-"
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        processes = marked(f"{MARK}={self.process.pid}")
        return [
            *self.namespaces(),
            *(line for line in mounts if own in line),
            *(f"process {process}" for process in processes),
            *map(str, Path("/tmp").glob(f"snatgw-test-{self.process.pid}-*")),
        ]

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("moment", [1, 4, 8, "ready"])
def test_nothing_is_left_of_an_interrupted_run(
    tmp_path: Path, number: signal.Signals, moment: int | str
) -> None:
    run = Run(tmp_path)
    try:
        if moment == "ready":
            run.ready()
        else:  # in the middle of set-up, with so many namespaces made
            eventually(run.namespaces, lambda seen: len(seen) >= int(moment))
        assert run.left()
        if number == signal.SIGINT:
            os.killpg(run.process.pid, number)  # a terminal's Ctrl-C
        else:
            run.process.send_signal(number)
        assert run.process.wait(60) != 0
        eventually(run.left, lambda left: left == [])
    finally:
        run.end()


def test_what_gateways_left_of_a_namespace_goes_with_it() -> None:
    net = Namespaces()
    try:
        net.add("gw")
        number = net.file("gw").stat().st_ino
        JOURNALS.mkdir(mode=0o755, exist_ok=True)
        left = [JOURNALS / f"wan0.{number}.{kind}" for kind in ("json", "guard", "guard-new")]
        for file in left:
            file.touch()
    finally:
        net.remove()
    assert [file for file in left if file.exists()] == []


def test_an_interrupt_within_set_up_removes_what_was_made() -> None:
    """Without any help from outside: what ``with`` never entered is taken away by itself."""

    class Interrupted(Topology):
        def ip(self, namespace: str, command: str) -> str:
            if namespace == "gw":
                raise KeyboardInterrupt
            return super().ip(namespace, command)

    net = Interrupted()
    with pytest.raises(KeyboardInterrupt), net:
        pass
    assert not net.directory.exists()
    assert [name for name in net.names if net.file(name).exists()] == []
    assert net not in Topology.standing
