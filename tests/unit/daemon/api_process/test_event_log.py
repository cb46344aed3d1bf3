"""The event log: ring, file, rotation, restart, a disk that is full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.daemon.api_process.event_log import EventLog, prepare_directory
from gateway.daemon.channel.event_views import gateway_event

NOON = 1769860800.0


def event(number: int) -> dict[str, Any]:
    made = gateway_event(NOON, "Reloaded", "Informational", {})
    return made | {"number": number}


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["number"] for line in path.read_text().splitlines()]


def kept(log: EventLog) -> list[int]:
    return [entry["number"] for entry in log.after(0, 1 << 30)[0]]


def test_events_are_appended_as_json_lines(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.add([event(1), event(2)])
    log.add([event(3)])
    assert numbers(tmp_path / "events.jsonl") == [1, 2, 3]


def test_files_rotate_by_size_and_stay_bounded(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path, maximum_bytes=1500, kept_files=3)
    log.add(event(number) for number in range(100))
    files = sorted(entry.name for entry in tmp_path.iterdir())
    assert files == ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]
    assert all(entry.stat().st_size <= 1500 for entry in tmp_path.iterdir())
    in_order = [n for name in reversed(files) for n in numbers(tmp_path / name)]
    assert in_order == list(range(in_order[0], 100))


def test_a_restart_finds_the_latest_events_over_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path, maximum_bytes=1500, kept_files=3)
    log.add(event(number) for number in range(30))
    log.close()
    again = EventLog(path, ring=8, maximum_bytes=1500, kept_files=3)
    assert kept(again) == list(range(22, 30))
    again.add([event(30)])
    assert kept(again)[-1] == 30


def test_a_torn_line_costs_that_line_only(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps(event(1)) + '\n{"time": "2026-01-')
    log = EventLog(path)
    assert kept(log) == [1]
    log.add([event(2)])
    log.close()
    assert kept(EventLog(path)) == [1, 2]


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        "{}",
        '"2026-01-31T12:00:00.000Z"',
        json.dumps(event(2) | {"time": "noon"}),
        json.dumps(event(2) | {"properties": None}),
        json.dumps({name: value for name, value in event(2).items() if name != "category"}),
    ],
)
def test_a_line_that_is_no_event_is_left_out(tmp_path: Path, line: str) -> None:
    """Listings, history and diagnosis rely on an event's fields."""
    path = tmp_path / "events.jsonl"
    path.write_text(f"{json.dumps(event(1))}\n{line}\n{json.dumps(event(3))}\n")
    assert kept(EventLog(path)) == [1, 3]


def test_the_ring_is_bounded_and_numbers_go_on(tmp_path: Path) -> None:
    log = EventLog(None, ring=5)
    log.add(event(number) for number in range(12))
    assert kept(log) == [7, 8, 9, 10, 11]
    batch, following = log.after(3, 2)  # fell behind: what is gone is skipped
    assert ([entry["number"] for entry in batch], following) == ([7, 8], 9)
    batch, following = log.after(9, 100)
    assert ([entry["number"] for entry in batch], following) == ([9, 10, 11], 12)
    assert log.after(12, 100) == ([], 12)


def test_an_unwritable_file_is_said_once_and_counted(tmp_path: Path) -> None:
    lines: list[str] = []
    (tmp_path / "events.jsonl").mkdir()
    log = EventLog(tmp_path / "events.jsonl", complain=lines.append)
    lines.clear()
    log.add([event(1), event(2)])
    assert log.unwritten == 2
    assert len(lines) == 1
    assert kept(log) == [1, 2]


def test_a_full_disk_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    lines: list[str] = []
    path = tmp_path / "events.jsonl"
    log = EventLog(path, complain=lines.append)
    log.add([event(1)])
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:5]))
        log.add([event(2)])
    log.add([event(3)])
    assert numbers(path) == [1, 3]
    assert log.unwritten == 1
    assert len(lines) == 1


def test_the_state_directory_leads_to_the_file(tmp_path: Path) -> None:
    import os

    state = tmp_path / "new" / "state"
    path = prepare_directory(state, os.getuid(), os.getgid())
    EventLog(path).add([event(1)])
    assert numbers(state / "events.jsonl") == [1]
    assert prepare_directory(state, os.getuid(), os.getgid()) == path
