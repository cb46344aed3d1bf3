"""One gateway's rules in the kernel: loaded, and still as they were meant.

What stands after loading is compared with the plan, never taken for right because it stands:
another program may flush between the two. The notifications of our own loading lead to one more
check, and that is cheap (``rule_fingerprints.py``); none is discarded, since it may have been
another program's.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from functools import partial

from gateway.datapath.errors import DatapathError
from gateway.datapath.host import fragment_marks as fragments
from gateway.datapath.host.jump_placement import Place as Where
from gateway.datapath.host.netfilter import IPV4, IPV6
from gateway.datapath.host.netfilter_rules import (
    PREFIX,
    Chain,
    DiversionPlan,
    ipv4_chains,
    ipv6_chains,
    ipv6_is_forwarded,
)
from gateway.datapath.host.rule_counters import RuleCounters
from gateway.datapath.host.rule_fingerprints import (
    WHOLE_TABLE,
    Place,
    legacy_mark,
    legacy_sizes,
    mark,
)

ATTEMPTS = 5
"""Times that rules are loaded again when others flush them meanwhile."""

SHARE = 0.01
"""Of a processor, at most, that repeated checks of every rule of the legacy tables take."""
LONGEST_PAUSE = 60.0

_Standing = tuple[list[str], list[str], list[str]]  # of iptables, ip6tables and nft


class Ruleset:
    """The rules of one instance. Failures are DatapathError."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        """``spent``: seconds of a processor that this thread has had."""
        self._monotonic, self._spent = monotonic, spent
        self._instance = ""
        self._places: list[Place] = []
        self._standing: _Standing = [], [], []
        self._mark = b""
        self._chains: list[Chain] = []
        self._chains6: list[Chain] = []
        self._reverse_path = True
        self.moved = 0  # times that rules of others stood where ours must
        self.unplaced = False
        self._legacy = b""
        self._sizes: list[bytes] = []
        self._legacy_due = 0.0
        self.counters = RuleCounters()

    def load(self, plan: DiversionPlan, *, guard_outside: bool, bridged: bool = False) -> None:
        """Load a plan's rules, and see that they stand."""
        self._instance = plan.instance
        chains = partial(ipv4_chains, plan, guard_outside=guard_outside, bridged=bridged)
        ipv4 = self._chains = chains(reverse_path=self._reverse_path)
        ipv6 = ipv6_chains(plan) if IPV6.available() or ipv6_is_forwarded() else []
        self._chains6 = ipv6
        self._places = [*_places(socket.AF_INET, ipv4), *_places(socket.AF_INET6, ipv6)]
        if plan.mark_fragments:
            self._places.append((socket.AF_INET, PREFIX + plan.instance, fragments.CHAIN))
        before: _Standing | None = None
        for _ in range(ATTEMPTS):
            self.counters.read(at_once=True)  # they begin again
            try:
                IPV4.load(ipv4)
            except DatapathError:
                if self._mark or not self._reverse_path:
                    raise
                self._reverse_path = False  # this kernel may have no xt_rpfilter
                ipv4 = self._chains = chains(reverse_path=False)
                IPV4.load(ipv4)
            if ipv6:
                IPV6.load(ipv6)
            self.counters.loaded(ipv4, ipv6)
            fragments.load(plan)
            marked = self._look()
            standing = self._read()
            exactly = standing != before
            if (
                is_whole(ipv4, standing[0], exactly=exactly)
                and is_whole(ipv6, standing[1], exactly=exactly)
                and fragments.is_whole(plan, standing[2])
                and not IPV4.place(ipv4)
                and not (ipv6 and IPV6.place(ipv6))
            ):
                self._standing, self._mark = standing, marked
                return
            before = standing
        raise DatapathError(
            ["others change this host's netfilter rules as fast as the gateway loads its own"]
        )

    def others_changed(self) -> bool:
        """Whether anything was changed in a way of which the kernel notifies no process: by
        iptables with the legacy back end.

        Tables that have grown, shrunk or been flushed are seen at once. A rule in place of one as
        long takes reading all, which is done the more seldom the more there are.
        """
        if legacy_sizes() != self._sizes:
            return True
        if not self._sizes or self._monotonic() < self._legacy_due:
            return False
        return self._read_legacy() != self._legacy

    def stand(self, *, may_move: bool = True) -> bool:
        """Whether they still do. Jumps to them that stand wrong are moved, if they may be; if not,
        ``unplaced`` says that it is unknown whether any do."""
        self.unplaced = False
        marked = self._look()
        if marked == self._mark:
            return True
        if self._read() != self._standing:
            return False
        if not may_move:
            self.unplaced = True
            return True
        moved = IPV4.place(self._chains)
        if self._chains6:
            moved += IPV6.place(self._chains6)
        if moved:
            self.moved += 1  # and what we have changed leads to another look
        else:
            self._mark = marked
        return True

    def _look(self) -> bytes:
        self._sizes = legacy_sizes()  # first: what changes between the two is seen by the next
        self._legacy = self._read_legacy()
        return mark(self._places, f"{PREFIX}{self._instance}-", self._legacy)

    def _read_legacy(self) -> bytes:
        before = self._spent()
        found = legacy_mark()
        pause = min((self._spent() - before) / SHARE, LONGEST_PAUSE)
        self._legacy_due = self._monotonic() + pause
        return found

    def _read(self) -> _Standing:
        ipv6 = IPV6.standing(self._instance) if IPV6.available() else []
        return IPV4.standing(self._instance), ipv6, fragments.standing(self._instance)


def is_whole(chains: Iterable[Chain], standing: Iterable[str], *, exactly: bool = True) -> bool:
    """Whether lines that ``Netfilter.standing`` gave have every rule of these chains, in its order,
    no other, and the jumps to them.

    A rule is the same if it has the same words: ``iptables-save`` has an order of its own. Not
    ``exactly``: the same number of rules is enough, for one that prints them in other words.
    """
    rules: dict[tuple[str, str], list[list[str]]] = {}
    jumps = set()
    for line in standing:
        table, verb, place, *words = line.split()
        if verb == "-A":
            rules.setdefault((table, place), []).append(sorted(words))
            jumps.add((table, place, words[-1] if words else ""))
    for chain in chains:
        found = rules.get((chain.table, chain.name), [])
        wanted = [sorted(rule.split()) for rule in chain.rules]
        if len(found) != len(wanted) or (exactly and found != wanted):
            return False
        if chain.hook and (chain.table, chain.hook, chain.name) not in jumps:
            return False
    return True


def _places(family: int, chains: Iterable[Chain]) -> list[Place]:
    places = []
    for chain in chains:
        places += [(family, chain.table, name) for name in (chain.name, chain.hook) if name]
        if chain.place is not Where.LAST:
            # What others have there decides where ours must stand.
            places.append((family, chain.table, WHOLE_TABLE))
    return list(dict.fromkeys(places))
