"""The whole files that docs/configuration.md shows pass ``snatgw check`` without a word."""

import re
from pathlib import Path

import pytest

from gateway.model.reading.load import load_text

TEXT = (Path(__file__).parents[3] / "docs/configuration.md").read_text()
EXAMPLES = [text for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.S) if "gateway:" in text]


def test_there_are_examples_of_both_profiles() -> None:
    assert len(EXAMPLES) >= 3
    assert any("natGateways" in text for text in EXAMPLES)
    assert any("outboundRules" in text for text in EXAMPLES)


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_has_no_problem(text: str) -> None:
    loaded = load_text(text, "example.yaml")
    assert [str(problem) for problem in loaded.problems] == []
    assert loaded.configuration is not None
