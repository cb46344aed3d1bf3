"""What this host must offer: small probes, each with the sentence that a user reads.

Run before anything is changed: an essential finding that fails stops the start. ``check --host``
prints them all. A probe that needs to try something (a netfilter target) tries it in a chain of
its own that nothing jumps to, and removes it.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from struct import pack

from gateway.datapath.errors import DatapathError
from gateway.datapath.firewall.obstacles import obstacles, skipped
from gateway.datapath.firewall.packet_paths import Crossing
from gateway.datapath.firewall.ruleset_dump import read_host
from gateway.datapath.guard import egress_table
from gateway.datapath.guard.egress_guard import why_not
from gateway.datapath.host import fragment_marks
from gateway.datapath.host.addresses_and_routes import (
    OPTIONAL_SYSCTLS,
    Link,
    find_link,
    host_addresses,
    routed_by_itself,
    sysctl_is_writable,
    wanted_sysctls,
)
from gateway.datapath.host.interface_lock import InterfaceLocks, is_claimed
from gateway.datapath.host.netfilter import IPV4, IPV6, Netfilter
from gateway.datapath.host.netfilter_rules import PREFIX, Chain, ipv6_is_forwarded

FIREWALL = "firewall"
"""A finding's name."""
_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}  # linux/capability.h
_NETLINK_NETFILTER = 12  # linux/netlink.h
# struct nlmsghdr: NFNL_SUBSYS_QUEUE and NFQNL_MSG_CONFIG, NLM_F_REQUEST; struct nfgenmsg
_QUEUE_REQUEST = pack("=IHHII BB2s", 20, 3 << 8 | 2, 1, 0, 0, socket.AF_UNSPEC, 0, b"\xff\xff")
_PROBES = re.compile(r"probe-[0-9a-f]{12}")  # longer than an interface's name may be
_FEATURES = (
    ("NFQUEUE", "mangle", "-j NFQUEUE --queue-num 65535", "xt_NFQUEUE, nfnetlink_queue"),
    ("notrack", "raw", "-j CT --notrack", "xt_CT"),
    ("addrtype match", "mangle", "-m addrtype ! --src-type LOCAL -j RETURN", "xt_addrtype"),
    ("socket match", "mangle", "-p tcp -m socket -j RETURN", "xt_socket"),
    ("comments", "mangle", "-m comment --comment Reason -j RETURN", "xt_comment"),
)


@dataclass(frozen=True)
class Finding:
    """One probe's answer; ``ok`` None is worth knowing, neither good nor bad."""

    name: str
    ok: bool | None
    sentence: str
    essential: bool = True  # a failure stops the start

    @property
    def stops(self) -> bool:
        """Whether a gateway cannot start without it."""
        return self.essential and self.ok is False

    @property
    def fails(self) -> bool:
        """Whether it stops the start, or the gateway would run and its packets not arrive."""
        return self.stops or (self.name == FIREWALL and self.ok is False)


def probe(  # noqa: PLR0913
    inside: Iterable[str],
    outside: str,
    public_ips: Iterable[IPv4Address],
    private_prefixes: Iterable[IPv4Network],
    probe_source: IPv4Address | None = None,
    *,
    mark_fragments: bool = False,
    fast_path: bool = True,
    subnets: Iterable[IPv4Network] = (),
    hairpin: bool = False,
) -> list[Finding]:
    """Everything that a gateway on these interfaces needs. Changes nothing that stays.

    ``probe_source``: where health probes are sent from, if there are any. ``mark_fragments``: it
    matters what came in fragments. ``fast_path``: there may be one. ``subnets``, ``hairpin``: as a
    ``Crossing`` has them.
    """
    inside, publics, prefixes = tuple(inside), tuple(public_ips), tuple(private_prefixes)
    findings = list(_capabilities())
    able = not any(finding.stops for finding in findings)
    if able:
        findings += _netfilter()
        if mark_fragments:
            findings.append(_fragments())
        crossing = Crossing(inside, outside, publics, prefixes, tuple(subnets), hairpin)
        findings += _firewall(crossing, fast_path=fast_path)
    links = {name: find_link(name) for name in (*inside, outside)}
    for name, link in links.items():
        findings += _interface(name, link, prefixes if name in inside else None)
    if able and links[outside] is not None:
        findings.append(_guard(outside))
    if all(links.values()):
        findings += _sysctls(inside, outside)
    findings += _public_ips(publics, outside, links[outside])
    findings += _overlaps(publics, prefixes, outside, links[outside])
    if probe_source is not None:
        findings.append(_probe_source(probe_source))
    return findings


def _guard(outside: str) -> Finding:
    problem = why_not(outside)
    if not problem:
        sentence = f"a guard can stand on {outside}, whatever flushes rules (classic BPF at tc)"
        return Finding("guard", True, sentence, False)
    less = egress_table.why_not(outside)
    lacks = f"no guard can stand on {outside} (kernel: sch_ingress, cls_bpf): {problem}"
    sentence = (
        f"{lacks}; nor in nftables (kernel: CONFIG_NETFILTER_EGRESS, 5.16): {less}; the netfilter "
        "rules alone keep private addresses in, and who flushes them opens the gateway for a moment"
        if less
        else f"{lacks}; it can stand in nftables' egress instead, where nft flush ruleset takes it "
        "away once the daemon is dead"
    )
    return Finding("guard", not less, sentence, False)


def _probe_source(address: IPv4Address) -> Finding:
    taken = address in host_addresses() or routed_by_itself(address)
    sentence = (
        f"{address}, where health probes come from, is used by this host itself (a VM of "
        "Azure's?): take the probes out of the configuration"
        if taken
        else f"health probes can be sent from {address}"
    )
    return Finding("probe source", not taken, sentence)


def _capabilities() -> Iterator[Finding]:
    effective = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    for name, bit in _CAPABILITIES.items():
        has = bool(effective >> bit & 1)
        yield Finding(
            name,
            has,
            f"this process has {name}" if has else f"this process lacks {name}: run it as root",
        )


def _netfilter() -> Iterator[Finding]:
    try:
        IPV4.check()
    except DatapathError as error:
        yield Finding("iptables-restore", False, error.problems[0])
        return
    yield Finding("iptables-restore", True, "iptables-restore can load rules")
    # A probe has a name that no other process and no interface has (these are shorter), and claims
    # it: process ids mean nothing to a prober in another container of this network namespace.
    for instance in IPV4.instances():
        if _PROBES.fullmatch(instance) and not is_claimed(instance):
            IPV4.remove(instance)  # of one that was killed
    instance = f"probe-{secrets.token_hex(6)}"
    with InterfaceLocks([instance]):
        yield from _features(instance)
    yield from _queue_and_ipv6()


def _features(instance: str) -> Iterator[Finding]:
    for name, table, rule, modules in _FEATURES:
        problem = _try_rule(IPV4, instance, table, rule)
        works = f"netfilter can do {name}"
        fails = f"netfilter cannot do {name} (kernel: {modules}): {problem}"
        yield Finding(name, not problem, fails if problem else works)


def _fragments() -> Finding:
    try:
        fragment_marks.check()
    except DatapathError as error:
        sentence = f"azure-current's SNAT drops fragments, and nft has to mark them: {error}"
        return Finding("nft", False, sentence)
    return Finding("nft", True, "nft can mark fragments")


def _firewall(crossing: Crossing, *, fast_path: bool) -> Iterator[Finding]:
    """What the host's own rules do to what a gateway passes: it starts, and nothing arrives."""
    rulesets = read_host()
    found = obstacles(rulesets, crossing)
    for obstacle in found:
        ok = False if obstacle.critical else None
        yield Finding(FIREWALL, ok, obstacle.sentence, False)
    if not found:
        passes = f"the host's own firewall lets pass {' and '.join(crossing.kinds)}"
        yield Finding(FIREWALL, True, f"{passes} (walked for {crossing.extent})")
    changing = skipped(rulesets, crossing) if fast_path else []
    if changing:
        more = f" and {len(changing) - 1} more" if len(changing) > 1 else ""
        sentence = (
            "what the fast path carries is not changed by rules of the host "
            f"({changing[0]}{more}): gateway.fastPath = off has them see every packet"
        )
        yield Finding("host rules", None, sentence, False)


def _queue_and_ipv6() -> Iterator[Finding]:
    _speak_to_queue()
    counters = Path("/proc/net/netfilter/nfnetlink_queue")
    if counters.exists():
        yield Finding("nfnetlink_queue", True, "this kernel has nfnetlink_queue")
    else:
        yield Finding(
            "nfnetlink_queue", False, f"this kernel has no nfnetlink_queue: no {counters}"
        )
    if IPV6.available():
        yield Finding("IPv6", None, "IPv6 is not translated and not forwarded from inside", False)
    elif ipv6_is_forwarded():
        sentence = "this host forwards IPv6 and ip6tables does not work: it could not be kept in"
        yield Finding("IPv6", False, sentence)
    else:
        yield Finding(
            "IPv6", None, "ip6tables does not work here, and IPv6 is not forwarded", False
        )


def _speak_to_queue() -> None:
    """Ask for the settings of no queue: where it is a module, this makes the kernel load it."""
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink,
    ):
        netlink.sendto(_QUEUE_REQUEST, (0, 0))


def _try_rule(netfilter: Netfilter, instance: str, table: str, rule: str) -> str:
    """What is wrong with a rule in this kernel; empty: nothing."""
    chain = Chain(table, "", f"{PREFIX}{instance}-ok", (rule,))
    problem = ""
    try:
        netfilter.try_out(chain)
    except DatapathError as error:
        problem = error.problems[0]
    finally:
        netfilter.remove(instance)
    return problem


def _interface(
    name: str, link: Link | None, prefixes: tuple[IPv4Network, ...] | None
) -> Iterator[Finding]:
    """``prefixes``: of the virtual network, for an inside interface; None for the outside one."""
    side = "outside" if prefixes is None else "inside"
    if link is None:
        yield Finding(name, False, f"{name}: there is no such interface (gateway.{side})")
        return
    up = f"{name} is up" if link.up else f"{name} is down: ip link set {name} up"
    yield Finding(name, link.up, up)
    if is_claimed(name):
        yield Finding(name, None, f"{name} belongs to a gateway that runs now", False)
    if not link.addresses:
        sentence = f"{name} has no IPv4 address: give it one in the network that it is connected to"
        yield Finding(name, False, sentence, prefixes is None)
        return
    listed = ", ".join(str(address) for address in link.addresses)
    if prefixes is None or any(a.ip in p for a in link.addresses for p in prefixes):
        yield Finding(name, True, f"{name} has {listed}")
        return
    wanted = ", ".join(map(str, prefixes))
    sentence = f"{name} has {listed}, which is not in the virtual network ({wanted})"
    yield Finding(name, False, sentence, False)


def _sysctls(inside: tuple[str, ...], outside: str) -> Iterator[Finding]:
    for interface, name, value in wanted_sysctls(inside, outside):
        if name in OPTIONAL_SYSCTLS:
            continue
        setting = f"net.ipv4.conf.{interface}.{name}"
        writable = sysctl_is_writable(interface, name)
        yield Finding(
            setting,
            writable,
            f"{setting} will be set to {value} while the gateway runs"
            if writable
            else f"{setting} must be {value} and cannot be written: set it from outside",
        )


def _public_ips(
    publics: tuple[IPv4Address, ...], outside: str, link: Link | None
) -> Iterator[Finding]:
    own = host_addresses()
    for address in publics:
        if address in own:
            sentence = (
                f"{address} is this host's own address on {own[address]}: the gateway would take "
                "all of the host's packets; choose an address that no interface has"
            )
            yield Finding(str(address), False, sentence)
        elif link is None:
            continue  # said already, and nothing to answer with
        elif not any(address in a.network for a in link.addresses):
            sentence = (
                f"{address} is in no network of {outside}: the routers there must have a route "
                "for it to this host"
            )
            yield Finding(str(address), None, sentence, False)
        else:
            yield Finding(str(address), True, f"{outside} can answer for {address}")


def _overlaps(
    publics: tuple[IPv4Address, ...],
    prefixes: tuple[IPv4Network, ...],
    outside: str,
    link: Link | None,
) -> Iterator[Finding]:
    """The rules let nothing private cross the outside interface: not this host's packets either."""
    for address in publics:
        for prefix in prefixes:
            if address in prefix:
                sentence = (
                    f"{address} is a public IP and in the virtual network ({prefix}): "
                    "one of them must change"
                )
                yield Finding(str(address), False, sentence)
    for network in sorted({a.network for a in link.addresses} if link is not None else ()):
        for prefix in prefixes:
            if network.overlaps(prefix):
                sentence = (
                    f"{outside} is in {network}, which overlaps the virtual network ({prefix}): "
                    "this host's own packets there would be dropped; one of them must change"
                )
                yield Finding(outside, False, sentence)
