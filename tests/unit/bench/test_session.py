"""What becomes of a run in which something cannot be measured, and which losses are borne."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import __main__ as command
from bench.namespaces import BenchError
from bench.session import ALL_FLOWS, Bench, fill


def test_a_measurement_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(bench: Bench) -> None:
        raise BenchError("nothing arrived")

    def succeed(bench: Bench) -> None:
        bench.row("good", "a row", "kpps").add("snatgw", 1.0)

    monkeypatch.setattr(command, "MEASUREMENTS", {"bad": fail, "good": succeed})
    monkeypatch.setattr(command, "NEEDED", {"bad": (), "good": ()})
    monkeypatch.setattr(command, "Loads", lambda directory: None)
    monkeypatch.setattr("bench.namespaces.remove_left_over", lambda: None)
    bench = command._measure(["bad", "good"], 1.0, 1, lambda line: None)
    assert [row.title for row in bench.rows] == ["a row"]
    assert bench.failed == ["bad: nothing arrived"]


@pytest.mark.parametrize(("name", "lost", "borne"), [
    ("masquerade", 3, True), ("masquerade", 100, False), ("snatgw", 1, False), ("snatgw", 0, True),
])  # fmt: skip
def test_only_the_kernel_may_lose_a_few_syns(name: str, lost: int, borne: bool) -> None:
    said = SimpleNamespace(received=ALL_FLOWS - lost, per_second=1e5)
    loads: Any = SimpleNamespace(flood=lambda *_, **__: said)
    bench = Bench(loads, {}, 1.0, 1, print)
    gateway: Any = SimpleNamespace(name=name, wires=Path())
    row = bench.row("new-flows", "new flows", "k/s")
    if borne:
        fill(bench, gateway, 1, row)
        assert row.rounds[name] == [100.0]
    else:
        with pytest.raises(BenchError, match=f"{ALL_FLOWS - lost} of"):
            fill(bench, gateway, 1, row)
