"""The engine's events and the gateway's own go to the channel; those that were lost are one."""

from __future__ import annotations

import os
import time
from typing import Any
from unittest.mock import Mock

import pytest

from gateway.core.events import FlowsEnded
from gateway.daemon.channel.json_views import iso
from gateway.daemon.engine_process.clock import Clock
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.event_publisher import EventPublisher


@pytest.fixture
def channel() -> Any:
    return Mock(events_lost=0, is_connected=True)


@pytest.fixture
def publisher(channel: Any) -> EventPublisher:
    return EventPublisher(channel, Clock(base=0.0, scale=1.0))


def posted(channel: Any) -> list[tuple[str, dict[str, Any]]]:
    events = [call.args[0] for call in channel.post.call_args_list]
    return [(event["operationName"], event["properties"]) for event in events]


def test_an_event_of_the_engine_has_the_time_at_which_it_was(
    publisher: EventPublisher, channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 50.0)
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    publisher.post_engine_event(FlowsEnded(48.0, 3, "their VM is gone"))
    (event,) = (call.args[0] for call in channel.post.call_args_list)
    assert event["time"] == iso(998.0)


def test_lost_events_are_told_of_once_somebody_is_there(
    publisher: EventPublisher, channel: Any
) -> None:
    publisher.tick(0.0)
    channel.events_lost, channel.is_connected = 7, False
    publisher.tick(1.0)
    assert posted(channel) == []
    channel.is_connected = True
    publisher.tick(2.0)
    publisher.tick(3.0)
    assert posted(channel) == [("EventsLost", {"count": 7})]
    assert publisher.status() == {"lost": 7}


def test_a_stop_is_an_event(publisher: EventPublisher, channel: Any) -> None:
    loop = EventLoop(lambda real: real)
    publisher.register(loop)
    loop.stop()
    assert posted(channel) == [("Stopped", {"pid": os.getpid()})]
