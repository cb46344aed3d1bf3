"""What the engine process and the prober say to each other: bounded, checked, and whole."""

from __future__ import annotations

import json

import pytest

from gateway.daemon.channel.probe_messages import (
    MAXIMUM_REPORT,
    RESULTS_PER_REPORT,
    NotAReportError,
    Result,
    Targets,
    Task,
    decode_report,
    decode_targets,
    encode_report,
    encode_targets,
)


def test_targets_come_in_parts_of_bounded_size() -> None:
    tasks = [
        Task(n, "Http", "10.0.1.4", 80, "/" + "x" * 2000, 5.0, 5.0, 1, None) for n in range(100)
    ]
    messages = list(encode_targets("168.63.129.16", tasks))
    assert len(messages) > 1
    assert max(map(len, messages)) < 64 << 10
    parts = [decode_targets(message) for message in messages]
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert [task for part in parts for task in part.tasks] == tasks
    assert decode_targets(next(encode_targets("10.0.0.1", []))) == Targets("10.0.0.1", True, [])


GOOD = [1, True, 2, True, "HTTP 200", 1.5]


@pytest.mark.parametrize(
    "bad",
    [
        {},
        None,
        [GOOD[:-1]],
        [[*GOOD, 1]],
        ["text!"],
        [["1", *GOOD[1:]]],
        [[True, *GOOD[1:]]],
        [[1, 1, *GOOD[2:]]],
        [[1, True, 1 << 70, *GOOD[3:]]],
        [[1, True, 2, None, *GOOD[4:]]],
        [[1, True, 2, True, "x" * 101, 1.5]],
        [[1, True, 2, True, "a\x1b[31m", 1.5]],
        [[1, True, 2, True, "ok", -1]],
        [[1, True, 2, True, "ok", "1"]],
        [GOOD] * (RESULTS_PER_REPORT + 1),
    ],
)
def test_what_is_no_report_is_refused(bad: object) -> None:
    with pytest.raises(NotAReportError):
        decode_report(json.dumps(bad).encode())


def test_bytes_that_are_no_report_are_refused() -> None:
    not_finite = json.dumps([[*GOOD[:-1], float("inf")]]).encode()
    for data in (b"\xff", b"[" * 5000, b"[]" + b" " * MAXIMUM_REPORT, not_finite):
        with pytest.raises(NotAReportError):
            decode_report(data)
    assert decode_report(encode_report([Result(*GOOD)])) == [Result(*GOOD)]  # type: ignore[arg-type]
