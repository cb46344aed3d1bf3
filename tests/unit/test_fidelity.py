"""Every test that docs/fidelity.md names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_is_named_exists() -> None:
    text = (ROOT / "docs/fidelity.md").read_text()
    named = set(re.findall(r"`(test_\w+)(…?)`", text))
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert len(named) > 50
    missing = [
        name
        for name, cut in sorted(named)
        if not (any(d.startswith(name) for d in defined) if cut else name in defined)
    ]
    assert missing == []
