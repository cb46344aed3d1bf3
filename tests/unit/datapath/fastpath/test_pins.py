"""Whose pins are removed at a start; directories do for what is in bpffs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.datapath.fastpath import pins

HERE = Path("/proc/self/ns/net").stat().st_ino


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "snatgw"
    root.mkdir(mode=0o700)
    monkeypatch.setattr(pins, "ROOT", root)
    return root


def left(root: Path, *names: str) -> set[str]:
    for name in names:
        (root / name).mkdir(mode=0o700)
        (root / name / "entries-2").touch()
    pins.remove_stale()
    return {path.name for path in root.iterdir()} if root.exists() else set()


def test_a_namespace_that_nobody_has_is_gone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "_namespaces", lambda: {HERE, 5})
    assert left(root, "5-wan0", "6-wan0", "7-wan0") == {"5-wan0"}


def test_who_does_not_see_all_namespaces_removes_nothing_of_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "_namespaces", set)
    assert left(root, "5-wan0", "6-wan0") == {"5-wan0", "6-wan0"}


def test_here_it_is_the_interface_that_counts(root: Path) -> None:
    assert left(root, f"{HERE}-lo", f"{HERE}-no%2E7") == {f"{HERE}-lo"}


def test_what_is_named_otherwise_and_what_others_may_write_to_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "_namespaces", lambda: {HERE})
    assert left(root, "mine", "x-wan0") == {"mine", "x-wan0"}
    (root / "6-wan0").mkdir()
    (root / "6-wan0").chmod(0o777)
    assert left(root) == {"mine", "x-wan0", "6-wan0"}
    root.chmod(0o777)
    assert left(root, "7-wan0") == {"mine", "x-wan0", "6-wan0", "7-wan0"}


def test_the_last_ones_directory_goes_with_them(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "_namespaces", lambda: {HERE})
    assert left(root, "6-wan0") == set()
    assert not root.exists()
