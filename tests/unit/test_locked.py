"""Whether requirements.lock has what pyproject.toml asks for, and what that asks for in turn.

Renewed by `scripts/lock`; CONTRIBUTING.md says when.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = [
    Requirement(line)
    for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"])
]


def locked() -> dict[NormalizedName, tuple[Version, int]]:
    """Version and number of hashes by name."""
    found = {}
    for entry in re.split(r"(?m)^(?=[a-zA-Z0-9])", (ROOT / "requirements.lock").read_text())[1:]:
        name, number = re.split(r"[ ;]", entry, maxsplit=1)[0].split("==")
        hashes = re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)
        found[canonicalize_name(name)] = (Version(number), len(hashes))
    return found


def test_the_lock_has_whatever_is_asked_for_with_hashes() -> None:
    lock = locked()
    wrong = [
        f"{asked}: locked {lock.get(canonicalize_name(asked.name))}"
        for asked in ASKED
        if canonicalize_name(asked.name) not in lock
        or lock[canonicalize_name(asked.name)][0] not in asked.specifier
    ]
    assert wrong == [], "run scripts/lock"
    assert [name for name, (_, hashes) in lock.items() if not hashes] == []


def test_the_lock_has_what_those_ask_for_in_turn() -> None:
    lock, missing = locked(), []
    for name in lock:
        try:
            lines = requires(name) or ()
        except PackageNotFoundError:  # of another Python, or of another environment
            continue
        for needed in map(Requirement, lines):
            if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
                continue
            if canonicalize_name(needed.name) not in lock:
                missing.append(f"{needed.name}, for {name}")
    assert missing == [], "run scripts/lock"


@pytest.mark.skipif(
    not (Path(sys.prefix) / ".installed[test]").exists(),
    reason="this environment was not made by scripts/setup",
)
def test_the_tests_run_with_what_is_locked() -> None:
    others = {}
    for name, (wanted, _) in locked().items():
        try:
            there = Version(version(name))
        except PackageNotFoundError:  # for another Python
            continue
        if there != wanted:
            others[name] = f"{there}, locked {wanted}"
    assert others == {}
