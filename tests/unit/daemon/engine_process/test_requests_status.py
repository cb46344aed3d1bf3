"""The status is what the engine and each part of the gateway say."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.daemon.channel.api_messages import Kind, Request
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.requests_status import StatusRequests
from tests.unit.daemon.serving import judging_engine, requests_with


def test_each_part_has_its_section() -> None:
    loop = EventLoop(lambda real: real)
    loop.packets = 12
    sections = {"queue": lambda: {"waiting": 1}, "captures": lambda: 2}
    status = StatusRequests(judging_engine(), Path("/etc/snatgw.yaml"), 60.0, loop, sections)
    (step,) = requests_with(status.handlers).answer(
        Request(1, "status"), lambda kind, payload: None
    )
    assert step is not None
    kind, told = step
    assert kind is Kind.END
    assert (told["queue"], told["captures"], told["packets"]) == ({"waiting": 1}, 2, 12)
    assert (told["pid"], told["configuration"]) == (os.getpid(), "/etc/snatgw.yaml")
    assert (told["timeScale"], told["flows"], told["inside"]) == (60.0, 0, ["lan0"])
    assert told["uptimeSeconds"] >= 0.0
