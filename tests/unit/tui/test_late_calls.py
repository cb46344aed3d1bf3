"""Timers, samples and keys that come when their screen is not there: no traceback ends ``top``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.worker import WorkerCancelled

from gateway.tui.app import Top
from gateway.tui.details import FlowDetails
from gateway.tui.listing import Listing
from tests.unit.daemon.serving import Served, flow
from tests.unit.tui.screen import hides, shows
from tests.unit.tui.test_app import play

SAMPLE_WITH_EVENTS = {"events": [{"time": "2026-01-01T00:00:00.000Z"}]}


def _take(app: Top) -> None:
    assert app._sample is not None
    app._take({**app._sample, **SAMPLE_WITH_EVENTS})


def _choose_a_pool(app: Top) -> None:
    app._pool_chosen(Listing.Chosen(Listing((), id="ports"), "vm1"))


LATE: dict[str, Callable[[Top], object]] = {
    "the filter's timer": lambda app: app._apply_filter(),
    "the clock": lambda app: app._look_at_the_clock(),
    "a sample": _take,
    "past events": lambda app: app._take_events(SAMPLE_WITH_EVENTS["events"]),
    "a lost daemon": lambda app: app._lose("gone"),
    "another stream": lambda app: app._watch(),
    "a window that closes": lambda app: app._ask({"sort": "vm"}),
    "a resize": lambda app: app.on_resize(),
    "a pool that was chosen": _choose_a_pool,
}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE.keys())
def test_what_is_called_after_the_screens_are_gone_does_nothing(
    tmp_path: Path, late: Callable[[Top], object]
) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        app = pilot.app
        assert isinstance(app, Top)
        app._sampled_at -= 3600.0  # the clock would say so
        await app._shutdown()  # as run_test does at its end: screens first, then timers
        assert app.screen_stack == []
        app.workers.cancel_all()
        late(app)
        for worker in list(app.workers):
            with contextlib.suppress(WorkerCancelled):
                await worker.wait()

    play(tmp_path, test)


def test_the_filters_timer_may_outlive_its_screen(tmp_path: Path) -> None:
    """The time between the last letter and the timer is when a user presses ``q``."""

    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        app = pilot.app
        assert isinstance(app, Top)
        app.workers.cancel_all()
        await pilot.press("slash", *"udp")
        timer = app._typing
        assert timer is not None
        for stack in app._screen_stacks.values():
            app._running = False
            stack.clear()
        await timer._tick(next_timer=0.0, count=1)

    play(tmp_path, test)


def test_a_sample_may_come_before_the_window_is_composed(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        app = pilot.app
        assert isinstance(app, Top)
        assert app._sample is not None
        window = FlowDetails(app._sample["flows"]["rows"][0])
        app._open(window)  # is on the stack now, and empty
        app._take(app._sample)
        await shows(pilot, "bytes a second")

    play(tmp_path, test)


def test_the_filters_key_waits_under_a_window(tmp_path: Path) -> None:
    async def test(pilot: Pilot[Any], daemon: Served) -> None:
        daemon.engine.flows = [flow(1)]
        await shows(pilot, "1 flow")
        await pilot.press("enter")
        await shows(pilot, "bytes a second")
        await pilot.press("slash")
        await pilot.press("escape")
        await hides(pilot, "bytes a second")
        await pilot.press("slash", *"tcp")
        await shows(pilot, '1 of 1 match "tcp"')

    play(tmp_path, test)
