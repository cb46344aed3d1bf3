"""Each module of gateway/ has a test of its name in its package's folder, or it is said why not.

Who changes gateway/PACKAGE/NAME.py runs tests/unit/PACKAGE/test_NAME.py, and finds there what it
promises. Where something else tests a module, ``tested_elsewhere.toml`` names that, with a reason.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
GATEWAY = TESTS.parent / "gateway"
TABLE = Path(__file__).with_name("tested_elsewhere.toml")


def modules() -> set[str]:
    """The modules, by their path below gateway/."""
    return {
        path.relative_to(GATEWAY).as_posix()
        for path in GATEWAY.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }


def own_test(module: str) -> Path:
    """Where the test of a module's name stands."""
    path = TESTS / "unit" / module
    return path.with_name(f"test_{path.name}")


def elsewhere() -> list[tuple[str, str, list[str]]]:
    """The table's rows: module, reason, tests."""
    groups = tomllib.loads(TABLE.read_text())["elsewhere"]
    return [
        (module, group["why"], tests)
        for group in groups
        for module, tests in group["modules"].items()
    ]


def test_each_module_has_a_test_of_its_name_or_is_in_the_table() -> None:
    named = {module for module, _, _ in elsewhere()}
    missing = sorted(m for m in modules() if not own_test(m).exists() and m not in named)
    assert not missing, f"write {own_test(missing[0])}, or say in {TABLE.name} what tests it"


def test_the_table_has_no_row_that_is_not_needed() -> None:
    rows = [module for module, _, _ in elsewhere()]
    known = modules()
    stale = {
        "twice in the table": [m for m in rows if rows.count(m) > 1],
        "no such module": [m for m in rows if m not in known],
        "has a test of its own": [m for m in rows if own_test(m).exists()],
    }
    assert not any(stale.values()), stale


def test_the_table_gives_reasons_and_names_tests_that_there_are() -> None:
    for module, why, tests in elsewhere():
        assert why.endswith("."), module
        assert tests, module
        gone = [test for test in tests if not (TESTS / test).is_file()]
        assert not gone, f"{module}: {gone}"


@pytest.mark.parametrize("folder", sorted({p.parent for p in (TESTS / "unit").rglob("test_*.py")}))
def test_the_tests_folders_are_the_packages(folder: Path) -> None:
    """``bench`` is a package beside gateway; what is about the whole stands at the top."""
    package = folder.relative_to(TESTS / "unit")
    assert package.parts[:1] == ("bench",) or (GATEWAY / package).is_dir()
