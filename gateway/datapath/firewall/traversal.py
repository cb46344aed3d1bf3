"""Walks chains of rules for a packet of which not everything is known.

A match answers True, False or None, which is "perhaps": a limit, a mark, a set of addresses that is
another program's. So a walk has one ending that is reached if every "perhaps" is a no, and others
before it that are possible. Knows neither ``iptables`` nor ``nft``: both are read into ``Rule``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

ACCEPT, DROP, QUEUE, RETURN, JUMP, GOTO, CONTINUE, UNKNOWN = (
    "accept",
    "drop",
    "queue",
    "return",
    "jump",
    "goto",
    "continue",
    "unknown",
)
THROUGH = "through"
"""The end of a chain was reached: it continues where it was jumped to, or with the policy."""
_DEPTH = 64


@dataclass(frozen=True)
class Packet:
    """What is known of a packet; None: it may be anything."""

    iif: str | None = None
    oif: str | None = None
    source: IPv4Address | None = None
    destination: IPv4Address | None = None
    protocol: str | None = None
    source_port: int | None = None
    destination_port: int | None = None
    tracked: bool | None = None
    """Connection tracking: we keep it away from what we translate."""
    to_host: bool | None = None
    """Whether the destination is an address of this host."""


Match = Callable[[Packet], bool | None]


@dataclass(frozen=True)
class Rule:
    """``verdict`` JUMP and GOTO have a ``target``. ``text``: as its owner would know it again."""

    matches: tuple[Match, ...]
    verdict: str
    target: str = ""
    text: str = ""
    changes: bool = False
    """Whether it changes a packet, or what goes with it (a mark), and lets it continue."""

    def matching(self, packet: Packet) -> bool | None:
        """Whether all of its matches do."""
        perhaps = False
        for match in self.matches:
            answer = match(packet)
            if answer is False:
                return False
            perhaps |= answer is None
        return None if perhaps else True


@dataclass(frozen=True)
class Ending:
    """ACCEPT, DROP, QUEUE, UNKNOWN or THROUGH, and by which rule of which chain."""

    verdict: str
    chain: str
    rule: str = ""


@dataclass(frozen=True)
class Walk:
    """``final``: if every "perhaps" is a no; ``possible``: what may come before that."""

    final: Ending
    possible: tuple[Ending, ...] = ()

    def may(self, *verdicts: str) -> bool:
        """Whether one of these is among the endings."""
        return any(ending.verdict in verdicts for ending in (self.final, *self.possible))


def walk(
    chains: Mapping[str, Iterable[Rule]],
    name: str,
    packet: Packet,
    _known: dict[str, Walk] | None = None,
    _depth: int = 0,
) -> Walk:
    """Walk a chain to its end."""
    known: dict[str, Walk] = {} if _known is None else _known
    if name in known:
        return known[name]
    possible: list[Ending] = []
    final = Ending(THROUGH, name)
    if _depth > _DEPTH or name not in chains:
        return Walk(Ending(UNKNOWN, name))
    for rule in chains[name]:
        matching = rule.matching(packet)
        if matching is False or rule.verdict == CONTINUE:
            continue
        if rule.verdict in (JUMP, GOTO):
            below = walk(chains, rule.target, packet, known, _depth + 1)
            ends = below.final.verdict != THROUGH
            possible += [ending for ending in below.possible if ending.verdict != THROUGH]
            # Where it may come back, a rule that ends is not the end for certain.
            returns = any(ending.verdict == THROUGH for ending in below.possible)
            if matching and (ends or rule.verdict == GOTO) and not (ends and returns):
                final = below.final if ends else Ending(THROUGH, name)
                break
            if ends:
                possible.append(below.final)
            elif rule.verdict == GOTO:
                possible.append(Ending(THROUGH, name))
            continue
        verdict = THROUGH if rule.verdict == RETURN else rule.verdict
        ending = Ending(verdict, name, rule.text)
        if matching:
            final = ending
            break
        possible.append(ending)
    # Each ending once: two jumps to one chain would double them, at every level again.
    known[name] = Walk(final, tuple(dict.fromkeys(possible)))
    return known[name]


def reached(chains: Mapping[str, Iterable[Rule]], name: str, packet: Packet) -> Iterator[Rule]:
    """The rules of a chain, and of those that it jumps to, that may match a packet."""
    seen, waiting = {name}, [name]
    while waiting:
        for rule in chains.get(waiting.pop(), ()):
            if rule.matching(packet) is False:
                continue
            yield rule
            if rule.verdict in (JUMP, GOTO) and rule.target not in seen:
                seen.add(rule.target)
                waiting.append(rule.target)
