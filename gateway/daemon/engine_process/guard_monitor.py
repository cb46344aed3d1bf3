"""Monitors the guard on the outside interface: what it stopped, and that another program removed
it. Runs in the engine process.

It stops what got past the gateway's rules, so a count means that another program changed these.
The packets count as drops of the engine's, with a reason of their own.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

from gateway.daemon.console import say, warn
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.host import Diverted
from gateway.datapath.errors import DatapathError
from gateway.schema.drop_reasons import DropReason

INTERVAL = 10.0
"""Seconds (real) between events about packets that it stopped; each has all since the last."""
RESTORED = "another program removed the guard from the outside interface: it was restored"


class GuardMonitor:
    """Checks one gateway's guard, about once a second."""

    def __init__(
        self,
        diverted: Diverted,
        count: Callable[[DropReason, int], None],
        own_event: Callable[[str, str, dict[str, Any]], None],
    ) -> None:
        self._diverted = diverted
        self._count = count
        self._own_event = own_event
        self._dropped = 0
        self._told = 0
        self._due = 0.0
        self._restored = 0
        self._gained = 0

    def register(self, loop: EventLoop) -> None:
        """Hear of changes to filters from now on, and count once a second; before a stop, too: the
        next daemon does not report what is ours to report. Report where there is no guard."""
        guard = self._diverted.guard()
        if not guard.kind:
            warn(f"no guard, the netfilter rules alone keep private addresses in: {guard.problem}")
        elif guard.problem:
            warn(f"the guard stands in {guard.kind}, where tc cannot have it: {guard.problem}")
        loop.add_reader(self._diverted.guard_fileno(), self._filters_changed)
        loop.every(1.0, self.tick)
        loop.at_stop(lambda: self.tick(math.inf))

    def _filters_changed(self) -> None:
        # What cannot be restored at once, ``HostMonitor`` tries again, and reports.
        with contextlib.suppress(DatapathError, OSError):
            self._diverted.restore_guard()

    def tick(self, real: float) -> None:
        """Count what it stopped, and report it now and then."""
        told, guard = self._told, self._diverted.guard()
        if guard.dropped > self._dropped:
            # What it stopped before the start is reported, and is no drop of this gateway's.
            grown = guard.dropped - max(self._dropped, guard.meanwhile)
            if grown > 0 and not guard.shared:
                self._count(DropReason.PRIVATE_ADDRESS_OUTSIDE, grown)
            self._dropped = guard.dropped
        if self._told < guard.meanwhile:
            self._tell(guard.meanwhile, shared=guard.shared, meanwhile=True)
        if self._told < self._dropped and real >= self._due:
            self._tell(self._dropped, shared=guard.shared)
            self._due = real + INTERVAL
        if self._told != told:
            self._diverted.guard_drops_reported()
        if guard.restored != self._restored:
            self._restored = guard.restored
            warn(RESTORED)
            self._own_event("GuardRestored", "Warning", {"times": guard.restored})

        if guard.gained != self._gained:
            self._gained = guard.gained
            say(f"a guard is active on the outside interface now ({guard.kind})")
            self._own_event("GuardGained", "Informational", {"kind": guard.kind})

    def _tell(self, total: int, *, shared: bool, meanwhile: bool = False) -> None:
        number, self._told = total - self._told, total
        properties = {
            "count": number,
            "total": total,
            "whileNoGatewayRan": meanwhile,
            "otherFilters": shared,
        }
        self._own_event("GuardDroppedPackets", "Warning", properties)
        when = ", while no gateway ran" if meanwhile else ""
        warn(
            f"at most {number} packets were stopped by the guard{when}: filters of other programs "
            "on the outside interface drop packets into the same counter"
            if shared
            else f"the guard stopped {number} packets with a private address that were about to "
            f"leave{when or ': they had got past the rules that this gateway has in netfilter'}"
        )

    def status(self) -> dict[str, Any]:
        """The guard in a status."""
        guard = self._diverted.guard()
        if not guard.kind:
            return {"active": False, "reason": guard.problem}
        status = {"active": True, "dropped": guard.dropped, "restored": guard.restored}
        return status | ({"kind": guard.kind, "reason": guard.problem} if guard.problem else {})
