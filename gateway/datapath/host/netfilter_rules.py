"""The netfilter rules of one gateway, chain by chain; ``netfilter.py`` loads them.

All rules stand in chains of our own, named after the gateway's instance; a chain is replaced whole
in one transaction, so that taking over what a crash left opens no gap. Into the built-in chains
goes one jump each (``jump_placement.py``: where). Without a reader on the queue nothing passes.
There is no bypass.

``raw`` keeps connection tracking away from what the engine translates, and drops what must not
reach it: a public address as source (in FORWARD only a hairpin, already translated, may have one),
the private network as either end of a packet from outside, and what a VM sends to this host with a
source whose answer would go elsewhere than back to it.
``mangle`` diverts: inbound and hairpin before routing, outbound after it, the ICMP errors that this
host itself sends outward, and the first packets of its health probes. Its last word is in
POSTROUTING: no address of the VNet's leaves at either end, whatever sent it.
``filter`` accepts what was diverted where the host's policy would not (Docker sets it to DROP);
after the host's own rules, which stay in force.

Each drop has a reason (``schema/drop_reasons.py``), and each reason a chain with one rule, whose
counter ``rule_counters.py`` reads: rules that drop go to it. However many public IPs there are,
these are few.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from gateway.datapath.firewall.traversal import Packet
from gateway.datapath.host.jump_placement import Place
from gateway.schema.drop_reasons import DecidedBy, DropReason

PREFIX = "snatgw-"
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")
_ERRORS = (3, 11, 12)  # ICMP: unreachable, time exceeded, parameter problem
DROPPED_BY_RULES = tuple(reason for reason in DropReason if DecidedBy.RULE in reason.decided_by)
"""A drop chain's name has its reason's place among these; its rule's comment has the reason."""


@dataclass(frozen=True)
class QueueNumbers:
    """Two open queues (``queue.py`` says why two)."""

    tcp: int
    other: int


@dataclass(frozen=True)
class DiversionPlan:
    """What is diverted where. Interfaces are names; ``queues`` are open."""

    inside: tuple[str, ...]
    outside: str
    public_ips: tuple[IPv4Address, ...]
    private_prefixes: tuple[IPv4Network, ...]
    queues: QueueNumbers
    probe_source: IPv4Address | None = None  # None: no health probes are sent
    mark_fragments: bool = False  # see ``fragment_marks.py``
    subnets: tuple[IPv4Network, ...] = ()  # of the virtual network; where there are VMs

    @property
    def instance(self) -> str:
        """The gateway's name on this host: an outside interface belongs to one gateway only."""
        return instance_name(self.outside)


def instance_name(outside: str) -> str:
    """A name for chains and files; the interface's own where that is plain enough."""
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,15}", outside):
        return outside
    return hashlib.sha256(outside.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Chain:
    """A chain of ours: the built-in one that jumps to it (empty: none does), and its rules."""

    table: str
    hook: str
    name: str
    rules: tuple[str, ...]
    place: Place = Place.FIRST  # among the host's own rules
    meets: tuple[Packet, ...] = ()  # see ``jump_placement.py``
    counts: DropReason | None = None  # why its rule drops whatever comes here


def ipv4_chains(
    plan: DiversionPlan,
    *,
    guard_outside: bool = True,
    reverse_path: bool = True,
    bridged: bool = False,
) -> list[Chain]:
    """The IPv4 rules, chain by chain.

    ``guard_outside``: from outside nothing is forwarded that was not translated. To be left off
    where the host forwards from there for reasons of its own. ``reverse_path``: netfilter can ask
    by which interface an answer would go; without it this host's own packets from private addresses
    that other interfaces have do not leave. ``bridged``: netfilter sees what bridges carry, too.
    """
    name = f"{PREFIX}{plan.instance}"
    queue = f"-g {name}-queue"
    forged_outside = _to_drop(name, DropReason.SOURCE_NOT_OUTSIDE)
    forged_inside = _to_drop(name, DropReason.SOURCE_NOT_IN_VIRTUAL_NETWORK)
    elsewhere = _to_drop(name, DropReason.SOURCE_NOT_BEHIND_INTERFACE)
    unknown = _to_drop(name, DropReason.PUBLIC_ADDRESS_UNKNOWN)
    private = _to_drop(name, DropReason.PRIVATE_ADDRESS_OUTSIDE)
    redirect = _to_drop(name, DropReason.ICMP_REDIRECT)
    queues = (
        f"-p tcp -j NFQUEUE --queue-num {plan.queues.tcp}",
        f"-j NFQUEUE --queue-num {plan.queues.other}",
    )
    outside, inside = plan.outside, plan.inside
    publics = [f"{address}/32" for address in plan.public_ips]
    probes = [] if plan.probe_source is None else [f"{plan.probe_source}/32"]
    opening = "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN"
    return [
        Chain(
            "raw",
            "PREROUTING",
            f"{name}-raw",
            (
                *(f"-i {i} -s {p} {forged_inside}" for i in inside for p in (*publics, *probes)),
                *(
                    f"-i {outside} -s {p} {forged_outside}"
                    for p in (*publics, *map(str, plan.private_prefixes), *probes)
                ),
                *(
                    f"-i {outside} -d {p} {unknown}"
                    for p in (*map(str, plan.private_prefixes), *probes)
                ),
                # A VM that forges its source makes this host answer it, from any of its addresses
                # and to the outside.
                *(
                    f"-i {i} -m addrtype --dst-type LOCAL -m rpfilter --invert {elsewhere}"
                    for i in inside
                    if reverse_path
                ),
                # What VMs and this host say to each other is for the host's own stateful rules. At
                # its outside addresses it may be an answer to what it asked a public IP: translated
                # here already, ahead of connection tracking, which knows what the host asked.
                *(
                    f"-i {i} -d {d} -m addrtype --dst-type LOCAL -j RETURN"
                    for i in inside
                    for d in (*plan.private_prefixes, *probes)
                ),
                *(f"-i {i} -m addrtype --dst-type LOCAL {queue}" for i in inside),
                # Nor is what is for all of a network, this host among them, ours to keep untracked.
                *(
                    f"-i {i} -m addrtype --dst-type {kind} -j RETURN"
                    for i in inside
                    for kind in ("BROADCAST", "MULTICAST")
                ),
                *(f"-i {i} -j CT --notrack" for i in inside),
                *(f"-d {public} -j CT --notrack" for public in publics),
            ),
        ),
        Chain("raw", "", f"{name}-queue", queues),
        _drop_chain("raw", name, DropReason.SOURCE_NOT_OUTSIDE),
        _drop_chain("raw", name, DropReason.SOURCE_NOT_IN_VIRTUAL_NETWORK),
        _drop_chain("raw", name, DropReason.SOURCE_NOT_BEHIND_INTERFACE),
        _drop_chain("raw", name, DropReason.PUBLIC_ADDRESS_UNKNOWN),
        Chain(
            "mangle",
            "PREROUTING",
            f"{name}-pre",
            (
                # From wherever: other networks of this host reach the public IPs, too.
                *(f"-d {public} {queue}" for public in publics),
                # Where probes come from, VMs find nothing else: what is no answer is dropped.
                *(
                    rule
                    for i in inside
                    for p in probes
                    for rule in (
                        f"-i {i} -d {p} {opening} {queue}",
                        f"-i {i} -d {p} -p tcp -j RETURN",
                        f"-i {i} -d {p} {queue}",
                    )
                ),
            ),
            Place.LATE,
            (
                *(Packet(destination=address, tracked=False) for address in plan.public_ips),
                *(Packet(iif=i, destination=plan.probe_source) for i in inside if probes),
            ),
        ),
        Chain("mangle", "", f"{name}-queue", queues),
        _drop_chain("mangle", name, DropReason.SOURCE_NOT_BEHIND_INTERFACE),
        _drop_chain("mangle", name, DropReason.PUBLIC_ADDRESS_UNKNOWN),
        _drop_chain("mangle", name, DropReason.PRIVATE_ADDRESS_OUTSIDE),
        _drop_chain("mangle", name, DropReason.ICMP_REDIRECT),
        # Nothing jumps here. That a rule with a socket match exists is what makes the kernel
        # reassemble fragments before its hooks; connection tracking, which would do so too, is not
        # in use for these packets.
        Chain("mangle", "", f"{name}-frag", ("-p tcp -m socket -j RETURN",)),
        Chain(
            "mangle",
            "FORWARD",
            f"{name}-fwd",
            (
                # The two that nearly all packets meet come first.
                *(f"-i {i} -o {outside} {queue}" for i in inside),
                *(
                    f"-i {outside} -o {o} -d {prefix} -j RETURN"
                    for o in inside
                    for prefix in plan.private_prefixes
                ),
                *(
                    f"-i {i} -o {o} -s {public} -j RETURN"
                    for i in inside
                    for o in inside
                    for public in publics
                ),
                # What a bridge carries between its ports is not routed, and none of our business.
                *(
                    f"-i {i} -o {i} -m physdev --physdev-is-bridged -j RETURN"
                    for i in inside
                    if bridged
                ),
                # To an inside network, or an answer to another network that asked a public IP.
                *(f"-i {i} {queue}" for i in inside),
                *(f"-i {outside} -o {o} {unknown}" for o in inside),
                # Forwarding is on for the outside interface because of us, and only for us.
                *([f"-i {outside} {unknown}"] if guard_outside else []),
            ),
            Place.LATE,
            (
                *(Packet(iif=i, tracked=False) for i in inside),
                *(Packet(iif=outside, oif=o, tracked=False) for o in inside),
            ),
        ),
        Chain(
            "mangle",
            "OUTPUT",
            f"{name}-out",
            (
                # The gateway's own RSTs, where the "public" IPs of a lab are private ones.
                *(
                    f"-o {outside} -s {public} -p tcp -m tcp --tcp-flags RST RST -j RETURN"
                    for public in publics
                ),
                *(
                    f"-o {outside} -s {prefix} -m addrtype ! --src-type LOCAL --limit-iface-out"
                    f" {elsewhere}"
                    for prefix in PRIVATE
                    if not reverse_path
                ),
                # Errors may quote what the inside sees; this host's own pings do not need us.
                *(f"-o {outside} -p icmp -m icmp --icmp-type {kind} {queue}" for kind in _ERRORS),
                # A VM has one router. One about a hairpin would look for a public IP inside.
                *(f"-o {i} -p icmp -m icmp --icmp-type 5 {redirect}" for i in inside),
                # This host reaches the public IPs as who is outside does.
                *(f"-d {public} {queue}" for public in publics),
                # A probe's first packet is evaluated as what comes from outside is.
                *(f"-o {i} -s {p} {opening} {queue}" for i in inside for p in probes),
            ),
        ),
        Chain(
            "mangle",
            "POSTROUTING",
            f"{name}-post",
            (
                *(
                    f"-o {outside} -s {prefix} {private}"
                    for prefix in (*plan.private_prefixes, *probes)
                ),
                # A reply that was translated, with the way inside gone.
                *(f"-o {outside} -d {prefix} {private}" for prefix in plan.private_prefixes),
            ),
        ),
        Chain(
            "filter",
            "INPUT",
            f"{name}-in",
            tuple(f"-i {i} -d {p} -p tcp -j ACCEPT" for i in inside for p in probes),
            place=Place.LAST,
        ),
        Chain(
            "filter",
            "FORWARD",
            f"{name}-ok",
            (
                *(f"-i {i} -o {outside} -j ACCEPT" for i in inside),
                *(f"-i {outside} -o {o} -j ACCEPT" for o in inside),
                *(f"-i {i} -o {o} -j ACCEPT" for i in inside for o in inside),
                *(f"-i {i} -s {public} -j ACCEPT" for i in inside for public in publics),
            ),
            place=Place.LAST,
        ),
    ]


def ipv6_chains(plan: DiversionPlan) -> list[Chain]:
    """IPv6 is not translated: from inside it goes to inside or nowhere."""
    name = f"{PREFIX}{plan.instance}"
    drop = _to_drop(name, DropReason.IPV6_NOT_SUPPORTED)
    return [
        Chain(
            "mangle",
            "FORWARD",
            f"{name}-fwd",
            (
                *(f"-i {i} -o {o} -j RETURN" for i in plan.inside for o in plan.inside),
                *(f"-i {i} {drop}" for i in plan.inside),
            ),
        ),
        _drop_chain("mangle", name, DropReason.IPV6_NOT_SUPPORTED),
    ]


def _to_drop(name: str, reason: DropReason) -> str:
    return f"-g {name}-drop{DROPPED_BY_RULES.index(reason)}"


def _drop_chain(table: str, name: str, reason: DropReason) -> Chain:
    rule = f"-m comment --comment {reason.value} -j DROP"
    chain = f"{name}-drop{DROPPED_BY_RULES.index(reason)}"
    return Chain(table, "", chain, (rule,), counts=reason)


def bridges_are_seen() -> bool:
    """Whether ``br_netfilter`` is there. A rule with a physdev match would load it otherwise, and
    change what all of this host's bridges do."""
    return Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()


def ipv6_is_forwarded() -> bool:
    """Whether this host forwards IPv6 at all, so that it must be kept in."""
    try:
        return Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text().strip() != "0"
    except OSError:
        return False
