"""Reasons: one name for each, a sentence that a user can read, counted as fast as a number."""

from __future__ import annotations

import re

import pytest

from gateway.schema.drop_reasons import DropReason


@pytest.mark.parametrize("reason", list(DropReason), ids=lambda reason: str(reason.name))
def test_each_has_its_name_in_json_and_a_sentence(reason: DropReason) -> None:
    assert re.fullmatch(r"(?:[A-Z][a-z0-9]+)+", reason.value)
    assert reason.value == reason.name.title().replace("_", "")
    assert DropReason.__members__[reason.name] is reason
    assert re.fullmatch(r"[A-Z].*[.]", reason.sentence)
    assert "  " not in reason.sentence


def test_no_sentence_stands_for_two_reasons() -> None:
    assert len({reason.sentence for reason in DropReason}) == len(DropReason)


def test_reasons_are_keys_by_identity() -> None:
    """Enum's own hash is a Python function, which a drop would call."""
    assert hash(DropReason.MALFORMED) == object.__hash__(DropReason.MALFORMED)
    assert vars(DropReason)["__hash__"] is object.__hash__
    assert {reason: reason.name for reason in DropReason}[DropReason.MALFORMED] == "MALFORMED"
