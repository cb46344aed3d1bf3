"""What is said and told of the host: what was set again, what is wrong, and what is no more."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.cli.events import in_words
from gateway.daemon.engine_process.host_monitor import HostMonitor

DOWN = "lan0 is down: ip link set lan0 up"
BARE = "wan0 has no IPv4 address: give it one"
SET_AGAIN = "net.ipv4.conf.lan0.forwarding = 1, which was 0, was set again"


class Living:
    """A diverted host, as far as it is looked at."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.again: list[str] = []
        self.dropping: list[str] | None = None
        self.firewall_said: set[str] = set()
        self.renewed: set[str] = set()

    def refresh(self) -> list[str]:
        return self.problems

    def restored(self) -> list[str]:
        again, self.again = self.again, []
        return again

    def firewall(self) -> list[str] | None:
        return self.dropping

    def rules_restored(self) -> int:
        return 0

    rules_moved = rules_restored

    def programmed(self) -> bool:
        return True

    def arp_document(self) -> dict[str, Any]:
        return {}


class Told:
    """A watch, its events and the lines that they are for people."""

    def __init__(self) -> None:
        self.host = Living()
        self.events: list[tuple[str, str]] = []
        self.lines: list[str] = []
        self.watch = HostMonitor(self.host, "none here", self._own_event)  # type: ignore[arg-type]

    def _own_event(self, operation: str, level: str, properties: dict[str, Any]) -> None:
        event = {"category": "GatewayEvent", "operationName": operation, "properties": properties}
        self.events.append((operation, level))
        self.lines.append(in_words(event))

    def look(self, *problems: str, again: str = "") -> list[tuple[str, str]]:
        """The events of one look."""
        before = len(self.events)
        self.host.problems, self.host.again = list(problems), [again] if again else []
        self.watch.tick()
        return self.events[before:]


@pytest.fixture
def told() -> Told:
    return Told()


def test_each_problem_is_said_when_it_comes_and_when_it_is_over(
    told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told.look(DOWN, BARE) == [("HostChanged", "Error")]
    assert told.look(DOWN, BARE) == []
    assert told.look(BARE) == [("HostRestored", "Informational")]
    assert told.watch.status()["since"] is not None
    assert told.look() == [("HostRestored", "Informational")]
    assert told.watch.status()["since"] is None
    assert told.lines == [
        f"HostChanged: {DOWN}; {BARE}",
        f"HostRestored: over: {DOWN}",
        f"HostRestored: over: {BARE}",
    ]
    said = capsys.readouterr().err.splitlines()
    assert said == [DOWN, BARE, f"over: {DOWN}", f"over: {BARE}"]


def test_what_is_set_again_is_told_apart_from_what_is_still_wrong(told: Told) -> None:
    assert told.look(BARE, again=SET_AGAIN) == [
        ("HostRestored", "Warning"),
        ("HostChanged", "Error"),
    ]
    assert told.lines == [
        "HostRestored: set again: net.ipv4.conf.lan0.forwarding = 1, which was 0",
        f"HostChanged: {BARE}",
    ]
    assert told.look(BARE, again=SET_AGAIN) == [("HostRestored", "Warning")]


def test_a_firewall_that_is_opened_is_said(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    told.host.dropping = ["chain forward drops it"]
    told.look()
    told.host.dropping = []
    assert told.look() == [("HostFirewall", "Informational")]
    assert told.lines == [
        "HostFirewall: chain forward drops it",
        "HostFirewall: over: chain forward drops it",
    ]
    assert capsys.readouterr().err.splitlines()[-1] == "over: chain forward drops it"


def test_an_interface_that_was_made_again_is_named(told: Told) -> None:
    told.host.renewed = {"wan0"}
    assert told.look() == [("HostRestored", "Informational")]
    assert told.lines == ["HostRestored: created again, and set up again: wan0"]


@pytest.mark.parametrize("operation", ["HostRestored", "HostFirewall"])
def test_an_end_without_a_name_is_an_end(operation: str) -> None:
    """As earlier versions wrote it."""
    event = {"category": "GatewayEvent", "operationName": operation, "properties": {"problems": []}}
    assert in_words(event) == f"{operation}: over"
