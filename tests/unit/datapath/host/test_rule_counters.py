"""Counters of rules become totals by reason, and a legacy table is searched for its chains."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from gateway.datapath.host import rule_counters
from gateway.datapath.host.netfilter_rules import (
    DiversionPlan,
    QueueNumbers,
    ipv4_chains,
    ipv6_chains,
)
from gateway.datapath.host.rule_counters import SHARE, RuleCounters, in_legacy_table
from gateway.schema.drop_reasons import DropReason

PLAN = DiversionPlan(
    ("lan0",),
    "wan0",
    (IPv4Address("203.0.113.10"),),
    (IPv4Network("10.0.0.0/16"),),
    QueueNumbers(1, 2),
)
CHAINS, CHAINS6 = ipv4_chains(PLAN), ipv6_chains(PLAN)
UNKNOWN, IPV6 = DropReason.PUBLIC_ADDRESS_UNKNOWN, DropReason.IPV6_NOT_SUPPORTED


class Kernel:
    """Counters of chains, by table and name; a table as a whole if it is a legacy one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counters: dict[tuple[str, str], int | None] = {}
        self.looks = 0
        self.now = self.spent = 0.0
        monkeypatch.setattr(rule_counters, "_in_nf_tables", self._count)
        monkeypatch.setattr(rule_counters, "legacy_entries", self._entries)

    def _count(self, counted: rule_counters._Counted) -> int | None:
        return self.counters.get((counted.table, counted.reason.value), 0)

    def _entries(self, number: int, table: str) -> bytearray:
        self.looks += 1
        self.spent += 0.02
        return bytearray()

    def counting(self) -> RuleCounters:
        counters = RuleCounters(lambda: self.now, lambda: self.spent)
        counters.loaded(CHAINS, CHAINS6)
        return counters


def test_a_reason_is_the_sum_of_its_tables_and_grows_over_new_rules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(monkeypatch)
    counters = kernel.counting()
    kernel.counters = {("raw", UNKNOWN.value): 3, ("mangle", UNKNOWN.value): 2}
    counters.read()
    counters.read()
    assert counters.totals == {UNKNOWN: 5}
    counters.loaded(CHAINS, CHAINS6)  # new rules, which have counted since
    kernel.counters = {("raw", UNKNOWN.value): 4, ("mangle", IPV6.value): 1}
    counters.read()
    assert counters.totals == {UNKNOWN: 9, IPV6: 1}
    kernel.counters = {("raw", UNKNOWN.value): 1}  # somebody set them to 0
    counters.read()
    assert counters.totals == {UNKNOWN: 10, IPV6: 1}


def test_legacy_tables_are_read_as_seldom_as_they_are_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(monkeypatch)
    counters = kernel.counting()
    kernel.counters = dict.fromkeys(
        ((chain.table, chain.counts.value) for chain in (*CHAINS, *CHAINS6) if chain.counts), None
    )
    counters.read()
    assert kernel.looks == 3  # raw and mangle of IPv4, mangle of IPv6
    kernel.now = 0.9 * 3 * 0.02 / SHARE
    counters.read()
    assert kernel.looks == 3
    counters.read(at_once=True)
    assert kernel.looks == 6
    kernel.now = 3 * 3 * 0.02 / SHARE
    counters.read()
    assert kernel.looks == 9


def test_a_chain_is_found_in_a_legacy_table() -> None:
    """Entries as ``linux/netfilter_ipv4/ip_tables.h`` has them: an ERROR target begins a chain."""

    def entry(packets: int, target: bytes) -> bytes:
        counters = packets.to_bytes(8, "little") + bytes(8)
        return bytes(96) + counters + target

    def begins(name: bytes) -> bytes:
        return entry(0, b"\x40\0" + b"ERROR".ljust(30, b"\0") + name.ljust(32, b"\0"))

    table = bytearray(
        entry(9, b"\x20\0" + b"snatgw-wan0-drop1".ljust(38, b"\0"))  # no chain of that name
        + begins(b"snatgw-wan0-drop10")
        + entry(8, bytes(40))
        + begins(b"snatgw-wan0-drop1")
        + entry(7, bytes(40))
    )
    assert in_legacy_table(table, 112, "snatgw-wan0-drop1") == 7
    assert in_legacy_table(table, 112, "snatgw-wan0-drop10") == 8
    assert in_legacy_table(table, 112, "snatgw-wan0-drop2") is None
