"""A lab of the tests' own, driven through the command line as a user drives it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.lab.topology import Lab
from tests import reaper


@pytest.fixture(autouse=True, scope="module")
def mode() -> None:
    """Once is enough here: no flow is carried by anything else."""


@dataclass(frozen=True)
class Commands:
    """`snatgw lab …` for one lab."""

    lab: Lab

    def __call__(
        self, verb: str, *arguments: str, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.line(verb, *arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def line(self, verb: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "gateway", "lab", verb, "--name", self.lab.name, *arguments]

    def succeed(self, verb: str, *arguments: str) -> str:
        done = self(verb, *arguments)
        assert done.returncode == 0, f"{verb} {arguments}: {done.stderr}{done.stdout}"
        return done.stdout

    def output(self, vm: str, *command: str) -> str:
        """Standard output of a command in a VM, which must succeed."""
        return self.succeed("exec", vm, *command).strip()

    def traces(self) -> list[str]:
        """Namespaces and files of this lab that there are."""
        places = [
            *(Path("/run/netns") / name for name in self.lab.namespaces),
            *(self.lab.etc_netns / name for name in self.lab.namespaces),
            self.lab.directory,
        ]
        return [str(place) for place in places if place.exists()]


def commands(suffix: str) -> Commands:
    assert os.geteuid() == 0, "the lab needs root: run scripts/test with sudo"
    lab = Lab(f"test{os.getpid()}-{suffix}")
    reaper.tell("lab", lab.name)
    return Commands(lab)


@pytest.fixture(scope="session")
def up() -> Iterator[Commands]:
    """A lab that is up, for tests that leave it as it is."""
    lab = commands("up")
    try:
        lab.succeed("up")
        yield lab
    finally:
        lab("down")


@pytest.fixture
def fresh() -> Iterator[Commands]:
    """A lab that is not up yet, for tests of coming and going."""
    lab = commands("fresh")
    try:
        yield lab
    finally:
        lab("down")
