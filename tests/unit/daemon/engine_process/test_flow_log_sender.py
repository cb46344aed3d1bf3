"""Flow log entries go to the API process when a message is full or a second has passed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from gateway.daemon.engine_process import flow_log_sender
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.flow_log_sender import FLOW_LOG_ENTRIES, FlowLogSender
from gateway.daemon.engine_process.request_channel import RequestChannel


class Log(list[Any]):
    """The engine's flow log, as far as entries go."""

    lost = 0
    denials_not_logged = 0

    def take(self, count: int) -> list[Any]:
        taken = self[:count]
        del self[:count]
        return taken

    def leave(self) -> None:
        self.append("how the last flows stand")


class Bench:
    def __init__(self) -> None:
        self.log = Log()
        self.events: list[tuple[str, dict[str, Any]]] = []
        gateway = SimpleNamespace(flow_logs="nsg")
        self.engine: Any = SimpleNamespace(
            flow_log=self.log, configuration=SimpleNamespace(gateway=gateway)
        )
        self.loop = EventLoop(lambda real: real)
        self.channel = RequestChannel()
        self.sender = FlowLogSender(
            self.engine,  # type: ignore[arg-type]
            1.0,
            self.loop,
            self.channel,
            lambda name, level, about: self.events.append((name, about)),
        )
        self.sender.register(self.loop)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(flow_log_sender, "message", Mock(side_effect=lambda *about: about[-1]))
    return Bench()


def test_a_few_wait_for_a_second_and_a_full_message_does_not(bench: Bench) -> None:
    bench.log += range(FLOW_LOG_ENTRIES - 1)
    assert bench.channel.flow_log() is None
    bench.log.append("the last that fits")
    bench.log += ["one more"]
    assert len(bench.channel.flow_log()) == FLOW_LOG_ENTRIES
    assert bench.channel.flow_log() == ["one more"]  # what was begun is finished
    bench.log += ["late"]
    assert bench.channel.flow_log() is None
    bench.sender.tick(1.0)
    assert bench.channel.flow_log() == ["late"]
    assert bench.channel.flow_log() is None


def test_a_stop_sends_everything(bench: Bench) -> None:
    bench.log.append("waits")
    bench.loop.stop()
    assert bench.channel.flow_log() == ["waits", "how the last flows stand"]


def test_entries_that_were_lost_are_told_of(bench: Bench) -> None:
    for real, lost in enumerate((0, 5, 5, 8)):
        bench.log.lost = lost
        bench.sender.tick(float(real))
    assert bench.events == [("FlowLogEntriesLost", {"count": n}) for n in (5, 3)]


def test_flow_logs_may_be_off(bench: Bench) -> None:
    bench.engine.flow_log = None
    bench.sender.tick(1.0)
    bench.loop.stop()
    assert bench.channel.flow_log() is None
    assert bench.sender.status() == {"mode": "off"}
