"""The screen of ``snatgw top``: panes, keys, and the stream of samples that feeds them.

One worker reads ``/v1/live``. What the table shows (filter, order) is the stream's query: to change
it is to begin another stream, whose first sample comes at once. While paused there is no stream,
and the daemon has no work. A daemon that ends is waited for, and the screen shows it.

Timers and the worker belong to the application and outlive its screens, which end first: whatever
they call returns at once where the application no longer runs (``is_running``). What is on the main
screen is looked up there (``_below``), since a window may be over it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import Any, ClassVar

from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Footer, Input, Static

from gateway.tui import event_rows, flow_rows, port_rows, summary
from gateway.tui.details import EventDetails, FlowDetails
from gateway.tui.help import Help
from gateway.tui.listing import Listing
from gateway.tui.source import LostError, RefusedError, Sample, Source
from gateway.tui.style import STYLE
from gateway.tui.terminal import Terminal

PANES = ("flows", "ports", "probes", "events")
KEPT_EVENTS = 500
EVENTS_AT_ONCE = 100
"""Past events to ask for when a stream begins."""
RETRY_SECONDS = 1.0
TYPING_SECONDS = 0.25
"""Without a key, until a filter is asked for."""
SCROLL_BAR = 2
"""Cells at the right of a list, the one that keeps the bar off the text among them."""
SILENCE_SECONDS = 5.0
"""Without a sample where one was due, until the screen shows it."""


class Top(App[None]):
    """``query`` is the first one; ``path`` the daemon's socket."""

    CSS = STYLE
    ENABLE_COMMAND_PALETTE = False
    TITLE = "snatgw top"
    BINDINGS: ClassVar[list[BindingType]] = [
        # ahead of the panes: letters that come right after it are the filter's already
        Binding("slash", "filter", "Filter", key_display="/", priority=True),
        # and those after this one are not
        Binding("enter", "filter_done", show=False, priority=True),
        Binding("less_than_sign", "order(-1)", "Sort", key_display="< >"),
        Binding("greater_than_sign", "order(1)", "Sort", show=False),
        Binding("r", "reverse", "Reverse"),
        Binding("p,space", "pause", "Pause", key_display="p"),
        Binding("z", "zoom", "Zoom"),
        Binding("question_mark", "help", "Keys", key_display="?"),
        Binding("q,ctrl+c", "quit", "Quit", key_display="q"),
        Binding("tab", "app.focus_next", "Next pane", show=False),
        Binding("escape", "clear", "Clear", key_display="Esc"),
    ]

    def __init__(self, path: str, query: Mapping[str, str]) -> None:
        super().__init__(driver_class=Terminal, ansi_color=True)
        self._source = Source(path)
        self._query = {"sort": flow_rows.DEFAULT_SORT, "limit": "200", **query}
        self._sample: Sample | None = None
        self._sampled_at = 0.0
        self._events: dict[str, dict[str, Any]] = {}
        """By their own text, the latest last."""
        self._paused = False
        self._lost_at: float | None = None
        self._refused = False
        self._typing: Timer | None = None
        self._zoomed: str | None = None

    # -- layout

    def compose(self) -> ComposeResult:
        yield Static(id="figures")
        yield Static(id="losses")
        yield Static(id="trouble", markup=False)
        yield Static(id="shown")
        yield Input(placeholder="words that a flow must have", id="filter", compact=True)
        yield Listing(flow_rows.columns(self._query["sort"], 80), id="flows")
        yield Listing(port_rows.columns(80), id="ports")
        yield Listing(event_rows.PROBE_COLUMNS, id="probes")
        yield Listing(event_rows.EVENT_COLUMNS, id="events")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.theme = "ansi-dark"
        self.query_one("#figures", Static).update("waiting for the first sample")
        self.query_one("#flows").focus()
        field = self.query_one("#filter", Input)
        field.value = self._query.get("match", "")
        field.display = False
        for name in ("trouble", "probes"):
            self.query_one(f"#{name}").display = False
        self.set_interval(1.0, self._look_at_the_clock)
        self._watch()

    def on_resize(self) -> None:
        self._draw()

    # -- the stream

    @work(exclusive=True, group="stream", exit_on_error=True)
    async def _watch(self) -> None:
        """Samples until another stream takes over; one only while paused."""
        if not self.is_running:
            return
        query = self._wanted()
        self._refused = False
        while True:
            try:
                async with aclosing(self._source.samples(query)) as samples:
                    first = True
                    async for sample in samples:
                        self._take(sample)
                        if first:
                            self._take_events(await self._source.events(EVENTS_AT_ONCE))
                            first = False
                        if self._paused:
                            return
            except LostError as error:
                self._lose(str(error))
            except RefusedError as error:
                self._refused = True
                self._say(str(error))
                return
            await asyncio.sleep(RETRY_SECONDS)

    def _wanted(self) -> dict[str, str]:
        screen = self.screen
        if isinstance(screen, FlowDetails):
            return screen.query_for_it
        return self._query

    def _take(self, sample: Sample) -> None:
        if not self.is_running:
            return
        if self._lost_at is not None:
            self._lost_at = None
            self.notify("the daemon is back")
        if self._below("#trouble").display:
            self._below("#trouble").display = False
        self._sampled_at = time.monotonic()
        self._take_events(sample["events"])
        if isinstance(self.screen, FlowDetails):
            self.screen.show(sample)
            if self._sample is not None:  # the table waits as it was
                sample = {**sample, "flows": self._sample["flows"]}
        self._sample = sample
        self._draw()

    def _take_events(self, events: Iterable[dict[str, Any]]) -> None:
        """Those that are not there yet: between two streams there is a gap, and an overlap."""
        if not self.is_running:
            return
        known = len(self._events)
        for event in events:
            self._events.setdefault(json.dumps(event, sort_keys=True), event)
        if len(self._events) > known:
            latest = sorted(self._events.items(), key=lambda item: item[1]["time"])[-KEPT_EVENTS:]
            self._events = dict(latest)
            self._fit(self._listing("events"), len(self._events))
            self._listing("events").show(event_rows.rows(self._events))

    def _lose(self, reason: str) -> None:
        if self._lost_at is None:
            self._lost_at = time.monotonic()
        waited = time.monotonic() - self._lost_at
        self._say(f"no daemon: trying again for {waited:.0f} s; {reason}")

    def _look_at_the_clock(self) -> None:
        if self._paused or self._sample is None or self._lost_at is not None or self._refused:
            return
        silent = time.monotonic() - self._sampled_at
        usual = 2 * (self._sample.get("sampleSeconds") or 1.0)
        if silent > max(SILENCE_SECONDS, usual):
            self._say(f"no sample for {silent:.0f} s: the daemon is busy or stuck")

    def _say(self, text: str) -> None:
        if not self.is_running:
            return
        trouble = self._below("#trouble")
        assert isinstance(trouble, Static)
        trouble.update(text)
        trouble.display = True

    # -- drawing

    def _below(self, selector: str) -> Any:
        """Of the main screen, whatever window is over it."""
        return self.screen_stack[0].query_one(selector)

    def _listing(self, name: str) -> Listing:
        listing = self._below(f"#{name}")
        assert isinstance(listing, Listing)
        return listing

    def _draw(self) -> None:
        sample = self._sample
        if sample is None or not self.is_running:
            return
        room = self.size.width
        self._below("#figures").update(summary.figures(sample))
        self._below("#losses").update(summary.losses(sample))
        shown = summary.shown(sample, self._query)
        if self._paused:
            shown = summary.paused(shown)
        self._below("#shown").update(shown)
        columns = flow_rows.columns(self._query["sort"], room - SCROLL_BAR)
        self._listing("flows").show(flow_rows.rows(sample["flows"]["rows"]), columns)
        ports = port_rows.columns(room - SCROLL_BAR)
        pools = port_rows.rows(sample["ports"], ports)
        self._fit(self._listing("ports"), len(pools))
        self._listing("ports").show(pools, ports)
        backends = (sample.get("health") or {}).get("backends")
        self._listing("probes").display = bool(backends) and self._zoomed in (None, "probes")
        if backends:
            rows = event_rows.probe_rows(backends)
            self._fit(self._listing("probes"), len(rows))
            self._listing("probes").show(rows)
        self._fit(self._listing("events"), len(self._events))

    def _fit(self, listing: Listing, rows: int) -> None:
        """At most the lines that a short list needs."""
        listing.styles.max_height = None if self._zoomed == listing.id else max(rows, 1) + 1

    # -- keys

    def action_filter(self) -> None:
        """Type a filter."""
        field = self.query_one("#filter", Input)
        field.display = True
        self.screen.set_focus(field)  # field.focus() would do so later

    def action_clear(self) -> None:
        """Close the filter; with nothing to close, show everything again."""
        field = self.query_one("#filter", Input)
        if field.value:
            field.value = ""
        field.display = False
        self.screen.set_focus(self._listing("flows"))

    @on(Input.Changed, "#filter")
    def _typed(self) -> None:
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(TYPING_SECONDS, self._apply_filter)

    def check_action(self, action: str, _parameters: tuple[object, ...]) -> bool | None:
        """Enter is the filter's while that is open, else the focused widget's. Under a window,
        which keys that have priority would pass by, the main screen's actions wait."""
        if action == "filter":
            return len(self.screen_stack) == 1
        return action != "filter_done" or getattr(self.focused, "id", "") == "filter"

    def action_filter_done(self) -> None:
        """Keep what was typed, and go back to the flows."""
        self._apply_filter()
        self.query_one("#filter", Input).display = False
        self.screen.set_focus(self._listing("flows"))

    def _apply_filter(self) -> None:
        if self._typing is not None:
            self._typing.stop()
            self._typing = None
        if not self.is_running:
            return
        words = self._below("#filter").value.strip()
        if words == self._query.get("match", ""):
            return
        changed = {name: value for name, value in self._query.items() if name != "match"}
        if words:
            changed["match"] = words
        self._ask(changed)

    def _ask(self, query: dict[str, str]) -> None:
        self._query = query
        self._watch()

    def action_order(self, step: int) -> None:
        """Sort by another column."""
        order = flow_rows.next_order(self._query["sort"], step)
        self._ask({**self._query, "sort": order})

    def action_reverse(self) -> None:
        """Turn the order round."""
        self._ask({**self._query, "sort": flow_rows.reversed_order(self._query["sort"])})

    @on(Listing.HeadClicked, "#flows")
    def _head_clicked(self, message: Listing.HeadClicked) -> None:
        order = flow_rows.sorted_by(message.column, self._query["sort"])
        self._ask({**self._query, "sort": order})

    def action_pause(self) -> None:
        """Hold the screen still, or let it go on."""
        self._paused = not self._paused
        if self._paused:
            self.workers.cancel_group(self, "stream")
            self._draw()
        else:
            self._watch()

    def action_zoom(self) -> None:
        """Give one pane the whole screen, or all their places."""
        focused = self.focused.id if isinstance(self.focused, Listing) else "flows"
        self._zoomed = focused if self._zoomed is None else None
        for name in PANES:
            listing = self._listing(name)
            listing.set_class(name == self._zoomed, "zoomed")
            listing.display = self._zoomed in (None, name)
        self._draw()

    def action_help(self) -> None:
        """Explain the screen."""
        self.push_screen(Help())

    @on(Listing.Chosen, "#flows")
    def _flow_chosen(self, message: Listing.Chosen) -> None:
        assert self._sample is not None
        rows = self._sample["flows"]["rows"]
        flow = next((flow for flow in rows if str(flow["id"]) == message.key), None)
        if flow is not None:
            self._open(FlowDetails(flow))

    @on(Listing.Chosen, "#ports")
    def _pool_chosen(self, message: Listing.Chosen) -> None:
        """The flows that hold these ports."""
        if not self.is_running:
            return
        self._below("#filter").value = message.key
        self._apply_filter()
        self.screen_stack[0].set_focus(self._listing("flows"))

    @on(Listing.Chosen, "#events")
    def _event_chosen(self, message: Listing.Chosen) -> None:
        event = self._events.get(message.key)
        if event is not None:
            self.push_screen(EventDetails(event))

    def _open(self, screen: Screen[None]) -> None:
        def closed(_: None) -> None:
            self._watch()

        self.push_screen(screen, closed)
        self.call_after_refresh(self._watch)
