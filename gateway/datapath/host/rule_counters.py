"""How many packets the gateway's own rules have dropped, by reason: the kernel's counters, summed.

Every reason has a chain with one rule in each table that drops for it (``netfilter_rules.py``), and
the kernel counts what comes there. Of nf_tables these chains alone are asked for: some 20 µs each,
however many rules there are elsewhere. iptables-legacy has a table in one piece; it is read as
seldom as that takes a hundredth of a processor.

A counter begins again when rules are loaded: what counts is what it has grown by. It never raises;
what cannot be read is read at the next look.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from struct import Struct
from typing import NamedTuple

from gateway.datapath.host import netlink
from gateway.datapath.host.netfilter_rules import Chain
from gateway.datapath.host.netlink import attribute, attributes, each_attribute
from gateway.datapath.host.rule_fingerprints import legacy_entries, legacy_head
from gateway.schema.drop_reasons import DropReason

SHARE = 0.01
"""Of a processor, at most, that reading the legacy tables takes."""

_NETFILTER = 12  # linux/netlink.h
_GETRULE = 10 << 8 | 7  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETRULE
_TABLE, _CHAIN, _EXPRESSIONS = 1, 2, 4  # NFTA_RULE_…
_NAME, _DATA = 1, 2  # NFTA_EXPR_…
_COUNTER_PACKETS = 2  # NFTA_COUNTER_…
_nfgenmsg, _packets = Struct("=BBH"), Struct(">Q")

# A legacy chain begins with an entry whose target is named ERROR and has the chain's name behind
# its own head (struct xt_error_target); packets and bytes end an entry's head (struct ipt_entry).
_TARGET_HEAD, _TARGET_NAME, _ERROR, _ERROR_TARGET = 32, 2, b"ERROR\0", 64
_CHAIN_NAME = 30
_counters = Struct("=QQ")


class _Counted(NamedTuple):
    family: int
    table: str
    chain: str
    reason: DropReason


class RuleCounters:
    """The drops of one instance's rules. ``totals`` only grow."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        """``spent``: seconds of a processor that this thread has had."""
        self.totals: dict[DropReason, int] = {}
        self._monotonic, self._spent = monotonic, spent
        self._counted: list[_Counted] = []
        self._seen: dict[_Counted, int] = {}
        self._legacy_due = 0.0

    def loaded(self, ipv4: Iterable[Chain], ipv6: Iterable[Chain]) -> None:
        """These chains stand now in place of all that stood, and their counters are at 0."""
        families = (socket.AF_INET, ipv4), (socket.AF_INET6, ipv6)
        self._counted = [
            _Counted(family, chain.table, chain.name, chain.counts)
            for family, chains in families
            for chain in chains
            if chain.counts is not None
        ]
        self._seen.clear()
        self._legacy_due = 0.0

    def read(self, *, at_once: bool = False) -> None:
        """Add what was dropped since the last time; ``at_once``: of legacy tables, too."""
        absent = []
        for counted in self._counted:
            packets = _in_nf_tables(counted)
            if packets is None:
                absent.append(counted)
            else:
                self._add(counted, packets)
        if absent and (at_once or self._monotonic() >= self._legacy_due):
            before = self._spent()
            with contextlib.suppress(OSError):
                self._read_legacy(absent)
            self._legacy_due = self._monotonic() + (self._spent() - before) / SHARE

    def _read_legacy(self, absent: Iterable[_Counted]) -> None:
        tables: dict[tuple[int, str], bytearray] = {}
        for counted in absent:
            place = counted.family, counted.table
            if place not in tables:
                tables[place] = legacy_entries(*place)
            packets = in_legacy_table(tables[place], legacy_head(counted.family), counted.chain)
            if packets is not None:
                self._add(counted, packets)

    def _add(self, counted: _Counted, packets: int) -> None:
        before = self._seen.get(counted, 0)
        grown = packets - before if packets >= before else packets  # it was set to 0
        self._seen[counted] = packets
        if grown:
            self.totals[counted.reason] = self.totals.get(counted.reason, 0) + grown


def _in_nf_tables(counted: _Counted) -> int | None:
    """What a chain's rules have counted; None: there is no such chain."""
    table, chain = counted.table.encode() + b"\0", counted.chain.encode() + b"\0"
    body = _nfgenmsg.pack(counted.family, 0, 0) + attribute(_TABLE, table)
    body += attribute(_CHAIN, chain)
    total = None
    try:
        for message in netlink.dump(_GETRULE, body, _NETFILTER):
            found = attributes(message[_nfgenmsg.size :])
            if found.get(_TABLE) == table and found.get(_CHAIN) == chain:
                total = (total or 0) + _count(found.get(_EXPRESSIONS, b""))
    except OSError:
        return None
    return total


def _count(expressions: bytes) -> int:
    for _, element in each_attribute(expressions):
        expression = attributes(element)
        if expression.get(_NAME) == b"counter\0":
            counter = attributes(expression.get(_DATA, b""))
            return int(_packets.unpack(counter.get(_COUNTER_PACKETS, bytes(8)))[0])
    return 0


def in_legacy_table(entries: bytearray, head: int, chain: str) -> int | None:
    """What the first rule of a chain has counted, in a table as the kernel gives it; ``head``: the
    size of an entry's. None: there is no such chain."""
    name = chain.encode().ljust(_CHAIN_NAME, b"\0")
    at = entries.find(name)
    while at >= 0:
        target = at - _TARGET_HEAD
        end = target + _ERROR_TARGET + head  # of the head of the entry that follows
        if entries.startswith(_ERROR, target + _TARGET_NAME) and end <= len(entries):
            return int(_counters.unpack_from(entries, end - _counters.size)[0])
        at = entries.find(name, at + 1)
    return None
