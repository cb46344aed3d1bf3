"""Lines on standard error: which are said, and in what form."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.daemon.console import Settings, wrong_settings

ROOT = Path(__file__).parents[3]
SAYS = """
import logging
from gateway.daemon.console import Level, name_process, say, warn
name_process("api")
say("a detail", Level.DEBUG)
say("reloaded: 2 changes")
warn("no fast path")
say("two\\nlines", Level.ERROR)
logging.getLogger("uvicorn.error").error("of a library: %d", 5)
"""


def said(journal: bool = False, **environment: str) -> list[str]:
    """What a process says with these variables."""
    prefix = ("sh", "-c", 'JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec "$@"', "sh")
    done = subprocess.run(
        [*(prefix if journal else ()), sys.executable, "-c", SAYS],
        capture_output=True, text=True, cwd=ROOT, check=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    assert done.stdout == ""
    return done.stderr.splitlines()


ALL = ["a detail", "reloaded: 2 changes", "no fast path", "two", "lines", "of a library: 5"]


@pytest.mark.parametrize(
    ("level", "lines"),
    [("debug", ALL), ("info", ALL[1:]), ("warning", ALL[2:]), ("error", ALL[3:]), ("", ALL[1:])],
)
def test_the_least_level_that_is_said(level: str, lines: list[str]) -> None:
    assert said(SNATGW_LOG=level) == lines


def test_a_text_is_the_message_alone_but_for_the_journal() -> None:
    assert said() == ALL[1:]
    assert said(JOURNAL_STREAM="8:1") == ALL[1:]  # an ancestor's, not ours
    assert said(journal=True) == [
        "<6>reloaded: 2 changes", "<4>no fast path", "<3>two", "<3>lines", "<3>of a library: 5",
    ]  # fmt: skip


@pytest.mark.parametrize("journal", [False, True])
def test_json_is_an_object_a_line(journal: bool) -> None:
    found = [json.loads(line) for line in said(journal, SNATGW_LOG_FORMAT="json")]
    assert [(o["level"], o["message"]) for o in found] == [
        ("info", "reloaded: 2 changes"),
        ("warning", "no fast path"),
        ("error", "two\nlines"),
        ("error", "of a library: 5"),
    ]
    assert {o["process"] for o in found} == {"api"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", o["time"]) for o in found)
    assert all(o["pid"] > 1 for o in found)


def test_what_cannot_be_meant_is_said_and_does_no_harm() -> None:
    wrong = {"SNATGW_LOG": "loud", "SNATGW_LOG_FORMAT": "xml", "SNATGW_API": "x"}
    assert wrong_settings(wrong) == [
        "SNATGW_LOG: 'loud' is none of error, warning, info, debug",
        "SNATGW_LOG_FORMAT: 'xml' is none of text, json",
    ]
    assert Settings.of(wrong) == Settings()
    assert wrong_settings({"SNATGW_LOG": "", "SNATGW_LOG_FORMAT": "text"}) == []


def test_a_line_that_cannot_be_said_ends_nothing() -> None:
    """A reader that has gone, as in ``snatgw run 2>&1 | head``; a disk that is full."""
    code = (
        "from gateway.daemon.console import say; [say('x' * 9000) for _ in range(3)]; print('on')"
    )
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "wb") as full, os.fdopen(writing, "wb") as broken:
        for stderr in (full, broken):
            done = subprocess.run(
                [sys.executable, "-c", code],
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                check=False,
            )
            assert done.stdout == b"on\n"


def test_without_standard_error_nothing_is_said_elsewhere() -> None:
    code = "from gateway.daemon.console import say; say('a line'); print('on')"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", code],
        stdout=subprocess.PIPE, cwd=ROOT, check=True,
    )  # fmt: skip
    assert done.stdout == b"on\n"


def test_nothing_else_of_the_daemon_prints() -> None:
    prints = re.compile(r"\bprint\(|sys\.(__)?std(err|out)|logging\.|click\.echo")
    # On standard output ``ready``, and what the reader has for the engine process.
    allowed = {"console.py": 99, "start/startup.py": 2, "reader/__main__.py": 1}
    for file in sorted((ROOT / "gateway/daemon").rglob("*.py")):
        name = str(file.relative_to(ROOT / "gateway/daemon"))
        found = [line for line in file.read_text().splitlines() if prints.search(line)]
        assert len(found) <= allowed.get(name, 0), f"{name}: {found}"
