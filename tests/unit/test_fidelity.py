"""Every test that docs/fidelity.md and docs/rfc.md name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("document", ["fidelity.md", "rfc.md"])
def test_every_test_that_is_named_exists(document: str) -> None:
    text = (ROOT / "docs" / document).read_text()
    named = set(re.findall(r"`(test_\w+)(…?)`", text))
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert len(named) > 30
    missing = [
        name
        for name, cut in sorted(named)
        if not (any(d.startswith(name) for d in defined) if cut else name in defined)
    ]
    assert missing == []


OTHER = {
    "py",
    "cli",
    "core",
    "daemon",
    "datapath",
    "importing",
    "lab",
    "model",
    "schema",
    "tui",
    "web",
}
"""What follows a dot and is no name in a module: a file's ending, a package."""


@pytest.mark.parametrize("document", ["fidelity.md", "rfc.md", "reliability.md", "architecture.md"])
def test_what_is_named_of_the_code_exists(document: str) -> None:
    """A module's name with one of its own, as in ``stages.track``, and tests' files."""
    text = (ROOT / "docs" / document).read_text()
    sources: dict[str, str] = {}
    for file in (ROOT / "gateway").rglob("*.py"):
        sources[file.stem] = sources.get(file.stem, "") + file.read_text()
    for key in ("gateway", "guard"):  # in the documents these are keys of configuration and status
        sources.pop(key, None)
    missing = [
        f"{module}.{name}"
        for module, name in re.findall(r"`(?:[a-z_]+\.)*([a-z_]+)\.(_?[A-Za-z]\w*)[`(.]", text)
        if module in sources
        and name not in OTHER
        and not re.search(rf"\b{name}\b", sources[module])
    ]
    assert missing == []
    files = re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py)`", text)
    files = [file for file in files if file != "test_nat44_ed.py"]  # VPP's
    found = [str(path) for path in (ROOT / "tests").rglob("test_*.py")]
    assert [
        file for file in files if not any(f"/{path}".endswith(f"/{file}") for path in found)
    ] == []
