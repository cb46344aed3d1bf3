"""What the documentation takes from the code is what the code says now."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "generate_docs.py"
_spec = importlib.util.spec_from_file_location("generate_docs", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
generate_docs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate_docs)


def test_generated_parts_are_current() -> None:
    """Mended by ``scripts/generate_docs.py``."""
    assert [str(path) for path in generate_docs.outdated()] == []


def test_a_part_that_differs_is_noticed() -> None:
    text = "before\n<!-- x: generated -->\nold\n<!-- x: end -->\nafter"
    assert generate_docs.with_part(text, "x", "new") != text
    with pytest.raises(SystemExit, match="one pair"):
        generate_docs.with_part("no marks", "x", "new")
