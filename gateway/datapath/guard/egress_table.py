"""The guard's place holder where tc has none: the same decision, by nf_tables at the same place.

A chain of family ``netdev`` at egress of the outside interface (Linux 5.16) is not among the rules
that ``iptables`` knows, but ``nft flush ruleset`` takes it along. So it stands twice: in a table of
no process's, which outlives the daemon, and in one that a child of the daemon owns (``nft -i``),
which others cannot flush, and which ends with it. Where tables have no owners (before Linux 5.12),
and where no child can be had, there is the first alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Network, collapse_addresses
from struct import Struct
from typing import NamedTuple

from gateway.datapath.errors import DatapathError
from gateway.datapath.guard import reported_drops
from gateway.datapath.guard.guard_program import ERRORS
from gateway.datapath.host import netlink
from gateway.datapath.host.fragment_marks import run_nft
from gateway.datapath.host.netfilter_rules import PREFIX, DiversionPlan, instance_name
from gateway.datapath.host.netlink import attribute, attributes

_NETFILTER, _NETDEV = 12, 5  # linux/netlink.h, linux/netfilter.h: NFPROTO_NETDEV
_GETTABLE, _GETCHAIN, _GETRULE, _GETOBJ = (10 << 8 | kind for kind in (1, 4, 7, 19))
_NAME, _FLAGS, _TABLE_HANDLE, _OWNER = 1, 2, 4, 7  # NFTA_TABLE_…, linux/netfilter/nf_tables.h
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_RULE_TABLE, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 3, 4
_OBJ_TABLE, _OBJ_NAME, _OBJ_DATA, _COUNTER_PACKETS = 1, 2, 4, 2
_nfgenmsg, _counter = Struct("=BBH"), Struct(">Q")

_COUNTER = "stopped"
_ATTEMPTS = 3
_OWNED_WITHIN = 1.0
"""Seconds that the child has to make its table."""


class _Standing(NamedTuple):
    rules: int
    digest: bytes


class EgressTable:
    """A guard by nf_tables; what ``guard.Guard`` has, this has too. Failures are DatapathError."""

    kind = "nftables"

    def __init__(self, plan: DiversionPlan) -> None:
        self._outside = plan.outside
        self._plan = plan
        self._plain, self._owned = _names(plan.outside)
        self._owner: subprocess.Popen[str] | None = None
        self._meant: dict[str, _Standing] = {}
        self._seen: dict[str, int] = {}
        self._total = 0
        self._begun = False
        self.interface = 0
        self.meanwhile = 0
        self.shared = False
        """Never: its counters are its own."""

    def change(self, plan: DiversionPlan) -> None:
        """Look for another plan's addresses; there is no moment without a guard."""
        before = rules_of(self._plan)
        self._plan = plan
        if rules_of(plan) != before:
            self.put()

    def put(self) -> None:
        """Have it stand, in place of what an earlier gateway left."""
        try:
            self.interface = socket.if_nametoindex(self._outside)
            if not self._begun:
                self._go_on()
            self.dropped()
            self._put_plain()
            self._put_owned()
        except OSError as error:
            line = f"{self._outside}: nft: no guard can stand there: {error.strerror or error}"
            raise DatapathError([line]) from None
        self._begun = True
        self._note()

    def stands(self) -> bool:
        """Whether it does; an interface that is not there needs none."""
        try:
            if socket.if_nametoindex(self._outside) != self.interface:
                return False
        except OSError:
            return True
        try:
            return all(_standing(table) == meant for table, meant in self._meant.items())
        except InterruptedError:
            return True  # others change nf_tables just now: not known, and soon asked again
        except OSError:
            return False

    def dropped(self) -> int:
        """Packets that it has dropped since the start, and ``meanwhile``."""
        for table in self._meant:
            with contextlib.suppress(OSError):
                now, before = _stopped(table), self._seen.get(table, 0)
                self._total += now - before if now >= before else now
                self._seen[table] = now
        return self._total

    def told(self) -> None:
        """All that ``dropped`` has counted was reported: the next daemon need not."""
        self._note()

    def go_on_from(self, total: int) -> None:
        """Count on from what another guard of this daemon's has dropped."""
        self._total += total

    def close(self) -> None:
        """End the child, and with it the table that it owns; the other one stays."""
        if self._owner is not None:
            self._owner.kill()
            self._owner.wait()
            assert self._owner.stdin is not None
            with contextlib.suppress(OSError):
                self._owner.stdin.close()
            self._owner = None
        self._meant.pop(self._owned, None)
        self._seen.pop(self._owned, None)

    def _go_on(self) -> None:
        """From what an earlier daemon has reported of the table that it left."""
        left = identity(self._outside)
        told = reported_drops.read(self._outside, left) if left else None
        if told is not None:
            self.meanwhile = max(0, _stopped(self._plain) - told)
            self._total += self.meanwhile

    def _note(self) -> None:
        reported_drops.write(self._outside, identity(self._outside), self._seen.get(self._plain, 0))

    def _put_plain(self) -> None:
        for _ in range(_ATTEMPTS):  # it may be flushed meanwhile
            run_nft(table_text(self._plan, self._plain))
            if self._is_meant(self._plain):
                return
        raise DatapathError([f"{self._outside}: others flush the guard as fast as it is set"])

    def _put_owned(self) -> None:
        """As far as it can be had."""
        self.close()
        with contextlib.suppress(OSError):
            self._owner = owner = subprocess.Popen(
                ["nft", "-i"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "HOME": "/dev/null"},  # else its history is written there
                start_new_session=True,  # a terminal's Ctrl-C is not for it
            )
            assert owner.stdin is not None
            owner.stdin.write("".join(owned_lines(self._plan, self._owned)))
            owner.stdin.flush()
            end = time.monotonic() + _OWNED_WITHIN
            while time.monotonic() < end and owner.poll() is None:
                if self._is_meant(self._owned):
                    return
                time.sleep(0.01)
        self.close()

    def _is_meant(self, table: str) -> bool:
        """Whether a table has all of its rules; if so, that is what it must have from now on."""
        try:
            standing = _standing(table)
        except InterruptedError:
            return False
        if standing is None or standing.rules != len(rules_of(self._plan)):
            return False
        self._meant[table], self._seen[table] = standing, 0
        return True


def rules_of(plan: DiversionPlan) -> list[str]:
    """What ``guard_program`` decides, as rules. A frame with a VLAN's tag is not the gateway's."""
    ends = tuple(collapse_addresses(plan.private_prefixes))
    probes = [] if plan.probe_source is None else [IPv4Network(plan.probe_source)]
    sources = collapse_addresses([*ends, *probes])
    drop = f"counter name {_COUNTER} drop"
    errors = ", ".join(map(str, ERRORS))
    return [
        "@ll,96,16 { 0x8100, 0x88a8 } return",
        *(f"ip saddr {network} {drop}" for network in sources),
        *(f"ip daddr {network} {drop}" for network in ends),
        *(
            f"icmp type {{ {errors} }} @th,{place},32 & {int(network.netmask):#x} == "
            f"{int(network.network_address):#x} {drop}"
            for place in (160, 192)  # in the quoted header, after ICMP's own
            for network in ends
        ),
    ]


def table_text(plan: DiversionPlan, table: str) -> str:
    """Input for ``nft -f``: one transaction that replaces the table."""
    return _none_of(table) + "".join(_lines(plan, table))


def owned_lines(plan: DiversionPlan, table: str) -> Iterator[str]:
    """The same for ``nft -i``, a transaction each line; the table is its own."""
    yield f"add table netdev {table} {{ flags owner; }}\n"
    yield from list(_lines(plan, table))[1:]


def _lines(plan: DiversionPlan, table: str) -> Iterator[str]:
    yield f"add table netdev {table}\n"
    yield f"add counter netdev {table} {_COUNTER}\n"
    yield (
        f"add chain netdev {table} guard {{ type filter hook egress device "
        f'"{plan.outside}" priority 0; policy accept; }}\n'
    )
    for rule in rules_of(plan):
        yield f"add rule netdev {table} guard {rule}\n"


def identity(outside: str) -> str:
    """Names the table that stands there, among all that ever did; empty: none does."""
    plain, _ = _names(outside)
    with contextlib.suppress(OSError):
        for found in _dump(_GETTABLE, _NAME, plain):
            if _OWNER not in found:  # else another program's, whatever its name
                return f"nft {found.get(_TABLE_HANDLE, b'').hex()}"
    return ""


def remove(outside: str) -> None:
    """Remove the table, if one stands there. Raises DatapathError."""
    if identity(outside):
        run_nft(_none_of(_names(outside)[0]))
        reported_drops.erase(outside)


def why_not(outside: str) -> str:
    """Why none can stand there; empty: one can. Changes nothing that stays."""
    if identity(outside):
        return ""
    probe = f"{PREFIX}probe-guard"
    chain = f'type filter hook egress device "{outside}" priority 0;'
    try:
        run_nft(f"table netdev {probe} {{ chain guard {{ {chain} }} }}\n{_none_of(probe)}")
    except DatapathError as error:
        return "; ".join(error.problems)
    return ""


def _names(outside: str) -> tuple[str, str]:
    name = f"{PREFIX}{instance_name(outside)}"
    return f"{name}-guard", f"{name}-owned"


def _none_of(table: str) -> str:
    return f"add table netdev {table}\ndelete table netdev {table}\n"


def _standing(table: str) -> _Standing | None:
    """What the kernel has of a table; counters do not matter. Raises OSError, InterruptedError
    where that changed while it was read."""
    digest, rules = hashlib.sha256(), 0
    found = False
    for entry in _dump(_GETTABLE, _NAME, table, consistent=True):
        found = True
        digest.update(entry.get(_TABLE_HANDLE, b"") + entry.get(_FLAGS, b""))
    for entry in _dump(_GETCHAIN, _CHAIN_TABLE, table, consistent=True):
        for kind in (_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY):
            digest.update(entry.get(kind, b""))
    for entry in _dump(_GETRULE, _RULE_TABLE, table, consistent=True):
        rules += 1
        digest.update(entry.get(_RULE_HANDLE, b"") + entry.get(_RULE_EXPRESSIONS, b""))
    return _Standing(rules, digest.digest()) if found else None


def _stopped(table: str) -> int:
    """A table's counter; 0: there is none. Raises OSError."""
    wanted = _COUNTER.encode() + b"\0"
    for entry in _dump(_GETOBJ, _OBJ_TABLE, table):
        if entry.get(_OBJ_NAME) == wanted:
            packets = attributes(entry.get(_OBJ_DATA, b"")).get(_COUNTER_PACKETS, bytes(8))
            return int(_counter.unpack(packets)[0])
    return 0


def _dump(
    kind: int, name: int, table: str, *, consistent: bool = False
) -> Iterator[dict[int, bytes]]:
    """A table's objects of a kind; ``name``: the attribute that names the table."""
    wanted = table.encode() + b"\0"
    body = _nfgenmsg.pack(_NETDEV, 0, 0) + attribute(name, wanted)
    for message in netlink.dump(kind, body, _NETFILTER, consistent=consistent):
        found = attributes(message[_nfgenmsg.size :])
        if found.get(name) == wanted:
            yield found
