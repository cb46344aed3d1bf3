"""A reload: what is refused, what is answered, and what becomes of a reader that fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from gateway.core.engine import Review
from gateway.core.reload.resolved import Resolved
from gateway.daemon.channel.api_messages import Kind, encode
from gateway.daemon.channel.reload_messages import pack
from gateway.daemon.engine_process import reload as reload_module
from gateway.daemon.engine_process.reload import (
    Outcome,
    Reloader,
    ReloadRefusedError,
    fixed_changes,
)
from gateway.model.configuration import Configuration
from gateway.model.reading.load import load_text
from tests.unit.daemon.serving import NOTHING_DONE

TEXT = """
gateway: {inside: [lan0], outside: wan0, stateDirectory: /tmp/a}
virtualNetwork: {addressPrefixes: [10.0.0.0/16], subnets: [{name: a, addressPrefix: 10.0.1.0/24}]}
publicIPAddresses: [{name: p, ipAddress: 203.0.113.10}]
defaultOutboundAccess: {publicIPAddresses: [p]}
"""


def configuration(text: str = TEXT) -> Configuration:
    loaded = load_text(text, "gateway.yaml")
    assert loaded.configuration is not None, loaded.problems
    return loaded.configuration


def printed(text: str) -> bytes:
    """What the reader prints for a file."""
    return b"".join(pack(load_text(text, "gateway.yaml")))


class Scene:
    """A reloader whose reader is a pipe that the test writes to."""

    def __init__(self) -> None:
        self.writer = -1
        self.started = 0
        self.watched: dict[int, Callable[[], None]] = {}
        self.applied: list[Configuration] = []
        self.steps = 0
        self.refusal: list[str] = []
        self.reviews: list[Review | None] = [Review(0, 0)]
        self.enforced: list[bool] = []
        self.slices: list[Iterator[object]] = []
        self.reports: list[Outcome] = []
        self.answers: list[tuple[Kind, Any]] = []
        self.reloader = Reloader(
            read=self.read,
            watch=self.watched.__setitem__,
            unwatch=self.watched.__delitem__,
            apply=self.apply,
            review=self.review,
            in_slices=lambda work: self.slices.append(work),
            report=self.reports.append,
        )

    def read(self) -> int:
        reader, self.writer = os.pipe()
        self.started += 1
        return reader

    def apply(self, new: Resolved) -> Generator[None, None, list[str]]:
        for _ in range(self.steps):
            yield
        if self.refusal:
            raise ReloadRefusedError(self.refusal)
        self.applied.append(new.configuration)
        return ["something changed"]

    def review(self, enforce: bool) -> Iterator[Review | None]:
        self.enforced.append(enforce)
        yield from self.reviews

    def request(self, *, enforce: bool = False) -> None:
        self.reloader.request(
            lambda kind, payload: self.answers.append((kind, payload)), enforce=enforce
        )

    def turn(self) -> None:
        """A slice of what is done in slices."""
        self.slices = [work for work in self.slices if next(work, self) is not self]

    def reader_prints(self, text: str | bytes) -> None:
        left = memoryview(text.encode() if isinstance(text, str) else text)
        while left:
            left = left[os.write(self.writer, left[:65536]) :]  # as much as a pipe holds
            for readable in list(self.watched.values()):
                readable()
        os.close(self.writer)
        for readable in list(self.watched.values()):  # its end
            readable()
        while self.slices:
            self.turn()


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_good_file_is_carried_out(scene: Scene) -> None:
    scene.request()
    scene.reader_prints(printed(TEXT))
    assert scene.applied == [configuration()]
    assert scene.answers == [(Kind.PART, ["something changed"]), (Kind.END, NOTHING_DONE)]
    assert scene.watched == {}


def test_a_bad_file_changes_nothing_and_every_problem_is_a_line(scene: Scene) -> None:
    scene.request()
    bad = TEXT.replace("ipAddress", "ipAdress").replace("10.0.1.0/24", "10.9.1.0/24")
    scene.reader_prints(printed(bad))
    assert scene.applied == []
    ((kind, problems),) = scene.answers
    assert kind is Kind.FAILED
    assert len(problems) >= 2
    assert all(problem.startswith("gateway.yaml") for problem in problems)


def test_what_a_reader_that_failed_prints_is_no_configuration(scene: Scene) -> None:
    for text in ("", "{", "Traceback (most recent call last)", '{"configuration": 5}'):
        scene.answers.clear()
        scene.request()
        scene.reader_prints(text)
        ((kind, _),) = scene.answers
        assert kind is Kind.FAILED
    assert scene.applied == []


def test_no_more_than_so_many_requests_wait_for_a_reading(scene: Scene) -> None:
    for _ in range(1 + reload_module.MAXIMUM_WAITING + 1000):
        scene.request()
    assert [kind for kind, _ in scene.answers] == [Kind.FAILED] * 1000
    assert scene.started == 1


def test_a_refused_configuration_says_why(scene: Scene) -> None:
    scene.refusal = ["gateway.inside: no"]
    scene.request()
    scene.reader_prints(printed(TEXT))
    assert scene.answers == [(Kind.FAILED, ["gateway.inside: no"])]


def test_requests_during_a_reading_get_another_reading(scene: Scene) -> None:
    good = printed(TEXT)
    scene.request()
    scene.request()
    scene.request()
    assert scene.started == 1
    scene.reader_prints(good)
    assert (scene.started, len(scene.answers)) == (2, 2)
    scene.reader_prints(good)
    assert (scene.started, len(scene.answers)) == (2, 6)


def test_live_flows_are_looked_at_in_slices_before_the_answer(scene: Scene) -> None:
    scene.reviews = [None, None, Review(5, 2)]
    scene.request()
    os.write(scene.writer, printed(TEXT))
    os.close(scene.writer)
    for _ in range(2):
        for readable in list(scene.watched.values()):
            readable()
    while not scene.applied:  # a part of what the reader printed after the other
        scene.turn()
    scene.turn()
    assert (scene.answers, scene.reports) == ([], [])
    scene.request()  # waits for another reading
    assert scene.started == 1
    scene.turn()
    kind, document = scene.answers[1]
    assert (kind, document["refusedFlows"], document["endedFlows"]) == (Kind.END, 5, 2)
    assert (scene.reports[0].refused_flows, scene.reports[0].ended_flows) == (5, 2)
    assert scene.started == 2
    os.close(scene.writer)


def test_flows_are_ended_if_one_of_those_who_wait_wants_that(scene: Scene) -> None:
    good = printed(TEXT)
    scene.request(enforce=True)
    scene.request()
    scene.request(enforce=True)
    scene.reader_prints(good)
    scene.reader_prints(good)
    scene.request()
    scene.reader_prints(good)
    assert scene.enforced == [True, True, False]


def test_a_reader_that_hangs_is_given_up(scene: Scene) -> None:
    scene.reloader.look(100.0)
    scene.request()
    scene.reloader.look(100.0 + reload_module.PATIENCE)
    assert scene.answers == []
    scene.reloader.look(101.0 + reload_module.PATIENCE)
    ((kind, _),) = scene.answers
    assert kind is Kind.FAILED
    assert scene.watched == {}
    os.close(scene.writer)


def test_a_reader_that_never_ends_printing_is_given_up(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_module, "MAXIMUM_OUTPUT", 10)
    scene.request()
    scene.reader_prints("x" * 11)
    ((kind, _),) = scene.answers
    assert kind is Kind.FAILED


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("[lan0]", "[lan0, lan1]", "gateway.inside"),
        ("wan0", "wan1", "gateway.outside"),
        ("/tmp/a", "/tmp/b", "gateway.stateDirectory"),
        ("wan0,", "wan0, timeScale: 60,", "gateway.timeScale"),
    ],
)
def test_what_takes_a_restart(old: str, new: str, field: str) -> None:
    (line,) = fixed_changes(configuration(), configuration(TEXT.replace(old, new)))
    assert line.startswith(f"{field}: ")
    assert "restart" in line


def test_what_takes_none() -> None:
    changed = TEXT.replace("203.0.113.10", "203.0.113.11").replace(
        "wan0,", "wan0, maximumFlows: 5,"
    )
    assert fixed_changes(configuration(), configuration(changed)) == []


@pytest.mark.parametrize("character", ["x", "€"])
def test_what_is_told_of_a_file_fits_into_a_message(character: str) -> None:
    """A channel that refuses one message for ever would cost the API."""
    scene = Scene()
    scene.request()
    unfinished = [f"'{number}{character * 700}'" for number in range(300)]
    text = TEXT + "notCarriedOver: ['" + character * 2_000_000 + f"', {', '.join(unfinished)}]\n"
    scene.reader_prints(printed(text))
    ((kind, problems),) = scene.answers
    assert kind is Kind.FAILED
    assert len(problems) > 50
    assert problems[0].startswith("gateway.yaml")
    assert len(encode(1, kind, problems)) < 300_000
    assert max(map(len, scene.reports[0].problems)) <= 1000
