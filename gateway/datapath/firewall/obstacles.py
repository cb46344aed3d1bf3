"""Which of the host's rules drop a gateway's packets, and the command that opens them.

A VM's packet to the internet and its answer are walked through every chain that a hook calls. The
gateway changes addresses at priority -150 and keeps connection tracking away from both, so that
``established`` lets neither pass. Accepting in one chain saves a packet from no other: each chain
of each table has to let it pass. Our own ACCEPT stands at the end of FORWARD of one table only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from gateway.datapath.firewall import parse_iptables as iptables
from gateway.datapath.firewall import parse_nft as nft
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

OURS = "snatgw-"
"""What the chains and tables of gateways begin with."""
_TRANSLATED = -150  # linux/netfilter_ipv4.h: NF_IP_PRI_MANGLE
_TRACKED = -200  # NF_IP_PRI_CONNTRACK
_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_HOOKS = ("prerouting", "forward", "postrouting")
_INTERNET = IPv4Address("9.9.9.9")  # stands for any address of it
_SENT, _ANSWERED = "what VMs send", "what is answered"


@dataclass(frozen=True)
class Crossing:
    """Between which interfaces and addresses a gateway's packets go."""

    inside: tuple[str, ...]
    outside: str
    public_ips: tuple[IPv4Address, ...]
    private_prefixes: tuple[IPv4Network, ...]


@dataclass(frozen=True)
class Obstacle:
    """A chain that drops packets of the gateway's. ``certain``: whatever else the host knows."""

    place: str
    by: str
    packets: str
    opening: str
    certain: bool

    @property
    def sentence(self) -> str:
        drops = "drops" if self.certain else "may drop"
        return (
            f"the host's own firewall {drops} {self.packets}: {self.place}, by {self.by}. "
            f"This lets them pass: {self.opening}"
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


@dataclass(frozen=True)
class _Way:
    """Packets of one kind between an inside interface and the outside one."""

    what: str
    inside: str
    outside: str
    private: IPv4Address
    public: IPv4Address

    def packet(self, chain: _Hooked) -> Packet | None:
        """It as it comes to a chain; None: it does not."""
        sent = self.what == _SENT
        source, target = (self.inside, self.outside) if sent else (self.outside, self.inside)
        near = {"ingress": source, "egress": target}.get(chain.hook)
        if near is not None and chain.devices and near not in chain.devices:
            return None
        translated = {
            "ingress": False,
            "prerouting": chain.priority > _TRANSLATED and not sent,
            "forward": not sent or chain.priority > _TRANSLATED,
        }.get(chain.hook, True)
        address = self.public if translated == sent else self.private
        return Packet(
            iif=None if chain.hook == "egress" else source,
            oif=None if chain.hook in ("ingress", "prerouting") else target,
            source=address if sent else _INTERNET,
            destination=_INTERNET if sent else address,
            protocol="tcp",
            source_port=50000 if sent else 443,
            destination_port=443 if sent else 50000,
            tracked=None if chain.priority < _TRACKED else False,
            to_host=False,
        )

    def conditions(self, chain: _Hooked) -> list[tuple[str, str]]:
        """What tells such packets in a chain from others: pairs of a word and a value."""
        packet = self.packet(chain)
        assert packet is not None
        found = [("i", packet.iif), ("o", packet.oif)]
        if chain.hook == "forward":
            return [(word, value) for word, value in found if value]
        near = packet.source if self.what == _SENT else packet.destination
        if chain.hook == "postrouting":
            found = found[1:]  # iptables has no other there
        bound = [(word, value) for word, value in found if value and chain.hook != "ingress"]
        return [*bound, ("s" if self.what == _SENT else "d", str(near))]


def obstacles(rulesets: Rulesets, crossing: Crossing) -> list[Obstacle]:
    """The chains that keep a gateway from working, one finding each."""
    found = []
    for chain in _hooked(rulesets):
        dropped = [(way, *ending) for way in _paths(crossing) for ending in _dropping(chain, way)]
        if not dropped:
            continue
        kinds = list(dict.fromkeys(way.what for way, _, _ in dropped))
        by = list(dict.fromkeys(by for _, by, _ in dropped))
        found.append(
            Obstacle(
                chain.place,
                " and ".join(by),
                " and ".join(kinds),
                _opening(chain, [way for way, _, _ in dropped]),
                all(certain for _, _, certain in dropped),
            )
        )
    return found


def skipped(rulesets: Rulesets, crossing: Crossing) -> list[str]:
    """Rules that change packets of the gateway's, as far as they come to netfilter: a fast path
    has them skip it."""
    found = []
    for chain in _hooked(rulesets):
        for way in _paths(crossing):
            packet = way.packet(chain)
            if packet is None:
                continue
            found += [
                f"{chain.place}: {rule.text}"
                for rule in reached(chain.chains, chain.chain, packet)
                if rule.changes
            ]
    return list(dict.fromkeys(found))


def _paths(crossing: Crossing) -> Iterator[_Way]:
    if not crossing.public_ips or not crossing.private_prefixes:
        return
    private = crossing.private_prefixes[0].network_address
    if crossing.private_prefixes[0].num_addresses > 4:
        private += 4
    for inside in crossing.inside:
        for what in (_SENT, _ANSWERED):
            yield _Way(what, inside, crossing.outside, private, crossing.public_ips[0])


def _dropping(chain: _Hooked, way: _Way) -> Iterator[tuple[str, bool]]:
    """By what a chain drops such a packet, if it does, and whether for certain."""
    packet = way.packet(chain)
    if packet is None:
        return
    walked = walk(chain.chains, chain.chain, packet)
    # nft before 1.0.7 does not tell which device a chain is for.
    nowhere = chain.hook in ("ingress", "egress") and not chain.devices
    certain = not walked.may(ACCEPT, QUEUE, UNKNOWN) and not nowhere
    final = walked.final
    if final.verdict == DROP:
        within = "" if final.chain == chain.chain else f" in chain {final.chain}"
        yield f"the rule “{final.rule}”{within}", certain
    elif final.verdict == THROUGH and chain.drops and not chain.ours:
        yield "its policy", certain


def _opening(chain: _Hooked, ways: Iterable[_Way]) -> str:
    conditions = [way.conditions(chain) for way in ways]
    if chain.command:
        lines = [
            " ".join(
                [
                    f"{chain.command} -t {chain.table} -I {chain.chain}",
                    *(f"-{word} {value}" for word, value in condition),
                    "-j ACCEPT",
                ]
            )
            for condition in conditions
        ]
        return "; ".join(lines)
    words = {"i": "iifname", "o": "oifname", "s": "ip saddr", "d": "ip daddr"}
    rules = [
        " ".join(
            [
                f"insert rule {chain.family} {chain.table} {chain.chain}",
                *(
                    f'{words[word]} "{value}"' if word in "io" else f"{words[word]} {value}"
                    for word, value in condition
                ),
                "accept",
            ]
        )
        for condition in conditions
    ]
    return f"nft '{'; '.join(rules)}'"


def _hooked(rulesets: Rulesets) -> Iterator[_Hooked]:
    """Every chain that packets which are forwarded come to."""
    seen = set()
    for command, text in rulesets.iptables.items():
        own = command == rulesets.own
        for table, (policies, chains) in iptables.read(text).items():
            if "nft" in command or (own and rulesets.own_is_nft):
                seen.add(table)
            if table not in _PRIORITIES:
                continue
            theirs = iptables.without_ours(chains, OURS)
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
    for (family, name), table_ in nft.read(rulesets.nft).items():
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
