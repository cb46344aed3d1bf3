"""What the keys do and what the screen shows, in a window over it."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label, Static

TEXT = """\
/          filter flows while typing; Esc shows all again
< >        order by another column; a click on its head, too
r          turn the order round
Tab        next pane: flows, SNAT ports, probes, events
↑ ↓ j k    move; PgUp, PgDn, Home, End; ← → sideways
Enter      a flow or an event whole; of SNAT ports their flows
z          one pane on the whole screen, and back
p, Space   hold the screen; the daemon has no work then
q          quit

SNAT ports: █ held by live flows  ▓ cooling down  | high-water mark
  red from 90% of the allocation, yellow from 70%; FAILED counts
  packets that found no port.
Flows: rates are per second; IDLE, EXPIRES and AGE are Azure's
  seconds (with timeScale 60, sixty of them pass in one)."""


class Help(ModalScreen[None]):
    """Any of the keys that close windows closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,question_mark", "dismiss", "Back", key_display="Esc")
    ]

    def compose(self) -> ComposeResult:
        with Vertical(id="window"):
            yield Label("snatgw top: keys (Esc goes back)", id="title")
            yield Static(TEXT, id="text", markup=False)
