"""Whether the files for contributors name only what there is."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
MADE_UP = {"tests/unit/core/…"}


def heading_anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("name", FILES)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", (ROOT / name).read_text()):
        path, _, anchor = target.partition("#")
        file = ROOT / path
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", file.read_text())
            assert anchor in map(heading_anchor, headings), target


@pytest.mark.parametrize("name", FILES)
def test_files_and_tests_that_are_named_are_there(name: str) -> None:
    found = re.findall(r"(?:scripts|tests|gateway|docker)/[\w./…:-]*\w", (ROOT / name).read_text())
    for word in set(found) - MADE_UP:
        path, _, test = word.partition("::")
        assert (ROOT / path).exists(), word
        assert not test or f"def {test}(" in (ROOT / path).read_text(), word


def test_the_version_is_in_the_changes() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"(?m)^## {re.escape(version)}\b", text)
    assert "\n## Unreleased\n" in text


def test_hooks_run_tools_that_setup_brings_and_no_network() -> None:
    """Without pre-commit: its file is simple enough to be read here."""
    import yaml

    document = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    for repository in document["repos"]:
        assert repository["repo"] == "local"
        for hook in repository["hooks"]:
            assert hook["language"] == "system"
            program = hook["entry"].split()[0]
            assert program in {"git", "bash"} or (ROOT / program).exists(), hook["id"]


def test_the_scripts_are_valid_bash() -> None:
    for script in ("setup", "test", "lock", "install", "demo", "bench"):
        subprocess.run(["bash", "-n", str(ROOT / "scripts" / script)], check=True)


def test_the_package_says_that_it_is_typed() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    assert "py.typed" in data["gateway"]
    assert (ROOT / "gateway/py.typed").exists()
