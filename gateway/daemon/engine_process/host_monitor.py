"""Keeps the host as the gateway needs it: what interfaces lose, and rules that other programs
remove. Runs in the engine process.

An ``nft flush ruleset`` (a firewall that restarts) removes the gateway's rules as well while
forwarding is on: that is noticed at once, interfaces are closed until the rules are back, and it is
reported. So is what becomes of interfaces, addresses, routes, neighbours and settings: at once, but
not more than once a second.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

from gateway.daemon.channel.json_views import iso
from gateway.daemon.console import Level, say, warn
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.host import Diverted
from gateway.datapath.fastpath import FastPath
from gateway.datapath.host.teardown import Collecting

RULES_INTERVAL = 0.1
"""Seconds (real) between checks of rules that another program changes again and again: each takes
two milliseconds, in which no packet passes. What takes longer, because rules are set again, has as
long a pause."""
NETWORK_INTERVAL = 1.0
"""Seconds (real) between checks of the network while it changes again and again."""
RULES_MOVED = (
    "another program put netfilter rules where this gateway's must stand: its own were moved"
)
RULES_RESTORED = (
    "another program removed or changed this gateway's netfilter rules: they were set again"
)


class HostMonitor:
    """Looks after one diverted host. ``fast_path``: it, or why there is none."""

    def __init__(
        self,
        diverted: Diverted,
        fast_path: FastPath | str,
        own_event: Callable[[str, str, dict[str, Any]], None],
    ) -> None:
        self._diverted = diverted
        self._fast_path = fast_path
        self._own_event = own_event
        self._unrestored: list[str] = []
        self._since = 0.0
        self._restored = 0
        self._network_due = 0.0
        self._rules_restored = 0
        self._rules_moved = 0
        self._firewall: list[str] = []
        self._rules_due = 0.0

    def register(self, loop: EventLoop) -> None:
        """Hear of changes to the host's rules and network from now on, and look once a second."""
        loop.add_reader(self._diverted.fileno(), self._rules_changed)
        loop.add_reader(self._diverted.network_fileno(), self._network_changed)
        probes = self._diverted.probes_fileno()
        if probes >= 0:
            loop.add_reader(probes, self._diverted.answer_probes)
        loop.every(1.0, lambda real: self.tick())

    def status(self) -> dict[str, Any]:
        """The host in a status: what is wrong with it, since when, and what was put right."""
        since = iso(self._since) if self._unrestored else None
        return {
            "problems": self._unrestored,
            "since": since,
            "restored": self._restored,
            **self._diverted.arp_document(),
        }

    def tick(self) -> None:
        """Restore what is missing: an interface that was down has lost routes and addresses."""
        # The collector is off for what lives; what netlink leaves behind is young and in cycles.
        gc.freeze()
        diverted = self._diverted
        problems: list[str] = []
        dropping: list[str] | None = None
        # What fails on a living host (no memory, no descriptors, a command that hangs, an interface
        # that went meanwhile) is one warning, and tried again by the next look.
        with Collecting(problems):
            problems += diverted.refresh()
        with Collecting(problems):
            dropping = diverted.firewall()
        gc.collect()
        self._tell_of_network(problems, diverted.restored())
        if diverted.rules_restored() != self._rules_restored:
            self._rules_restored = diverted.rules_restored()
            warn(RULES_RESTORED)
            self._own_event("RulesRestored", "Warning", {"times": self._rules_restored})
        if diverted.rules_moved() != self._rules_moved:
            self._rules_moved = diverted.rules_moved()
            warn(RULES_MOVED)
            self._own_event("RulesMoved", "Warning", {"times": self._rules_moved})
        self._tell_of_firewall(diverted, dropping)
        if diverted.renewed and diverted.programmed():
            self._renew(sorted(diverted.renewed))
            diverted.renewed.clear()

    def _tell_of_network(self, problems: list[str], restored: list[str]) -> None:
        """What was set again, which problems have ended, and which are new."""
        self._restored += len(restored)
        for line in restored:
            warn(line)
        over = _say_over(self._unrestored, problems)
        if restored or over:
            level = "Warning" if restored else "Informational"
            self._own_event("HostRestored", level, {"restored": restored, "over": over})
        new = [problem for problem in problems if problem not in self._unrestored]
        if new:
            if not self._unrestored:
                self._since = time.time()
            for problem in new:
                say(problem, Level.ERROR)
            self._own_event("HostChanged", "Error", {"problems": problems})
        self._unrestored = problems

    def _tell_of_firewall(self, diverted: Diverted, problems: list[str] | None) -> None:
        """The host's own rules may drop what the gateway has passed."""
        if problems is None or problems == self._firewall:
            return
        for problem in problems:
            if problem not in (*self._firewall, *diverted.firewall_said):
                warn(problem)
        diverted.firewall_said.clear()
        over = _say_over(self._firewall, problems)
        level = "Warning" if problems else "Informational"
        self._own_event("HostFirewall", level, {"problems": problems, "over": over})
        self._firewall = problems

    def _rules_changed(self) -> None:
        """Check ours at once, but not again and again."""
        self._diverted.look_at_rules()
        real = time.monotonic()
        if real >= self._rules_due:
            self.tick()
            now = time.monotonic()
            self._rules_due = now + max(RULES_INTERVAL, now - real)

    def _network_changed(self) -> None:
        """Check at once, but not again and again: what is left is checked within a second."""
        matters = self._diverted.look_at_network()
        real = time.monotonic()
        if matters and real >= self._network_due:
            self._network_due = real + NETWORK_INTERVAL
            self.tick()

    def _renew(self, interfaces: list[str]) -> None:
        """Interfaces were removed and created again, and have their rules: now the rest."""
        self._own_event("HostRestored", "Informational", {"interfaces": interfaces})
        say(f"{', '.join(interfaces)}: removed and created again, and set up again")
        if isinstance(self._fast_path, str):
            return
        problems: list[str] = []
        with Collecting(problems):
            self._fast_path.renew()
        if problems:
            lines = [f"no fast path until a restart: {line}" for line in problems]
            for line in lines:
                say(line, Level.ERROR)
            self._own_event("HostChanged", "Error", {"problems": lines})


def _say_over(before: list[str], problems: list[str]) -> list[str]:
    """The earlier problems that no longer exist, each logged."""
    over = [problem for problem in before if problem not in problems]
    for problem in over:
        say(f"over: {problem}")
    return over
