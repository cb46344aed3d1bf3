"""Reads what ``iptables-save`` prints into rules to be walked.

A match that is not known here answers "perhaps". A target that is neither a chain nor known to let
a packet continue counts as one that may end the walk.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network

from gateway.datapath.firewall.traversal import (
    ACCEPT,
    CONTINUE,
    DROP,
    GOTO,
    JUMP,
    QUEUE,
    RETURN,
    UNKNOWN,
    Match,
    Packet,
    Rule,
)

_ENDS = {"ACCEPT": ACCEPT, "DROP": DROP, "REJECT": DROP, "RETURN": RETURN} | dict.fromkeys(
    ("QUEUE", "NFQUEUE"), QUEUE
)
_GOES_ON = frozenset(
    (
        *("AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CONNSECMARK", "CT", "DSCP", "ECN", "HL"),
        *("HMARK", "IDLETIMER", "LED", "LOG", "MARK", "NFLOG", "NOTRACK", "RATEEST", "SECMARK"),
        *("SET", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL", "ULOG"),
    )
)
_CHANGES = frozenset(
    ("CLASSIFY", "CONNMARK", "DSCP", "ECN", "MARK", "TCPMSS", "TCPOPTSTRIP", "TOS", "TTL")
)
_INDIFFERENT = frozenset({"--comment"})
_ESCAPED = re.compile(r"\\.", re.DOTALL)
_LONGEST = 256  # bytes of a comment, and so the most lines: linux/netfilter/xt_comment.h
_NUMBERS = {"1": "icmp", "6": "tcp", "17": "udp", "58": "ipv6-icmp"}


def read(text: str) -> dict[str, tuple[dict[str, str], dict[str, list[Rule]]]]:
    """Each table: its built-in chains' policies, and every chain's rules."""
    lines: dict[str, list[str]] = {}
    policies: dict[str, dict[str, str]] = {}
    chains: dict[str, dict[str, list[Rule]]] = {}
    table = ""
    for line in saved_lines(text):
        if line.startswith("*"):
            table = line[1:].strip()
            lines[table], policies[table], chains[table] = [], {}, {}
        elif line.startswith(":"):
            name, policy = line[1:].split()[:2]
            chains[table][name] = []
            if policy != "-":
                policies[table][name] = policy
        elif line.startswith("-A "):
            lines[table].append(line)
    for table, added in lines.items():
        for line in added:
            name = line.split(maxsplit=2)[1]
            chains[table].setdefault(name, []).append(read_rule(line, chains[table]))
    return {table: (policies[table], chains[table]) for table in chains}


def saved_lines(text: str) -> Iterator[str]:
    """What stands on a line of its own. A comment may have any character in it, also a line's end:
    its rule is one line all the same."""
    begun, more = "", 0
    for part in text.split("\n"):
        begun = f"{begun}\n{part}" if more else part
        if '"' in begun and more < _LONGEST and _ESCAPED.sub("", begun).count('"') % 2:
            more += 1
            continue
        yield begun
        more = 0
    if more:
        yield begun


def read_rule(line: str, chains: Iterable[str]) -> Rule:
    """One ``-A`` line. ``chains``: those of its table."""
    # Its comment may have anything in it, and findings are shown a line each.
    text = line if line.isprintable() else "".join(c if c.isprintable() else " " for c in line)
    try:
        words = shlex.split(line)[2:]
    except ValueError:  # no rule as ``iptables-save`` prints it
        return Rule((lambda packet: None,), UNKNOWN, "", text)
    matches: list[Match] = []
    verdict, target = CONTINUE, ""
    at = 0
    inverted = False
    while at < len(words):
        word = words[at]
        at += 1
        if word == "!":
            inverted = True
            continue
        values = []
        if word in ("-j", "-g"):
            target = words[at] if at < len(words) else ""
            verdict = _verdict(target, chains, goto=word == "-g")
            break  # what follows is the target's
        while at < len(words) and not words[at].startswith("-") and words[at] != "!":
            values.append(words[at])
            at += 1
        if word != "-m" and word not in _INDIFFERENT:
            matches.append(_inverting(_match(word, values), inverted))
        inverted = False
    changes = target in _CHANGES
    return Rule(tuple(matches), verdict, target if verdict in (JUMP, GOTO) else "", text, changes)


def _verdict(target: str, chains: Iterable[str], *, goto: bool) -> str:
    if target in chains:
        return GOTO if goto else JUMP
    return _ENDS.get(target) or (CONTINUE if target in _GOES_ON else UNKNOWN)


def _inverting(match: Match, inverted: bool) -> Match:
    if not inverted:
        return match

    def inverse(packet: Packet) -> bool | None:
        answer = match(packet)
        return None if answer is None else not answer

    return inverse


def _match(option: str, values: list[str]) -> Match:  # noqa: PLR0911
    value = values[0] if values else ""
    items = [item for text in values for item in text.split(",")]
    if option in ("-i", "-o"):
        return lambda packet: _named(packet.iif if option == "-i" else packet.oif, value)
    if option in ("-s", "-d"):
        try:
            network = IPv4Network(value, strict=False)
        except ValueError:
            return lambda packet: None
        return lambda packet: _within(
            packet.source if option == "-s" else packet.destination, network
        )
    if option == "-p":
        return lambda packet: _protocol(packet.protocol, value)
    if option in ("--sport", "--sports", "--source-port"):
        return lambda packet: _port(packet.source_port, items)
    if option in ("--dport", "--dports", "--destination-port"):
        return lambda packet: _port(packet.destination_port, items)
    if option in ("--ctstate", "--state"):
        return lambda packet: _state(packet.tracked, items)
    if option == "--dst-type":
        return lambda packet: _type(packet.to_host, items)
    if option == "--physdev-is-bridged":
        return lambda packet: False  # what the gateway is about is routed
    if option == "-f":
        return lambda packet: False
    return lambda packet: None


def _named(name: str | None, wanted: str) -> bool | None:
    if wanted == "+":
        return True
    if name is None:
        return None
    return name.startswith(wanted[:-1]) if wanted.endswith("+") else name == wanted


def _within(address: IPv4Address | None, network: IPv4Network) -> bool | None:
    if network.prefixlen == 0:
        return True
    return None if address is None else address in network


def _protocol(protocol: str | None, wanted: str) -> bool | None:
    wanted = _NUMBERS.get(wanted, wanted)
    if wanted in ("all", "0", "ip"):
        return True
    return None if protocol is None else protocol == wanted


def _port(port: int | None, items: list[str]) -> bool | None:
    if port is None:
        return None
    for item in items:
        low, _, high = item.partition(":")
        if int(low or 0) <= port <= int(high or (low if ":" not in item else 65535)):
            return True
    return False


def _state(tracked: bool | None, items: list[str]) -> bool | None:
    if tracked is None:
        return None
    return None if tracked else "UNTRACKED" in items


def _type(to_host: bool | None, items: list[str]) -> bool | None:
    if to_host is None:
        return None
    return ("LOCAL" if to_host else "UNICAST") in items


def without_ours(chains: Mapping[str, list[Rule]], prefix: str, kept: str) -> dict[str, list[Rule]]:
    """The chains without a gateway's own, and without the jumps to them. ``kept``: what the names
    of those end with that stay where they stand."""

    def goes(name: str) -> bool:
        return name.startswith(prefix) and not name.endswith(kept)

    return {
        name: [rule for rule in rules if not goes(rule.target)]
        for name, rules in chains.items()
        if not goes(name)
    }
