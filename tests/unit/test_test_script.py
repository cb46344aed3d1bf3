"""What `scripts/test` makes of its arguments: what it sets up, and what pytest is given."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = """
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/venv
PYTHON=$VENV/python
setup_test() { echo setup_test; }
setup_environment() { echo setup_environment; }
"""
TOOL = '#!/bin/sh\necho "$(basename "$0") $*"\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The script with tools that say what they were called with."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/test", tmp_path / "scripts/test")
    (tmp_path / "scripts/setup").write_text(SETUP)
    for tool in ("bin/ruff", "bin/mypy", "bin/lint-imports", "python"):
        file = tmp_path / "venv" / tool
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(TOOL)
        file.chmod(0o755)
    for test in ("tests/unit/test_a.py", "tests/netns/test_b.py"):
        (tmp_path / test).parent.mkdir(parents=True)
        (tmp_path / test).touch()
    return tmp_path


def run(project: Path, *arguments: str, status: int = 0) -> list[str]:
    done = subprocess.run(
        [project / "scripts/test", *arguments], capture_output=True, text=True, check=False,
        env={**os.environ, "SNATGW_TEST_PROCESSES": "2"},
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return [line for line in (done.stderr + done.stdout).splitlines() if line and line[0] != "="]


WHOLE = "python -m pytest -n 2 --dist loadscope"


@pytest.mark.parametrize(
    ("arguments", "did"),
    [
        (["unit"], ["setup_environment", f"{WHOLE} tests/unit tests/property"]),
        (["netns", "-k", "a b"], ["setup_test", f"{WHOLE} tests/netns -k a b"]),
        (["web"], ["setup_test", f"{WHOLE} tests/web"]),
        (["tests/unit/test_a.py"], ["setup_environment", "python -m pytest tests/unit/test_a.py"]),
        (
            ["tests/netns/test_b.py::test_x", "--keep"],
            ["setup_test", "python -m pytest tests/netns/test_b.py::test_x --keep"],
        ),
        (
            ["-x", "tests/unit", "tests/netns/test_b.py"],
            ["setup_test", "python -m pytest -x tests/unit tests/netns/test_b.py"],
        ),
        (["tests"], ["setup_test", "python -m pytest tests"]),
        (["-k", "resets"], ["setup_test", "python -m pytest -k resets"]),
    ],
)
def test_paths_and_options_are_passed_through(
    project: Path, arguments: list[str], did: list[str]
) -> None:
    assert run(project, *arguments) == did


def test_everything_is_lint_and_all_tests(project: Path) -> None:
    assert run(project) == [
        "setup_test", "ruff check .", "ruff format --check .", "mypy ",
        f"lint-imports --cache-dir {project}/.cache/{os.getuid()}/import-linter",
        f"{WHOLE} tests",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["tests/unit/test_none.py"], "no group of tests and no path"),
        (["lint", "x"], "lint takes no arguments"),
        (["explore", "0"], "explore takes a number"),
    ],
)
def test_what_it_does_not_know_it_says(project: Path, arguments: list[str], reason: str) -> None:
    said = run(project, *arguments, status=2)
    assert reason in said[0]
    assert "usage:" in said[1]


def caches(project: Path) -> list[str]:
    """Where the tools that ``lint`` runs have theirs."""
    (project / "venv/bin/mypy").write_text('#!/bin/sh\necho "$MYPY_CACHE_DIR"\n')
    (project / "venv/bin/ruff").write_text('#!/bin/sh\necho "$RUFF_CACHE_DIR"\n')
    _, ruff, _, mypy, imports = run(project, "lint")
    return [ruff, mypy, imports.split()[-1]]


def test_caches_are_the_users_own(project: Path) -> None:
    own = f"{project}/.cache/{os.getuid()}"
    assert caches(project) == [f"{own}/ruff", f"{own}/mypy", f"{own}/import-linter"]


def test_without_a_place_in_the_tree_caches_last_for_the_run(project: Path) -> None:
    (project / ".cache").touch()  # as good as another's, whatever user this is
    found = caches(project)
    assert not [place for place in found if place.startswith(str(project))]
    assert len({Path(place).parent for place in found}) == 1
    assert not Path(found[0]).parent.exists()


def test_a_failed_stage_is_its_status(project: Path) -> None:
    (project / "venv/bin/mypy").write_text("#!/bin/sh\nexit 1\n")
    run(project, "lint", status=1)
    assert run(project, "--help")[0].startswith("usage: sudo scripts/test")
