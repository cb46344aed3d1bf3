"""What holds for every scenario of the unit tests."""

from __future__ import annotations

import pytest

from tests.scenario import Scenario


@pytest.fixture(autouse=True)
def nobody_else_sends_or_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ``sends`` and ``sees`` of each script is tried as the first VM's, and as the outside's.

    A scenario that would hold with somebody else in it says nothing about who sends and who sees.
    """
    step = Scenario._step

    def strict(scenario: Scenario, text: str) -> str | None:
        wrong = step(scenario, text)
        who, _, rest = text.partition(" ")
        if wrong is None and rest.partition(" ")[0] in ("sends", "sees"):
            for other in {"outside", scenario.parties.names[0]} - {who}:
                assert step(scenario, f"{other} {rest}"), f"holds with {other}, too: {text!r}"
        return wrong

    monkeypatch.setattr(Scenario, "_step", strict)
