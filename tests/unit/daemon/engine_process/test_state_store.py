"""What is written of the state, and what a start makes of it; the files are real."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.engine import Engine
from gateway.core.persistence.flow_record import SIZE
from gateway.core.persistence.snapshot import SavedState, save
from gateway.daemon.engine_process import state_store, state_writer
from gateway.daemon.engine_process.state_store import StateStore
from gateway.daemon.engine_process.state_writer import StateWriter
from gateway.model.configuration import Configuration
from gateway.model.reading.load import Loaded
from tests.scenario import Scenario, configuration
from tests.unit.core.flows.test_resets import RESETTING
from tests.unit.core.snat.test_nat_gateway_pool import HEAD, NAT, ONE

BOTH = HEAD + NAT.format("n1", "b", "")
UDP = "udp 10.0.1.4:5 > 198.51.100.1:53"


def keep(directory: Path, run: Scenario) -> StateWriter:
    """The state of an engine, from now on."""
    writer = StateWriter.open(directory)
    writer.begin(run.engine, None, base=0.0, scale=1.0)
    return writer


def start(directory: Path, told: Configuration) -> tuple[StateWriter, Engine]:
    """What a start goes on with."""
    writer = StateWriter.open(directory)
    writer.base(0.0, 1.0)
    engine = writer.resume(told, lambda c, seed: Engine(c, seed=seed), None, 0.0)
    writer.close()
    return writer, engine


def written(store: StateStore) -> None:
    store.write_index(SavedState(), base=0.0, time_scale=1.0, seed=1, written=0.0)


def left(directory: Path) -> Configuration:
    """Of whom the state is that is there now."""
    store = StateStore(directory)
    found = store.read()
    assert found is not None
    found.flows.close()
    store.close()
    return found.configuration


def test_a_configuration_counts_with_the_ports_that_were_dealt_by_it(tmp_path: Path) -> None:
    """Whenever the process is killed in the middle of a reload."""
    before, after = configuration(HEAD), configuration(ONE)
    store = StateStore(tmp_path)
    store.begin(before)
    written(store)
    store.write_configuration(Loaded(configuration=after).to_json())
    store.close()
    assert left(tmp_path) == before
    store = StateStore(tmp_path)
    store.begin(before)
    store.write_configuration(Loaded(configuration=after).to_json())
    written(store)
    store.remove_others()
    store.close()
    assert left(tmp_path) == after
    assert len(list((tmp_path / "state").iterdir())) == 3


def test_a_reload_is_what_the_next_start_goes_on_from(tmp_path: Path) -> None:
    run = Scenario(HEAD)
    writer = keep(tmp_path, run)
    for text in (ONE, HEAD, ONE):
        run.engine.reconfigure(configuration(text), 0.0)
        for _ in writer.reconfiguring(run.engine.configuration):
            pass
    run.play(f"vm1 sends {UDP}")
    writer.finish()
    writer.close()
    assert len(list((tmp_path / "state").iterdir())) == 3
    assert left(tmp_path) == configuration(ONE)
    seen, engine = start(tmp_path, configuration(ONE))
    assert len(engine.flows) == 1
    assert seen.resumed is not None


def test_what_cannot_be_written_is_void_and_begun_again_as_soon_as_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_writer, "AGAIN", 0.0)
    run = Scenario(RESETTING)
    writer = keep(tmp_path, run)
    run.play(f"vm1 sends {UDP}")
    with patch.object(
        StateStore, "write_flows", side_effect=OSError(28, "No space left on device")
    ):
        writer.flush_due()
        assert writer.unavailable_reason == "it cannot be written: No space left on device"
        assert list((tmp_path / "state").iterdir()) == []
        list(writer.each_second())  # as full as before
        assert writer.status()["kept"] is False
        assert list((tmp_path / "state").iterdir()) == []
    work = writer.each_second()
    next(work)
    run.play("vm1 sends udp 10.0.1.4:6 > 198.51.100.1:53")
    list(work)
    assert writer.status() == {"kept": True}
    writer.finish()
    writer.close()
    assert len(start(tmp_path, run.configuration)[1].flows) == 2


def test_a_reload_while_a_state_is_begun_again_is_in_it(tmp_path: Path) -> None:
    run = Scenario(HEAD)
    run.play(f"vm1 sends {UDP}")
    writer = StateWriter.open(tmp_path)
    with patch.object(StateStore, "begin", side_effect=OSError(28, "full")):
        writer.begin(run.engine, None, base=0.0, scale=1.0)
    with patch.object(writer, "_again_at", 0.0):
        work = writer.each_second()
        next(work)
    run.engine.reconfigure(configuration(ONE), 0.0)
    for _ in writer.reconfiguring(run.engine.configuration):
        pass
    list(work)
    writer.close()
    assert left(tmp_path) == configuration(ONE)


def test_a_directory_that_another_gateway_has_taken_meanwhile_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_writer, "AGAIN", 0.0)
    run = Scenario(RESETTING)
    writer = keep(tmp_path, run)
    with patch.object(StateStore, "write_index", side_effect=OSError(5, "Input/output error")):
        for _ in writer.reconfiguring(run.configuration):
            pass
    other = keep(tmp_path, Scenario(RESETTING))
    list(writer.each_second())
    assert writer.unavailable_reason == "another gateway keeps its state in this directory"
    other.close()
    list(writer.each_second())
    assert writer.status()["kept"] is False
    assert left(tmp_path) == run.configuration


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_directory_that_others_may_write_to_is_not_used(tmp_path: Path, mode: int) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(mode)
    writer = keep(tmp_path, Scenario(RESETTING))
    assert writer.unavailable_reason == f"{tmp_path}/state: can be written by others"
    assert list((tmp_path / "state").iterdir()) == []


def test_a_directory_of_another_user_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    with patch.object(os, "geteuid", return_value=os.geteuid() + 1):
        writer = keep(tmp_path, Scenario(RESETTING))
    assert writer.unavailable_reason == f"{tmp_path}/state: belongs to user {os.geteuid()}"


def test_records_far_into_a_file_of_nothing_are_found(tmp_path: Path) -> None:
    store = StateStore(tmp_path)
    store.begin(configuration(HEAD))
    for slot in (0, 4095, 4097, 300_000):
        store.write_flows(slot, slot.to_bytes(4, "big") + b"x" * (SIZE - 4))
    written(store)
    found = store.read()
    assert found is not None
    assert [slot for slot, _ in found.flows] == [0, 4095, 4097, 300_000]
    found.flows.close()
    store.close()


ODD: list[Any] = [-1, 0, 1, 1 << 70, 10**40, 1.5, True, None, "", "1.2.3.4", "nat", [], {}, [[1]]]
ODDITIES = st.lists(st.tuples(st.integers(0), st.sampled_from(ODD)), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state with something of everything."""
    directory = tmp_path_factory.mktemp("sound")
    run = Scenario(BOTH)
    run.play(f"vm1 sends {UDP}\nother sends udp 10.0.2.4:5 > 198.51.100.1:53")
    writer = keep(directory, run)
    writer.close()
    return directory


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()  # fmt: skip
    return [way, *(place for key, one in inner for place in places(one, (*way, key)))]


@settings(max_examples=300, deadline=None)
@given(ODDITIES)
def test_no_start_fails_by_what_a_file_says(sound: Path, oddities: list[tuple[int, Any]]) -> None:
    index = sound / "state" / "state.json"
    text = index.read_text()
    document = json.loads(text)
    for number, value in oddities:
        ways = places(document)[1:]
        *way, last = ways[number % len(ways)]
        there = document
        for key in way:
            there = there[key]
        there[last] = copy.deepcopy(value)
        if document == {}:
            break
    files = {file.name: file.read_bytes() for file in (sound / "state").iterdir() if file.is_file()}
    try:
        index.write_text(json.dumps(document))
        _, engine = start(sound, configuration(BOTH))
        engine.expire(1e9)
    finally:
        for name, data in files.items():
            (sound / "state" / name).write_bytes(data)
        index.write_text(text)
        index.chmod(0o600)


def test_allocations_in_parts_are_what_they_are_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_store, "ALLOCATIONS_IN_PART", 2)
    run = Scenario(ONE)
    run.play(f"vm1 sends {UDP}")
    state = next(state for state in save(run.engine) if state is not None)
    assert len(state.allocations) > 2
    store, written = StateStore(tmp_path), []
    store.begin(run.engine.configuration)
    for allocations in (None, ",".join(state_store.allocations_in_parts(state.allocations))):
        store.write_index(
            state, base=0.0, time_scale=1.0, seed=1, written=2.0, allocations=allocations
        )
        written.append((tmp_path / "state" / "state.json").read_text())
    store.close()
    assert written[0] == written[1]
