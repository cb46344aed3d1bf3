"""What a diversion does about its guard, without a kernel."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from gateway.datapath.host import diversion
from gateway.datapath.host.netfilter_rules import DiversionPlan, QueueNumbers

PLAN = DiversionPlan(
    inside=("lan0",),
    outside="wan0",
    public_ips=(IPv4Address("203.0.113.10"),),
    private_prefixes=(IPv4Network("10.0.0.0/16"),),
    queues=QueueNumbers(3, 4),
)


class _Flushed:
    """A guard in nf_tables that somebody has flushed."""

    def __init__(self) -> None:
        self.interface = 1
        self.there = False

    def stands(self) -> bool:
        return self.there

    def put(self) -> None:
        self.there = True


def test_a_look_for_a_better_guard_puts_the_one_that_there_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both in one look: the next may be a second later, with the rules back and forwarding on."""
    guard = _Flushed()
    monkeypatch.setattr(diversion, "try_guard", lambda plan, now: (now, "no place in tc"))
    diverted = diversion.Diversion(PLAN)
    monkeypatch.setattr(diverted, "_close", lambda: None)
    monkeypatch.setattr(diverted, "guard", guard)
    diverted.restore_guard()
    assert guard.there
    assert (diverted.guards_restored, diverted.guards_gained) == (1, 0)
    assert diverted.no_guard == "no place in tc"
