"""Which of the host's rules drop a gateway's packets, and the command that opens them.

A VM's packet to the internet and its answer are walked through every chain that a hook calls. The
gateway changes addresses at priority -150 and keeps connection tracking away from both, so that
``established`` lets neither pass. Accepting in one chain saves a packet from no other: each chain
of each table has to let it pass. Our own ACCEPT is in FORWARD of one table only: while the gateway
runs, where it stands (what came later stands behind it); before that, at the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from gateway.datapath.firewall import parse_iptables, parse_nft
from gateway.datapath.firewall.packet_paths import ANSWERED, SENT, Crossing, Way, ways
from gateway.datapath.firewall.ruleset_dump import Rulesets
from gateway.datapath.firewall.traversal import (
    ACCEPT,
    DROP,
    QUEUE,
    THROUGH,
    UNKNOWN,
    Packet,
    Rule,
    reached,
    walk,
)
from gateway.schema.host_firewall import INSIDE_ONLY, LETS_PASS, MAY_DROP

OURS = "snatgw-"
"""What the chains and tables of gateways begin with."""
_ACCEPTING = "-ok"
"""What our chain with our own ACCEPT ends with."""
_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_WORDS = {"i": "iifname", "o": "oifname", "s": "ip saddr", "d": "ip daddr"}
_OUTBOUND = (SENT, ANSWERED)
_HOOKS = ("prerouting", "forward", "postrouting")
_Kind = TypeVar("_Kind")
_RULES = 3
"""That drop packets and a sentence names."""


@dataclass(frozen=True)
class Obstacle:
    """A chain that drops packets of the gateway's. ``certain``: whatever else the host knows.
    ``outbound``: of those that go to the internet or come from there."""

    place: str
    by: str
    packets: str
    opening: str
    certain: bool
    outbound: bool = True

    @property
    def critical(self) -> bool:
        """Whether the gateway cannot do its work; else it is a warning."""
        return self.certain and self.outbound

    @property
    def sentence(self) -> str:
        """What drops which packets, and what would let them pass."""
        drops = " drops " if self.certain else MAY_DROP
        passes = "" if self.outbound else INSIDE_ONLY
        return (
            f"the host's own firewall{drops}{self.packets}{passes}: {self.place}, by {self.by}. "
            f"{LETS_PASS}{self.opening}"
        )


@dataclass(frozen=True)
class _Hooked:
    """A chain that a hook calls. ``command`` is iptables' or empty for nft; ``ours``: our own
    ACCEPT is at its end."""

    family: str
    table: str
    chain: str
    hook: str
    priority: int
    drops: bool
    devices: tuple[str, ...]
    chains: Mapping[str, list[Rule]]
    command: str = ""
    ours: bool = False

    @property
    def place(self) -> str:
        if self.command:
            return f"{self.command}'s table {self.table}, chain {self.chain}"
        return f"nftables' table {self.family} {self.table}, chain {self.chain}"


def obstacles(rulesets: Rulesets, crossing: Crossing) -> list[Obstacle]:
    """The chains that keep a gateway from working, one finding each."""
    found = []
    for chain in _hooked(rulesets):
        walked = list(_walked(chain, crossing))
        dropped = [(way, *ending) for way, packet in walked for ending in _dropping(chain, packet)]
        if not dropped:
            continue
        outbound = any(way.what in _OUTBOUND for way, _, _ in dropped)
        # What decides how bad it is: isolating VMs from each other may be meant.
        worst = [one for one in dropped if one[0].what in _OUTBOUND] or dropped
        # Which subnet, and which public IP's VM, is behind which interface is not known here.
        certain = len(crossing.inside) == 1 or not _parts(
            [(way.what, way.source, way.target) for way, _ in walked],
            [(way.what, way.source, way.target) for way, _, _ in worst],
        )
        parts = _parts([way.what for way, _ in walked], [way.what for way, _, _ in dropped])
        kinds = dict.fromkeys(way.what for way, _, _ in dropped)
        by = list(dict.fromkeys(by for _, by, _ in dropped))
        more = [f"{len(by) - _RULES} more"] if len(by) > _RULES else []
        found.append(
            Obstacle(
                chain.place,
                " and ".join([*by[:_RULES], *more]),
                " and ".join(f"some of {kind}" if kind in parts else kind for kind in kinds),
                _opening(chain, [way for way, _, _ in dropped], crossing),
                certain and all(certain for _, _, certain in worst),
                outbound,
            )
        )
    return found


def skipped(rulesets: Rulesets, crossing: Crossing) -> list[str]:
    """Rules that change packets of the gateway's, as far as they come to netfilter: a fast path
    has them skip it."""
    found = []
    for chain in _hooked(rulesets):
        for _, packet in _walked(chain, crossing):
            found += [
                f"{chain.place}: {rule.text}"
                for rule in reached(chain.chains, chain.chain, packet)
                if rule.changes
            ]
    return list(dict.fromkeys(found))


def _walked(chain: _Hooked, crossing: Crossing) -> Iterator[tuple[Way, Packet]]:
    """What comes to a chain, each packet once."""
    seen = set()
    for way in ways(crossing):
        packet = way.packet(chain.hook, chain.priority, chain.devices)
        if packet is not None and (way.what, way.source, way.target, packet) not in seen:
            seen.add((way.what, way.source, way.target, packet))
            yield way, packet


def _parts(walked: Iterable[_Kind], dropped: Iterable[_Kind]) -> set[_Kind]:
    """Of what some is dropped and some is not."""
    all_, lost = Counter(walked), Counter(dropped)
    return {what for what, number in lost.items() if number < all_[what]}


def _dropping(chain: _Hooked, packet: Packet) -> Iterator[tuple[str, bool]]:
    """By what a chain drops such a packet, if it does, and whether for certain."""
    walked = walk(chain.chains, chain.chain, packet)
    # nft before 1.0.7 does not print which device a chain is for.
    nowhere = chain.hook in ("ingress", "egress") and not chain.devices
    certain = not walked.may(ACCEPT, QUEUE, UNKNOWN) and not nowhere
    final = walked.final
    if final.verdict == DROP:
        within = "" if final.chain == chain.chain else f" in chain {final.chain}"
        yield f"the rule “{final.rule}”{within}", certain
    elif final.verdict == THROUGH and chain.drops and not chain.ours:
        yield "its policy", certain


def _opening(chain: _Hooked, dropped: Iterable[Way], crossing: Crossing) -> str:
    conditions = dict.fromkeys(
        way.conditions(chain.hook, chain.priority, crossing) for way in dropped
    )
    if chain.command:
        lines = [
            " ".join(
                [
                    f"{chain.command} -t {chain.table} -I {chain.chain}",
                    *(f"-{word} {','.join(values)}" for word, values in condition),
                    "-j ACCEPT",
                ]
            )
            for condition in conditions
        ]
        return "; ".join(lines)
    rules = [
        " ".join(
            [
                f"insert rule {chain.family} {chain.table} {chain.chain}",
                *(f"{_WORDS[word]} {_nft_values(word, values)}" for word, values in condition),
                "accept",
            ]
        )
        for condition in conditions
    ]
    return f"nft '{'; '.join(rules)}'"


def _nft_values(word: str, values: tuple[str, ...]) -> str:
    if word in "io":
        return f'"{values[0]}"'
    return values[0] if len(values) == 1 else f"{{ {', '.join(values)} }}"


def _hooked(rulesets: Rulesets) -> Iterator[_Hooked]:
    """Every chain that packets which are forwarded come to."""
    seen = set()
    for command, text in rulesets.iptables.items():
        own = command == rulesets.own
        for table, (policies, chains) in parse_iptables.read(text).items():
            if "nft" in command or (own and rulesets.own_is_nft):
                seen.add(table)
            if table not in _PRIORITIES:
                continue
            theirs = parse_iptables.without_ours(chains, OURS, _ACCEPTING)
            for name, policy in policies.items():
                if name.lower() in _HOOKS:
                    yield _Hooked(
                        "ip",
                        table,
                        name,
                        name.lower(),
                        _PRIORITIES[table],
                        policy == "DROP",
                        (),
                        theirs,
                        command,
                        own and (table, name) == ("filter", "FORWARD"),
                    )
    for (family, name), table_ in parse_nft.read(rulesets.nft).items():
        if (family == "ip" and name in seen) or name.startswith(OURS):
            continue
        for base in table_.bases:
            netdev = base.hook in ("ingress", "egress")
            if base.kind == "nat" or not (netdev or base.hook in _HOOKS):
                continue
            if family not in (("netdev", "inet") if netdev else ("ip", "inet")):
                continue
            yield _Hooked(
                family,
                name,
                base.name,
                base.hook,
                base.priority,
                base.policy == "drop",
                base.devices,
                table_.chains,
            )
