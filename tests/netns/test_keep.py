"""``pytest --keep``: the topology of a failed test stands, with shells in it, until Enter."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reaper import NETNS

ROOT = Path(__file__).parents[2]
TEST = """
from tests.netns.conftest import fresh, mode

def test_that_fails(fresh):
    (fresh.directory / "errors0").write_text("why")
    assert fresh.ip("gw", "link show lan0") == "something else"
"""


@pytest.fixture(autouse=True, scope="module")
def mode() -> None:
    """Once is enough: what carries flows has no part in this."""


def command(file: Path, *arguments: str) -> list[str]:
    return [
        *(sys.executable, "-m", "pytest", "--keep", "-p", "no:cacheprovider", *arguments),
        *("--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest"),
        *("-k", "slow", str(file)),
    ]


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    file = tmp_path / "test_failing.py"
    file.write_text(TEST)
    return file


def test_a_failed_tests_topology_stands_until_its_reader_is_done(failing: Path) -> None:
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        command(failing), cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "SHELL": "/bin/sh"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    own = f"snatgw-t{run.pid}-"
    said = ""

    def until(text: str) -> str:
        """What was said before it."""
        nonlocal said
        while text not in said:
            said += os.read(ours, 4096).decode()
        before, _, said = said.partition(text)
        return before

    try:
        until("test session starts")
        until("test_that_fails[slow path] failed: AssertionError")
        until("errors0")
        until(f"ip netns exec {own}0-gw bash")
        until("Enter goes on")
        os.write(ours, b"nowhere\n")
        until("'nowhere' is none of vm1 vm2 vm3")
        os.write(ours, b"gw\n")
        os.write(ours, b"ip -br addr show lan0; exit\n")
        until("10.0.1.1/24")
        until("Enter goes on")
        assert len(list(NETNS.glob(f"{own}*"))) == 8
        os.write(ours, b"\n")
        assert "Captured" not in until("1 failed")
        assert run.wait(60) == 1
        assert list(NETNS.glob(f"{own}*")) == []
    finally:
        run.kill()
        run.wait()
        os.close(ours)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [((), "standard input is none"), (("-n", "2"), "leave -n out")],
)
def test_without_someone_to_ask_it_says_so(
    failing: Path, arguments: tuple[str, ...], reason: str
) -> None:
    done = subprocess.run(
        command(failing, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 4
    assert reason in done.stderr + done.stdout
