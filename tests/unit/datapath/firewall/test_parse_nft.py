"""``nft``'s JSON as rules: what they ask, what they do, and what is not known of them."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from gateway.datapath.firewall.parse_nft import BaseChain, Table, read
from gateway.datapath.firewall.traversal import (
    ACCEPT,
    CONTINUE,
    DROP,
    GOTO,
    JUMP,
    QUEUE,
    RETURN,
    Packet,
    walk,
)

PACKET = Packet(
    "lan0", "wan0", IPv4Address("10.0.1.4"), IPv4Address("198.51.100.1"), "tcp", 40000, 443,
    tracked=False, to_host=False,
)  # fmt: skip
PLACE = {"family": "inet", "table": "fw"}
DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}
SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
STATE = {"ct": {"key": "state"}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def table_of(*statements: Any, more: tuple[Any, ...] = ()) -> Table:
    """The table that a rule of these statements is read into."""
    objects = [
        {"table": {"family": "inet", "name": "fw"}},
        {"chain": PLACE | {"name": "c"}},
        *more,
        {"rule": PLACE | {"chain": "c", "handle": 7, "expr": list(statements)}},
    ]
    return read({"nftables": objects})["inet", "fw"]


def answer(left: Any, right: Any, op: str = "==", packet: Packet = PACKET) -> bool | None:
    match = {"match": {"op": op, "left": left, "right": right}}
    (rule,) = table_of(match, {"drop": None}).chains["c"]
    return rule.matching(packet)


MATCHES = [
    (meta("iifname"), "lan0", True),
    (meta("iifname"), "lan*", True),
    (meta("iifname"), "wan0", False),
    (meta("oifname"), {"set": ["eth0", "wan0"]}, True),
    (meta("l4proto"), "udp", False),
    (meta("nfproto"), "ipv4", True),
    (meta("nfproto"), "ipv6", False),
    (meta("mark"), 1, None),
    (SADDR, "10.0.1.4", True),
    (SADDR, {"prefix": {"addr": "10.0.0.0", "len": 16}}, True),
    (SADDR, {"prefix": {"addr": "10.1.0.0", "len": 16}}, False),
    (SADDR, {"range": ["10.0.1.1", "10.0.1.9"]}, True),
    (SADDR, {"prefix": {"addr": "2001:db8::", "len": 32}}, False),
    (SADDR, "@unknown", None),
    (DPORT, 443, True),
    (DPORT, {"range": [400, 442]}, False),
    (DPORT, {"set": [80, {"range": [440, 450]}]}, True),
    ({"payload": {"protocol": "th", "field": "dport"}}, 443, True),
    ({"payload": {"protocol": "udp", "field": "dport"}}, 443, False),
    ({"payload": {"protocol": "ip6", "field": "saddr"}}, "::1", False),
    (STATE, ["established", "related"], False),
    (STATE, "untracked", True),
    ({"ct": {"key": "status"}}, "snat", False),
    ({"fib": {"result": "type", "flags": ["daddr"]}}, "local", False),
    ({"fib": {"result": "type", "flags": ["saddr"]}}, "local", None),
    ({"concat": [SADDR, DPORT]}, {"set": [{"concat": ["10.0.1.4", 443]}]}, True),
    ({"concat": [SADDR, DPORT]}, {"set": [{"concat": ["10.0.1.4", 80]}]}, False),
    ({"socket": {"key": "mark"}}, 1, None),
]


@pytest.mark.parametrize(("left", "right", "expected"), MATCHES)
def test_what_a_match_says_of_a_packet(left: Any, right: Any, expected: bool | None) -> None:
    assert answer(left, right) is expected


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (meta("iifname"), "lan0", False),
        (meta("iifname"), "wan0", True),
        (meta("mark"), 1, None),
        # What a packet has not is not unequal to anything, either: the rule does not match.
        ({"payload": {"protocol": "udp", "field": "dport"}}, 443, False),
    ],
)
def test_what_is_unequal(left: Any, right: Any, expected: bool | None) -> None:
    assert answer(left, right, "!=") is expected


def test_comparisons_of_another_kind_may_hold() -> None:
    assert answer(DPORT, 1000, "<") is None


def test_of_a_packet_of_which_nothing_is_known_nothing_is_said() -> None:
    for left, right in ((meta("iifname"), "lan0"), (SADDR, "10.0.1.4"), (STATE, "established")):
        assert answer(left, right, packet=Packet()) is None


@pytest.mark.parametrize(
    ("statement", "verdict", "target"),
    [
        ({"accept": None}, ACCEPT, ""),
        ({"drop": None}, DROP, ""),
        ({"reject": {"type": "tcp reset"}}, DROP, ""),
        ({"queue": {"num": 1}}, QUEUE, ""),
        ({"return": None}, RETURN, ""),
        ({"jump": {"target": "d"}}, JUMP, "d"),
        ({"goto": {"target": "d"}}, GOTO, "d"),
    ],
)
def test_what_a_statement_does(statement: Any, verdict: str, target: str) -> None:
    (rule,) = table_of({"counter": {"packets": 1, "bytes": 2}}, {"log": None}, statement).chains[
        "c"
    ]
    assert (rule.verdict, rule.target, rule.matching(PACKET)) == (verdict, target, True)


def test_what_is_not_known_may_keep_a_packet_from_what_follows() -> None:
    (rule,) = table_of({"limit": {"rate": 5}}, {"drop": None}).chains["c"]
    assert rule.matching(PACKET) is None
    (rule,) = table_of("xt", {"accept": None}).chains["c"]
    assert rule.matching(PACKET) is None


def test_what_changes_packets_is_known_as_such() -> None:
    mangle = {"mangle": {"key": meta("mark"), "value": 1}}
    (rule,) = table_of(mangle).chains["c"]
    assert (rule.changes, rule.verdict) == (True, CONTINUE)


def test_a_verdict_map_is_a_rule_for_each_verdict() -> None:
    data = {"set": [["lan0", {"accept": None}], ["wan0", {"jump": {"target": "d"}}]]}
    rules = table_of({"vmap": {"key": meta("iifname"), "data": data}}).chains["c"]
    assert [(r.verdict, r.target, r.matching(PACKET)) for r in rules] == [
        (ACCEPT, "", True),
        (JUMP, "d", False),
    ]


def test_named_sets_and_maps_are_looked_up() -> None:
    ours = {"set": PLACE | {"name": "ours", "elem": ["10.0.1.4", {"elem": {"val": "10.0.1.5"}}]}}
    match = {"match": {"op": "==", "left": SADDR, "right": "@ours"}}
    (rule,) = table_of(match, {"drop": None}, more=(ours,)).chains["c"]
    assert rule.matching(PACKET) is True
    verdicts = {"map": PLACE | {"name": "v", "elem": [[443, {"drop": None}]]}}
    table = table_of({"vmap": {"key": DPORT, "data": "@v"}}, more=(verdicts,))
    assert walk(table.chains, "c", PACKET).final.verdict == DROP


def test_a_base_chain_is_known_by_its_hook_and_priority() -> None:
    hooked = PLACE | {
        "name": "f", "type": "filter", "hook": "ingress", "prio": -150, "policy": "drop",
        "dev": "wan0",
    }  # fmt: skip
    plain = PLACE | {"name": "g", "type": "nat", "hook": "output"}
    assert table_of(more=({"chain": hooked}, {"chain": plain})).bases == [
        BaseChain("inet", "fw", "f", "filter", "ingress", -150, "drop", ("wan0",)),
        BaseChain("inet", "fw", "g", "nat", "output", 0, "accept", ()),
    ]


def test_nothing_is_no_tables() -> None:
    assert read({}) == {}
    assert read({"nftables": [{"metainfo": {"version": "1.0.6"}}]}) == {}
