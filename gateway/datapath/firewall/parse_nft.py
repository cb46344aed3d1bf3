"""Reads what ``nft -j list ruleset`` prints into rules to be walked.

A rule is a list of statements: matches, and what to do. What is not known here answers "perhaps".
Tables that ``iptables`` made are opaque in this form and read by ``parse_iptables.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from gateway.datapath.firewall.traversal import (
    ACCEPT,
    CONTINUE,
    DROP,
    GOTO,
    JUMP,
    QUEUE,
    RETURN,
    Match,
    Packet,
    Rule,
)

_VERDICTS = {
    "accept": ACCEPT,
    "drop": DROP,
    "reject": DROP,
    "queue": QUEUE,
    "return": RETURN,
    "continue": CONTINUE,
}
_GO_ON = frozenset(
    {"counter", "log", "notrack", "flow", "comment", "set", "map", "ct helper", "meta"}
)
_PERHAPS: Match = lambda packet: None  # noqa: E731


class _Unknown:
    """The value of an expression that is not known."""


UNKNOWN_VALUE = _Unknown()


class _Absent:
    """The value of one that this packet does not have: a rule that asks for it does not match."""


ABSENT = _Absent()


@dataclass(frozen=True)
class BaseChain:
    """A chain that a hook calls, with those of its table."""

    family: str
    table: str
    name: str
    kind: str
    hook: str
    priority: int
    policy: str
    devices: tuple[str, ...]


@dataclass
class Table:
    """A table's chains, and what its sets have."""

    bases: list[BaseChain]
    chains: dict[str, list[Rule]]


def read(document: Mapping[str, Any]) -> dict[tuple[str, str], Table]:
    """Each table, by family and name."""
    objects = [item for item in document.get("nftables", []) if isinstance(item, dict)]
    tables: dict[tuple[str, str], Table] = {}
    sets: dict[tuple[str, str], dict[str, Any]] = {}
    for item in objects:
        for kind, body in item.items():
            if kind == "table":
                tables[body["family"], body["name"]] = Table([], {})
            elif kind in ("set", "map"):
                place = body["family"], body["table"]
                sets.setdefault(place, {})["@" + body["name"]] = body.get("elem", [])
            elif kind == "chain":
                _chain(tables[body["family"], body["table"]], body)
    for item in objects:
        body = item.get("rule")
        if body is not None:
            place = body["family"], body["table"]
            rules = tables[place].chains.setdefault(body["chain"], [])
            rules += _rules(body.get("expr", []), sets.get(place, {}), body.get("handle", 0))
    return tables


def _chain(table: Table, body: Mapping[str, Any]) -> None:
    table.chains[body["name"]] = []
    if "hook" in body:
        device = body.get("dev", [])
        table.bases.append(
            BaseChain(
                body["family"],
                body["table"],
                body["name"],
                body.get("type", ""),
                body["hook"],
                int(body.get("prio", 0)),
                body.get("policy", "accept"),
                tuple([device] if isinstance(device, str) else device),
            )
        )


def _rules(statements: list[Any], sets: Mapping[str, Any], handle: int) -> Iterator[Rule]:
    """One rule; several where a verdict map has several verdicts."""
    matches: list[Match] = []
    for statement in statements:
        if not isinstance(statement, dict):
            matches.append(_PERHAPS)
            continue
        for kind, body in statement.items():
            if kind == "match":
                matches.append(_comparison(body, sets))
            elif kind in _VERDICTS:
                yield Rule(tuple(matches), _VERDICTS[kind], text=f"{kind}, handle {handle}")
                return
            elif kind in (JUMP, GOTO):
                yield Rule(tuple(matches), kind, body["target"])
                return
            elif kind == "vmap":
                yield from _verdict_map(body, matches, sets, handle)
                return
            elif kind == "mangle":
                text = f"handle {handle}, which changes packets"
                yield Rule(tuple(matches), CONTINUE, text=text, changes=True)
            elif kind not in _GO_ON:
                matches.append(_PERHAPS)  # a limit, a count; or something that ends the walk


def _verdict_map(
    body: Mapping[str, Any], matches: list[Match], sets: Mapping[str, Any], handle: int
) -> Iterator[Rule]:
    value = _value(body["key"])
    data = body["data"]
    entries = sets.get(data, []) if isinstance(data, str) else data.get("set", [])
    for key, verdict in entries:
        matching = (*matches, _equal(value, key, sets))
        kind: str
        target: Any
        kind, target = next(iter(verdict.items())) if isinstance(verdict, dict) else (verdict, None)
        if kind in (JUMP, GOTO):
            yield Rule(matching, kind, target["target"])
        else:
            yield Rule(matching, _VERDICTS.get(kind, CONTINUE), text=f"{kind}, handle {handle}")


def _comparison(body: Mapping[str, Any], sets: Mapping[str, Any]) -> Match:
    value, operator = _value(body["left"]), body["op"]
    if operator not in ("==", "!=", "in"):
        return _PERHAPS
    equal = _equal(value, body["right"], sets)
    if operator != "!=":
        return equal

    def unequal(packet: Packet) -> bool | None:
        if value(packet) is ABSENT:
            return False
        answer = equal(packet)
        return None if answer is None else not answer

    return unequal


def _equal(value: Callable[[Packet], object], wanted: Any, sets: Mapping[str, Any]) -> Match:
    def match(packet: Packet) -> bool | None:
        seen = value(packet)
        if seen is ABSENT:
            return False
        return None if seen is UNKNOWN_VALUE else _among(seen, wanted, sets)

    return match


def _among(seen: object, wanted: Any, sets: Mapping[str, Any]) -> bool | None:  # noqa: C901, PLR0911, PLR0912
    """Whether a value is one of those that are wanted: one, or a set, or a range."""
    if isinstance(wanted, str) and wanted.startswith("@"):
        return _any(seen, sets.get(wanted, []), sets) if wanted in sets else None
    if isinstance(wanted, list):
        return _any(seen, wanted, sets)
    if isinstance(wanted, dict):
        if "set" in wanted:
            return _any(seen, wanted["set"], sets)
        if "elem" in wanted:
            return _among(seen, wanted["elem"]["val"], sets)
        if "prefix" in wanted:
            prefix = wanted["prefix"]
            network = f"{prefix['addr']}/{prefix['len']}"
            return _in_network(seen, network)
        if "range" in wanted:
            return _in_range(seen, *wanted["range"])
        if "concat" in wanted and isinstance(seen, tuple):
            answers = [_among(s, w, sets) for s, w in zip(seen, wanted["concat"], strict=False)]
            if False in answers:
                return False
            return None if None in answers else True
        return None
    if isinstance(seen, tuple):
        if UNKNOWN_VALUE in seen:
            return None
        return False
    if seen is UNKNOWN_VALUE:
        return None
    if isinstance(seen, IPv4Address):
        return bool(str(seen) == wanted)
    if isinstance(seen, str) and isinstance(wanted, str) and wanted.endswith("*"):
        return seen.startswith(wanted[:-1])
    return bool(seen == wanted)


def _any(seen: object, wanted: list[Any], sets: Mapping[str, Any]) -> bool | None:
    answers = [_among(seen, item, sets) for item in wanted]
    if True in answers:
        return True
    return None if None in answers else False


def _in_network(seen: object, network: str) -> bool | None:
    try:
        return isinstance(seen, IPv4Address) and seen in IPv4Network(network, strict=False)
    except ValueError:  # of IPv6
        return False


def _in_range(seen: object, low: Any, high: Any) -> bool | None:
    try:
        if isinstance(seen, IPv4Address):
            return IPv4Address(low) <= seen <= IPv4Address(high)
        return isinstance(seen, int) and int(low) <= seen <= int(high)
    except ValueError:
        return False


def _value(expression: Any) -> Callable[[Packet], object]:
    """What an expression is of a packet."""
    if not isinstance(expression, dict):
        return lambda packet: UNKNOWN_VALUE
    (kind, body), *_ = expression.items()
    if kind == "concat":
        parts = [_value(part) for part in body]
        return lambda packet: tuple(part(packet) for part in parts)
    if kind == "meta":
        return lambda packet: _meta(packet, body["key"])
    if kind == "payload" and "field" in body:
        return lambda packet: _payload(packet, body["protocol"], body["field"])
    if kind == "ct":
        return lambda packet: _tracking(packet, body["key"])
    if kind == "fib" and body.get("result") == "type":
        return lambda packet: _type(packet, body.get("flags", []))
    return lambda packet: UNKNOWN_VALUE


def _or_unknown(value: object) -> object:
    return UNKNOWN_VALUE if value is None else value


def _meta(packet: Packet, key: str) -> object:
    known = {
        "iif": packet.iif,
        "iifname": packet.iif,
        "oif": packet.oif,
        "oifname": packet.oif,
        "l4proto": packet.protocol,
        "nfproto": "ipv4",
        "protocol": "ip",
    }
    return _or_unknown(known.get(key))


def _payload(packet: Packet, protocol: str, field: str) -> object:
    if protocol == "ip":
        known = {
            "saddr": packet.source,
            "daddr": packet.destination,
            "protocol": packet.protocol,
            "version": 4,
        }
        return _or_unknown(known.get(field))
    if protocol == "ip6" or (packet.protocol and protocol not in (packet.protocol, "th")):
        return ABSENT
    if protocol in ("tcp", "udp", "th") and packet.protocol:
        ports = {"sport": packet.source_port, "dport": packet.destination_port}
        return _or_unknown(ports.get(field))
    return UNKNOWN_VALUE


def _tracking(packet: Packet, key: str) -> object:
    if packet.tracked is not False:
        return UNKNOWN_VALUE
    return "untracked" if key == "state" else ABSENT


def _type(packet: Packet, flags: Any) -> object:
    if "daddr" not in flags or packet.to_host is None:
        return UNKNOWN_VALUE
    return "local" if packet.to_host else "unicast"
