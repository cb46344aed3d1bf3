"""One flow, or one event, whole: a window over the screen that Escape closes.

It names the query that finds its flow, is given that again with each sample, and keeps the rates of
the last minute; it asks the
daemon for nothing itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Footer, Label, Sparkline, Static

from gateway.cli.tables import endpoint, seconds, size
from gateway.tui.event_rows import what

KEPT_RATES = 60
_CLOSE: list[BindingType] = [
    Binding("escape,enter,q", "dismiss", "Back", key_display="Esc"),
]


class FlowDetails(ModalScreen[None]):
    """A flow, as the samples that ``query`` asks for have it."""

    BINDINGS: ClassVar[list[BindingType]] = _CLOSE

    def __init__(self, flow: Mapping[str, Any]) -> None:
        super().__init__()
        self.flow = flow
        self._rates: deque[float] = deque(maxlen=KEPT_RATES)

    @property
    def query_for_it(self) -> dict[str, str]:
        """The query whose rows have this flow and next to no other."""
        flow = self.flow
        private, remote = flow["private"], flow["remote"]
        words = f"{private['ip']}:{private['port']} {flow['protocol']}"
        return {
            "remote": f"{remote['ip']}:{remote['port']}",
            "match": words,
            "sort": "-id",
            "limit": "100",
        }

    def compose(self) -> ComposeResult:
        with Vertical(id="window"):
            yield Label(f"Flow {self.flow['id']}", id="title")
            yield Static(id="text")
            yield Label("bytes a second", id="caption")
            yield Sparkline([], id="spark")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#text", Static).update(_text(self.flow))

    def show(self, sample: Mapping[str, Any]) -> None:
        """Take the next sample; one that comes before the window is composed is left out."""
        if not self.is_mounted:
            return
        found = (f for f in sample["flows"]["rows"] if f["id"] == self.flow["id"])
        flow = next(found, None)
        title = self.query_one("#title", Label)
        if flow is None:
            title.update(f"Flow {self.flow['id']}: it has ended and is no longer in the table")
            return
        self.flow = flow
        title.update(f"Flow {flow['id']}")
        self.query_one("#text", Static).update(_text(flow))
        if flow["bytesOutPerSecond"] is not None:
            self._rates.append(flow["bytesOutPerSecond"] + flow["bytesInPerSecond"])
            self.query_one("#spark", Sparkline).data = list(self._rates)


class EventDetails(ModalScreen[None]):
    """An event with all that it says."""

    BINDINGS: ClassVar[list[BindingType]] = _CLOSE

    def __init__(self, event: Mapping[str, Any]) -> None:
        super().__init__()
        self._event = event

    def compose(self) -> ComposeResult:
        event = self._event
        with Vertical(id="window"):
            yield Label(f"{event.get('level')}: {event.get('operationName')}", id="title")
            lines = [
                _line("time", event["time"]),
                _line("category", str(event.get("category"))),
                _line("resource", str(event.get("resource"))),
                "",
                what(event),
            ]
            yield Static("\n".join(lines), id="text", markup=False)
        yield Footer(show_command_palette=False)


def _text(flow: Mapping[str, Any]) -> str:
    state = flow["state"] + (", awaiting removal" if flow.get("awaitingRemoval") else "")
    where = "in the kernel's fast path" if flow.get("offloaded") else "in the engine"
    lines = [
        _line("state", f"{state}; {flow['protocol']}, {flow['direction']}"),
        _line("method", flow["method"]),
        _line("VM", flow["vm"]),
        _line("private", endpoint(flow["private"])),
        _line("public", endpoint(flow["public"])),
        _line("remote", endpoint(flow["remote"])),
        _line("out", _carried(flow, "Out")),
        _line("in", _carried(flow, "In")),
        _line(
            "age",
            f"{seconds(flow['ageSeconds'])}, idle {seconds(flow['idleSeconds'])}, "
            f"expires in {seconds(flow['expiresInSeconds'])}",
        ),
        _line("packets", f"pass {where}"),
    ]
    return "\n".join(lines)


def _carried(flow: Mapping[str, Any], way: str) -> str:
    packets, carried = flow[f"packets{way}"], flow[f"bytes{way}"]
    bytes_rate, packet_rate = flow[f"bytes{way}PerSecond"], flow[f"packets{way}PerSecond"]
    now = "" if bytes_rate is None else (
        f"; now {size(round(bytes_rate))}B/s, {packet_rate:.0f} packets/s"
    )  # fmt: skip
    return f"{packets:,} packets, {size(carried)}B{now}"


def _line(name: str, value: str) -> str:
    return f"{name:<9} {value}"
