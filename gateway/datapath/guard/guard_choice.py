"""Which guard an outside interface can have: tc's, which nothing of netfilter touches, or nft's.

A gateway that has to do with less tries again for the better one, now and then: what was in its way
may be gone.
"""

from __future__ import annotations

import contextlib

from gateway.datapath.errors import DatapathError
from gateway.datapath.guard import egress_guard, egress_table
from gateway.datapath.guard.egress_guard import Guard
from gateway.datapath.guard.egress_table import EgressTable
from gateway.datapath.host.netfilter_rules import DiversionPlan

AnyGuard = Guard | EgressTable
RETRY = 10.0
"""Seconds (real) between two tries."""


def try_guard(plan: DiversionPlan, now: EgressTable | None) -> tuple[AnyGuard | None, str]:
    """The best that can be had, in place of what there is ``now``; and why it is none better."""
    problems: list[str] = []
    better: AnyGuard
    for kind in (Guard, EgressTable) if now is None else (Guard,):
        better = kind(plan)
        try:
            better.put()
        except DatapathError as error:
            problems += error.problems
            continue
        if now is not None:
            better.go_on_from(now.dropped())
            now.close()
        if kind is Guard:
            with contextlib.suppress(DatapathError):  # one more does no harm
                egress_table.remove(plan.outside)
        return better, "; ".join(problems)
    return now, "; ".join(problems)


def identity(outside: str) -> str:
    """Names the guard that stands there, among all that ever did; empty: none does."""
    return egress_guard.identity(outside) or egress_table.identity(outside)


def remove_guards(outside: str) -> None:
    """Remove whichever stands there. Raises DatapathError."""
    egress_guard.remove(outside)
    egress_table.remove(outside)
