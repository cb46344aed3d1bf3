"""The reader as a program: what it prints, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gateway.core.reload.resolved import resolve
from gateway.model.reading.load import Interfaces, load
from tests.unit.daemon.channel.test_reload_messages import handed
from tests.unit.model.files import LOAD_BALANCED, changed

READER = (sys.executable, "-m", "gateway.daemon.reader")


def test_it_prints_what_the_engine_takes_and_tells_by_its_status(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(LOAD_BALANCED)
    bad.write_text(changed("203.0.113.10", "203.0.113"))
    for path, status in ((good, 0), (bad, 1)):
        ran = subprocess.run([*READER, str(path)], capture_output=True, check=False)
        assert (ran.returncode, ran.stderr) == (status, b"")
        told, loaded = handed(ran.stdout), load(path)
        assert told.problems == loaded.problems
        if told.resolved is None:
            assert loaded.configuration is None
        else:
            assert told.resolved.configuration == loaded.configuration


def test_it_takes_the_hosts_interfaces_in_place_of_the_files(tmp_path: Path) -> None:
    path = tmp_path / "-gateway.yaml"  # looks like an option
    path.write_text(LOAD_BALANCED)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    for some in (
        Interfaces(("eth2", "eth3"), "eth1"),
        Interfaces(outside="eth1"),
        Interfaces(inside=("eth2",)),
        Interfaces(),
    ):
        command = [*READER, *some.reading(Path(path.name))]
        ran = subprocess.run(
            command, capture_output=True, check=True, cwd=tmp_path, env=environment
        )
        resolved, read = handed(ran.stdout).resolved, load(path, some).configuration
        assert resolved is not None
        assert read is not None
        assert resolved.configuration == read
        assert resolved.plan == resolve(read).plan


def test_without_a_file_it_is_used_wrongly() -> None:
    ran = subprocess.run(READER, capture_output=True, check=False)
    assert ran.returncode == 2
    assert b"usage" in ran.stderr
