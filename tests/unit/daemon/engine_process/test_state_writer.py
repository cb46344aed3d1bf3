"""The last writing of the state: it is whole, and a stop does not wait for it for long."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.persistence.snapshot import SavedState
from gateway.daemon.engine_process import state_writer
from gateway.daemon.engine_process.state_writer import StateWriter
from tests.scenario import Scenario, build
from tests.unit.daemon.api_process.diagnosis.test_diagnose import yaml

FLOWS = 40


def left(directory: Path) -> tuple[int, SavedState]:
    """How many flows a daemon that stopped has left, and all else."""
    world = Scenario(yaml())
    writer = StateWriter.open(directory)
    writer.begin(world.engine, None, base=0.0, scale=1.0)
    for number in range(FLOWS):
        assert world.send("vm3", build(f"udp 10.0.1.6:{2000 + number} > 198.51.100.1:53"))
    writer.finish()
    writer.close()
    after = StateWriter.open(directory)
    assert after.refused is None
    found = after._left
    assert found is not None
    records = len(list(found.flows))
    found.flows.close()
    after.close()
    return records, found.index.state


def test_a_stop_writes_all_flows(tmp_path: Path) -> None:
    records, state = left(tmp_path)
    assert (records, state.opened) == (FLOWS, FLOWS)


def test_a_stop_does_not_wait_for_very_many_flows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else there is to know is written all the same."""
    monkeypatch.setattr(state_writer, "STOP_PATIENCE", -1.0)
    records, state = left(tmp_path)
    assert records < FLOWS
    assert state.opened == FLOWS
