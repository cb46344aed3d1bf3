"""What `scripts/install` puts where, changes, keeps and takes away. Real installations."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gateway.model import load
from tests.netns.install.conftest import ROOT, bare_root, install

FILE = "etc/snatgw/snatgw.yaml"


def tree(root: Path) -> dict[str, str]:
    """Every path but those within a release, with what identifies its content."""
    found = {}
    for directory, directories, files in os.walk(root):
        if directory.endswith("/releases"):
            directories.clear()
        for name in (*directories, *files):
            path = Path(directory, name)
            status = path.lstat()
            content = os.readlink(path) if path.is_symlink() else str(status.st_mtime_ns)
            found[str(path.relative_to(root))] = content if not path.is_dir() else ""
    return found


def project(place: Path, version: str) -> Path:
    """The project as an update would bring it."""
    for name in ("gateway", "docs", "packaging", "scripts"):
        shutil.copytree(ROOT / name, place / name)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    for name in ("pyproject.toml", "gateway/__init__.py"):
        text = (place / name).read_text()
        (place / name).write_text(
            re.sub(r'ersion(__)? = "[^"]*"', rf'ersion\1 = "{version}"', text)
        )
    return place


def test_the_layout(installed: Path) -> None:
    assert {
        "etc/fish/completions/snatgw.fish",
        FILE,
        "etc/systemd/system/snatgw.service",
        "opt/snatgw/releases",
        "usr/local/bin/snatgw",
        "usr/local/share/bash-completion/completions/snatgw",
        "usr/local/share/zsh/site-functions/_snatgw",
        "var/lib/snatgw",
    } <= tree(installed).keys()
    assert os.readlink(installed / "usr/local/bin/snatgw") == "/opt/snatgw/venv/bin/snatgw"
    # Nothing in there knows where it was built.
    mentions = subprocess.run(
        ["grep", "-rlF", str(installed), str(installed)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert mentions.stdout == ""
    # The service may not write there: all is compiled.
    release = (installed / "opt/snatgw/venv").resolve()
    sources = list(release.rglob("gateway/**/*.py"))
    assert len(sources) > 50
    assert all(list(p.parent.glob(f"__pycache__/{p.stem}.*.pyc")) for p in sources)


def test_the_configuration_to_begin_with_is_valid(installed: Path) -> None:
    loaded = load(installed / FILE)
    assert loaded.problems == ()
    assert loaded.configuration is not None
    assert (installed / FILE).stat().st_mode & 0o777 == 0o640
    (line,) = [
        x for x in (installed / "etc/group").read_text().splitlines() if x.startswith("snatgw:")
    ]
    assert (installed / FILE).stat().st_gid == int(line.split(":")[2])


def test_all_that_is_commented_out_is_valid_too(tmp_path: Path) -> None:
    text = (ROOT / "packaging/snatgw.yaml").read_text()
    whole = re.sub(r"(?m)^( *)#(?! \S|$)", r"\1", text)
    assert len(yaml.safe_load(whole)["virtualMachines"]) == 3
    (tmp_path / "whole.yaml").write_text(whole)
    loaded = load(tmp_path / "whole.yaml")
    assert [p for p in loaded.problems if p.severity == "error"] == []


def test_again_changes_nothing(installed: Path) -> None:
    before = tree(installed)
    again = install("--root", str(installed))
    assert "is there already" in again
    assert f"/{FILE} (kept as it was)" in again
    after = tree(installed)
    assert after.keys() == before.keys()
    assert after[FILE] == before[FILE]
    assert after["opt/snatgw/venv"] == before["opt/snatgw/venv"]


def test_an_update_a_failed_update_and_the_end(tmp_path: Path) -> None:
    root = bare_root(tmp_path / "root")
    bystander = root / "opt/other/file"
    bystander.parent.mkdir(parents=True)
    bystander.write_text("somebody's")
    untouched = tree(root)
    install(f"--root={root}", "--prefix=/opt/lab/snatgw")
    installation = root / "opt/lab/snatgw"
    first = os.readlink(installation / "venv")
    unit = (root / "etc/systemd/system/snatgw.service").read_text()
    assert "ExecStart=/opt/lab/snatgw/venv/bin/snatgw run" in unit
    assert "/opt/snatgw" not in unit + (root / FILE).read_text()

    (root / FILE).write_text("mine")
    update = project(tmp_path / "update", "99.1")
    install(f"--root={root}", "--prefix=/opt/lab/snatgw", source=update)
    second = os.readlink(installation / "venv")
    assert second.startswith("releases/99.1-")
    assert (root / FILE).read_text() == "mine"
    said = subprocess.run(
        [installation / "venv/bin/python", "-m", "gateway", "--version"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd="/",
    )
    assert "99.1" in said.stdout
    assert (installation / first / ".complete").exists()  # a daemon may still run from it

    broken = project(tmp_path / "broken", "99.2")
    with (broken / "pyproject.toml").open("a") as file:
        file.write("[nonsense")
    said_then = install(f"--root={root}", "--prefix=/opt/lab/snatgw", source=broken, status=1)
    assert "what was installed before is unchanged" in said_then
    assert os.readlink(installation / "venv") == second
    assert len(list((installation / "releases").iterdir())) == 2

    install(f"--root={root}", "--prefix=/opt/lab/snatgw", "--remove")
    assert not (root / "opt/lab/snatgw").exists()
    assert (root / FILE).read_text() == "mine"
    install(f"--root={root}", "--prefix=/opt/lab/snatgw", "--remove", "--purge")
    left = {path for path in tree(root).keys() - untouched.keys() if not (root / path).is_dir()}
    assert {path for path in left if not path.endswith("-")} == set()  # passwd- and the like
    assert bystander.read_text() == "somebody's"
    assert "snatgw" not in (root / "etc/passwd").read_text() + (root / "etc/group").read_text()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--nonsense"], "install: unknown argument: --nonsense"),
        (["--prefix"], "install: --prefix needs a directory"),
        (["--purge"], "install: --purge goes with --remove"),
        (["--prefix", "opt"], "install: --prefix opt: an absolute path of plain letters, digits, dots and dashes is wanted"),
        (["--prefix", "/opt/a b"], "install: --prefix /opt/a b: an absolute path of plain letters, digits, dots and dashes is wanted"),
        (["--root", "/tmp/a b"], "install: --root /tmp/a b: a path of plain letters, digits, dots and dashes is wanted"),
    ],
)  # fmt: skip
def test_wrong_usage(arguments: list[str], line: str) -> None:
    said = install(*arguments, status=2).splitlines()
    assert said[0] == line
    assert said[1].startswith("usage: ")


def test_help() -> None:
    said = install("--help")
    assert "Examples:" in said
