"""What the lab writes: the large file, its state, and the gateway's configuration."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from gateway.lab import lifecycle, state, topology, webroot
from gateway.lab.processes import Process
from gateway.lab.state import State
from gateway.lab.topology import Lab
from gateway.model import load


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab("t", run_root=tmp_path / "run", etc_netns=tmp_path / "etc")
    made.directory.mkdir(parents=True)
    return made


def test_the_large_file_has_the_hash_that_is_promised(tmp_path: Path) -> None:
    path = tmp_path / "large"
    webroot.write_large(path)
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == webroot.LARGE_SHA256
    assert path.stat().st_size == webroot.LARGE_SIZE


def test_no_two_blocks_of_the_large_file_are_alike(tmp_path: Path) -> None:
    path = tmp_path / "large"
    webroot.write_large(path, 4 << 20)
    content = path.read_bytes()
    pieces = {content[at : at + (64 << 10)] for at in range(0, len(content), 64 << 10)}
    assert len(pieces) == 64


def test_state_is_read_as_it_was_saved(lab: Lab) -> None:
    saved = State("t", "2017-05-31T00:00:00Z", "/c.yaml", True, [Process("dns", "n", 7, 8, "/l")])
    state.save(lab, saved)
    assert state.load(lab) == saved


@pytest.mark.parametrize("text", ["", "{", "[]", '{"processes": [{"pid": 1}]}', '{"name": 1}'])
def test_a_damaged_state_is_no_state(lab: Lab, text: str) -> None:
    lab.state_file.write_text(text)
    assert state.load(lab) is None


def test_the_configuration_of_the_lab_is_valid(lab: Lab) -> None:
    path = lifecycle.write_configuration(lab, 15)
    loaded = load(path)
    assert [str(p) for p in loaded.problems if p.severity == "error"] == []
    assert loaded.configuration is not None
    assert loaded.configuration.gateway.time_scale == 15
    assert {
        vm.name: str(vm.private_ip_address) for vm in loaded.configuration.virtual_machines
    } == {vm.name: vm.address for vm in topology.VIRTUAL_MACHINES}


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("dig", "nginx") else "/x")
    monkeypatch.setenv("PATH", os.environ["PATH"])
    with pytest.raises(lifecycle.LabError) as refused:
        lifecycle.require_programs()
    assert (
        str(refused.value) == "missing programs: nginx, dig; apt-get install dnsutils nginx-light"
    )
