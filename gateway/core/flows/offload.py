"""Offload of live flows, as the engine sees it.

Something below (the fast path) may take a flow over: its packets then no longer come here. The
engine keeps deciding: it chooses which flows may be offloaded and takes them back before it changes
anything about them, and it asks for what it has missed wherever counters or times matter. What
does it, and how, is none of the core's business; with nothing there, nothing here is called.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gateway.core.flows.flow import Flow
from gateway.core.flows.tcp import Side
from gateway.schema.protocols import TCP

BUSY = 3
"""Packets in one direction after which a UDP flow is worth taking over: questions and answers of
one packet each (DNS) never are."""
NEVER = -1
"""``BUSY`` where nothing takes flows over: no counter is ever that."""


def is_busy(flow: Flow) -> bool:
    """Whether a flow is worth taking over."""
    return flow.protocol == TCP or max(flow.packets_out, flow.packets_in) >= BUSY


class Reported(Protocol):
    """Who is notified of what passed outside the engine."""

    def on_offloaded_segment(
        self, slot: int, flow_id: int, side: Side, flags: int, now: float
    ) -> None:
        """A SYN-ACK, FIN or RST of an offloaded flow passed at ``now``."""


class Carried(NamedTuple):
    """Packets and bytes of a flow that passed elsewhere, and when the last of them did."""

    packets_out: int
    bytes_out: int
    packets_in: int
    bytes_in: int
    last_seen: float


class Offload(Protocol):
    """Takes flows over and gives them back. All of it is quick and never raises."""

    def install(self, flow: Flow, acknowledged: tuple[int, int], *, waits: bool) -> bool:
        """Take a flow over, both directions; False: it cannot (no room), and nothing changed.

        ``acknowledged``: by the VM's side of TCP and by the remote's, as far as known, else 0.
        ``waits``: packets of it may be on their way here, which none may overtake.
        """

    def remove(self, flow: Flow) -> None:
        """Give a flow back: its next packet comes to the engine. ``fold`` was called."""

    def acknowledged(self, flow: Flow) -> tuple[int, int]:
        """What the VM's side and the remote's acknowledged last, of a TCP flow; 0: not known."""

    def report(self, to: Reported) -> int:
        """Report what passed since the last call, or some of it; how many segments."""

    def carried(self, flow: Flow) -> Carried | None:
        """What passed of a flow since the last call; None: nothing."""
