"""Marks what comes in fragments, so that the queue recognises it when the kernel has reassembled
it.

The hooks that divert packets see them whole, and nothing in them shows that they were not. One
chain of nf_tables stands before reassembly (priority -450; that is at -400) and sets a bit of the
fragments' mark, which the kernel keeps for the whole. ``iptables`` has no chain that early, and its
own table can hold no other rule, so this one is made by ``nft``, where fragments matter.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from gateway.datapath.host.netfilter import run
from gateway.datapath.host.netfilter_rules import PREFIX, DiversionPlan

MARK = 0x4000_0000
"""The bit; others of a packet's mark stay as they are."""
CHAIN = "fragments"
"""In a table of the instance's own."""
_BEFORE_REASSEMBLY = -450  # linux/netfilter_ipv4.h: NF_IP_PRI_RAW_BEFORE_DEFRAG


def available() -> bool:
    """Whether there is ``nft``."""
    return shutil.which("nft") is not None


def load(plan: DiversionPlan) -> None:
    """Mark a gateway's fragments, or none, replacing what it had. Raises DatapathError."""
    if plan.mark_fragments:
        run_nft(table_text(plan))
    else:
        remove(plan.instance)


def remove(instance: str) -> None:
    """Mark no fragments of an instance any more. Raises DatapathError."""
    if available():
        run_nft(_none_of(instance))


def check() -> None:
    """Raises DatapathError with what is missing."""
    run_nft("add table ip snatgw-probe\ndelete table ip snatgw-probe\n")


def standing(instance: str) -> list[str]:
    """An instance's rules as the kernel has them now. Raises DatapathError where ``nft`` cannot
    report: that is no ruleset that was removed."""
    if not available():
        return []
    name = PREFIX + instance
    tables = run(["nft", "list", "tables", "ip"], package="nftables").splitlines()
    if f"table ip {name}" not in tables:
        return []
    return run(["nft", "--numeric", "list", "table", "ip", name], package="nftables").splitlines()


def is_whole(plan: DiversionPlan, found: list[str]) -> bool:
    """Whether what ``standing`` gave are a plan's rules: as many as it has."""
    wanted = (2 if plan.public_ips else 1) if plan.mark_fragments else 0
    return sum(" mark set " in line for line in found) == wanted


def table_text(plan: DiversionPlan) -> str:
    """Input for ``nft -f``: one transaction that replaces the table."""
    mark = f"ip frag-off & 0x3fff != 0 meta mark set meta mark | {MARK:#x}"
    rules = [f"iifname {_set(map(_quoted, plan.inside))} {mark}"]
    if plan.public_ips:
        publics = _set(map(str, plan.public_ips))
        rules.append(f"ip daddr {publics} {mark}")
    chain = "\n".join(
        [
            f"type filter hook prerouting priority {_BEFORE_REASSEMBLY}; policy accept;",
            *rules,
        ]
    )
    name = PREFIX + plan.instance
    return f"{_none_of(plan.instance)}table ip {name} {{\nchain {CHAIN} {{\n{chain}\n}}\n}}\n"


def _none_of(instance: str) -> str:
    return f"add table ip {PREFIX}{instance}\ndelete table ip {PREFIX}{instance}\n"


def _set(items: Iterable[str]) -> str:
    return "{ " + ", ".join(items) + " }"


def _quoted(interface: str) -> str:
    return f'"{interface}"'


def run_nft(text: str) -> None:
    """Have ``nft`` do this, in one transaction. Raises DatapathError."""
    run(["nft", "-f", "-"], text, package="nftables")
