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
