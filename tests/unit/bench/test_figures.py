"""The benchmark's arithmetic: medians, ratios that mean the same both ways, targets."""

import pytest

from bench.figures import Alone, Row, checks, document, table

FACTS = {
    "date": "2026-01-01T00:00:00+00:00",
    "system": "Debian",
    "kernel": "6",
    "python": "3.11",
    "processor": "some",
    "cores": 2,
    "memoryGiB": 1.0,
    "loadAverageBefore": 0.0,
    "secondsTaken": 1.0,
}


def row(*, higher_is_better: bool, snatgw: list[float], nfqueue: list[float]) -> Row:
    made = Row("r", "a row", "kpps", higher_is_better, targets={"d/c": 0.7})
    for value in snatgw:
        made.add("snatgw", value)
    for value in nfqueue:
        made.add("nfqueue", value)
    return made


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    made = row(higher_is_better=True, snatgw=[80, 40, 90], nfqueue=[100, 50, 100])
    assert made.value("snatgw") == 80
    assert made.ratio("d", "c") == pytest.approx(0.8)


def test_a_ratio_above_one_is_better_where_less_is_better_too() -> None:
    assert row(higher_is_better=False, snatgw=[5.0], nfqueue=[10.0]).ratio("d", "c") == 2
    assert row(higher_is_better=False, snatgw=[10.0], nfqueue=[5.0]).ratio("d", "c") == 0.5


def test_what_was_not_measured_has_no_ratio_and_no_target() -> None:
    made = row(higher_is_better=True, snatgw=[80], nfqueue=[])
    assert made.ratio("d", "c") is None
    assert checks([made], [Alone("x", "no limit", 1.0, "us")]) == []


@pytest.mark.parametrize(("ours", "passed"), [(70.0, True), (69.0, False)])
def test_a_target_is_met_or_missed(ours: float, passed: bool) -> None:
    made = row(higher_is_better=True, snatgw=[ours], nfqueue=[100.0])
    assert [check.passed for check in checks([made], [])] == [passed]


def test_a_limit_is_the_most_that_is_allowed() -> None:
    found = checks([], [Alone("m", "memory", 701, "bytes", 700), Alone("n", "n", 700, "b", 700)])
    assert [check.passed for check in found] == [False, True]


def test_the_table_and_the_document_say_the_same() -> None:
    made = row(higher_is_better=True, snatgw=[60], nfqueue=[100])
    text = table(FACTS, [made], [Alone("m", "memory", 630.2, "bytes", 700)])
    assert "FAIL  a row: d/c: 0.6 (at least 0.7)" in text
    assert "PASS  memory: 630.2 (at most 700)" in text
    written = document(FACTS, [made], [], {}, ["tcp: it would not start"])
    assert written["failed"] == ["tcp: it would not start"]
    assert written["rows"][0]["ratios"] == {"d/c": 0.6}
    assert written["targets"][0]["passed"] is False


def test_other_programs_have_a_table_of_their_own() -> None:
    alone = table(FACTS, [row(higher_is_better=True, snatgw=[60], nfqueue=[100])], [])
    assert "slirp4netns" not in alone
    made = row(higher_is_better=True, snatgw=[60], nfqueue=[100])
    made.add("slirp4netns", 30)
    lines = table(FACTS, [made], []).splitlines()
    own = lines[lines.index("Other programs of user space: (f) slirp4netns  (g) pasta") + 2]
    assert own.split() == ["a", "row", "kpps", "60.00", "-", "30.00", "-", "2.00"]
