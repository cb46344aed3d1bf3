"""The netfilter rules of one gateway, as text for ``iptables-restore``, and their loading.

All rules stand in chains of our own, named after the gateway's instance; a chain is replaced whole
in one transaction, so that taking over what a crash left opens no gap. Into the built-in chains
goes one jump each (``placing.py``: where). Nobody on the queue means: nothing passes. There is no
bypass.

``raw`` keeps connection tracking away from what the engine translates, and drops what must not
reach it: a public address as source (in FORWARD only a hairpin, already translated, may have one),
the private network as either end of a packet from outside, and what a VM sends to this host with a
source whose answer would go elsewhere than back to it.
``mangle`` diverts: inbound and hairpin before routing, outbound after it, the ICMP errors that this
host itself sends outward, and the first packets of its health probes. Its last word is in
POSTROUTING: no address of the VNet's leaves at either end, whoever sent it.
``filter`` accepts what was diverted where the host's policy would not (Docker sets it to DROP);
after the host's own rules, which stay in force.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from gateway.datapath.errors import DatapathError
from gateway.datapath.firewall.walking import Packet
from gateway.datapath.placing import Jump, Place, moves

PREFIX = "snatgw-"
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")
TIMEOUT = 30  # seconds that a netfilter command may take
_ERRORS = (3, 11, 12)  # ICMP: unreachable, time exceeded, parameter problem
_ENDS = "raw|pre|frag|fwd|out|post|queue|ok|in"  # of our chains' names


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
    mark_fragments: bool = False  # see ``fragments.py``
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
    meets: tuple[Packet, ...] = ()  # see ``placing.py``


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
                *(f"-i {i} -s {p} -j DROP" for i in (*inside, outside) for p in publics),
                *(f"-i {outside} -s {prefix} -j DROP" for prefix in plan.private_prefixes),
                *(f"-i {outside} -d {prefix} -j DROP" for prefix in plan.private_prefixes),
                *(f"-i {i} -s {p} -j DROP" for i in (*inside, outside) for p in probes),
                *(f"-i {outside} -d {p} -j DROP" for p in probes),
                # A VM that forges its source makes this host answer it, from any of its addresses
                # and to the outside.
                *(
                    f"-i {i} -m addrtype --dst-type LOCAL -m rpfilter --invert -j DROP"
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
        Chain(
            "mangle",
            "PREROUTING",
            f"{name}-pre",
            (
                # From wherever: other networks of this host reach the public IPs, too.
                *(f"-d {public} {queue}" for public in publics),
                # Where probes come from, VMs find nothing else: what is no answer is refused.
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
                *(f"-i {outside} -o {o} -j DROP" for o in inside),
                # Forwarding is on for the outside interface because of us, and only for us.
                *([f"-i {outside} -j DROP"] if guard_outside else []),
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
                    f"-o {outside} -s {private} -m addrtype ! --src-type LOCAL --limit-iface-out"
                    " -j DROP"
                    for private in PRIVATE
                    if not reverse_path
                ),
                # Errors may quote what the inside sees; this host's own pings do not need us.
                *(f"-o {outside} -p icmp -m icmp --icmp-type {kind} {queue}" for kind in _ERRORS),
                # A VM has one router. One about a hairpin would look for a public IP inside.
                *(f"-o {i} -p icmp -m icmp --icmp-type 5 -j DROP" for i in inside),
                # This host reaches the public IPs as who is outside does.
                *(f"-d {public} {queue}" for public in publics),
                # A probe's first packet is judged as what comes from outside is.
                *(f"-o {i} -s {p} {opening} {queue}" for i in inside for p in probes),
            ),
        ),
        Chain(
            "mangle",
            "POSTROUTING",
            f"{name}-post",
            (
                *(
                    f"-o {outside} -s {prefix} -j DROP"
                    for prefix in (*plan.private_prefixes, *probes)
                ),
                # A reply that was translated, with the way inside gone.
                *(f"-o {outside} -d {prefix} -j DROP" for prefix in plan.private_prefixes),
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
    return [
        Chain(
            "mangle",
            "FORWARD",
            f"{PREFIX}{plan.instance}-fwd",
            (
                *(f"-i {i} -o {o} -j RETURN" for i in plan.inside for o in plan.inside),
                *(f"-i {i} -j DROP" for i in plan.inside),
            ),
        )
    ]


def restore_text(chains: Iterable[Chain]) -> str:
    """Input for ``iptables-restore --noflush`` that sets these chains, replacing what they had."""
    lines = []
    for table, members in _by_table(chains):
        lines.append(f"*{table}")
        lines += [f":{chain.name} - [0:0]" for chain in members]
        lines += [f"-A {chain.name} {rule}" for chain in members for rule in chain.rules]
        lines.append("COMMIT")
    return "\n".join(lines) + "\n"


class Netfilter:
    """One address family's tables in this network namespace."""

    def __init__(self, command: str) -> None:
        self.command = command  # "iptables" or "ip6tables"

    def load(self, chains: list[Chain]) -> None:
        """Set the chains and make sure of the jumps to them, each once and in its place."""
        self._run([f"{self.command}-restore", "--noflush"], restore_text(chains))
        self.place(chains)

    def place(self, chains: list[Chain]) -> list[str]:
        """Put the jumps to where they belong; the chains whose jumps stood elsewhere."""
        jumps = [Jump(c.table, c.hook, c.name, c.place, c.meets) for c in chains if c.hook]
        text, moved = moves(self._saved(), jumps, PREFIX)
        if text:
            self._run([f"{self.command}-restore", "--noflush"], text)
        return moved

    def check(self) -> None:
        """Raises DatapathError if the commands are missing or may not change anything."""
        self._run([f"{self.command}-restore", "--noflush"], "*mangle\nCOMMIT\n")

    def try_out(self, chain: Chain) -> None:
        """Set a chain that nothing jumps to; whoever calls removes its instance again."""
        self._run([f"{self.command}-restore", "--noflush"], restore_text([chain]))

    def remove(self, instance: str) -> None:
        """Remove every chain of an instance, whatever it has, and the jumps to them."""
        names = re.compile(rf"{re.escape(PREFIX + instance)}-({_ENDS})")
        text = []
        for table, rules in self._saved().items():
            ours = [rule.split()[1] for rule in rules if rule.startswith("-N ")]
            ours = [name for name in ours if names.fullmatch(name)]
            if not ours:
                continue
            jumps = [
                rule.replace("-A ", "-D ", 1)
                for rule in rules
                if rule.startswith("-A ") and rule.split()[-1] in ours
            ]
            text += [f"*{table}", *jumps, *(f"-F {name}" for name in ours)]
            text += [*(f"-X {name}" for name in ours), "COMMIT"]
        if text:
            self._run([f"{self.command}-restore", "--noflush"], "\n".join(text) + "\n")

    def standing(self, instance: str) -> list[str]:
        """An instance's rules as the kernel has them now, and the jumps to them."""
        names = re.compile(rf".* {re.escape(PREFIX + instance)}-({_ENDS})( .*)?")
        return [
            f"{table} {rule}"
            for table, rules in self._saved().items()
            for rule in rules
            if names.fullmatch(rule)
        ]

    def instances(self) -> set[str]:
        """The instances that have chains here."""
        names = re.compile(rf"-N {PREFIX}(.+)-(?:{_ENDS})")
        found = (names.fullmatch(rule) for rules in self._saved().values() for rule in rules)
        return {match[1] for match in found if match}

    def queue_numbers(self) -> set[int]:
        """Queues that rules send to, whether somebody listens or not."""
        text = "\n".join(rule for rules in self._saved().values() for rule in rules)
        ranges = re.findall(r"--queue-balance (\d+):(\d+)", text)
        numbers = {int(number) for number in re.findall(r"--queue-num (\d+)", text)}
        return numbers.union(*(range(int(low), int(high) + 1) for low, high in ranges))

    def available(self) -> bool:
        """Whether the command works here at all (IPv6 may be off)."""
        return self._ask([self.command, "-t", "mangle", "-S"])

    def _saved(self) -> dict[str, list[str]]:
        """Each table's chains and rules, as ``-N`` and ``-A`` lines."""
        saved: dict[str, list[str]] = {}
        table = ""
        for line in self._run([f"{self.command}-save"]).splitlines():
            if line.startswith("*"):
                table = line[1:]
                saved[table] = []
            elif line.startswith(":"):
                saved[table].append(f"-N {line[1:].split()[0]}")
            elif line.startswith("-A "):
                saved[table].append(line)
        return saved

    def _ask(self, command: list[str]) -> bool:
        try:
            self._run(command)
        except DatapathError:
            return False
        return True

    def _run(self, command: list[str], text: str = "") -> str:
        try:
            with undisturbed():
                done = subprocess.run(
                    command,
                    input=text,
                    capture_output=True,
                    text=True,
                    timeout=TIMEOUT,
                    check=False,
                )
        except FileNotFoundError:
            problem = f"{command[0]} is not installed (Debian's package iptables has it)"
            raise DatapathError([problem]) from None
        except subprocess.TimeoutExpired:
            raise DatapathError([f"{' '.join(command)} did not end in {TIMEOUT} s"]) from None
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise DatapathError([f"{command[0]}: {said[0] if said else 'failed without a word'}"])
        return done.stdout


IPV4, IPV6 = Netfilter("iptables"), Netfilter("ip6tables")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """What is started here does not hear the signals that end a gateway; we do, after it.

    A terminal sends Ctrl-C to the whole process group and systemd SIGTERM to the whole service:
    the second one would end ``iptables-restore`` while it takes the rules away.
    """
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    )
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


def _by_table(chains: Iterable[Chain]) -> Iterator[tuple[str, list[Chain]]]:
    tables: dict[str, list[Chain]] = {}
    for chain in chains:
        tables.setdefault(chain.table, []).append(chain)
    # Diversion first: a table is one transaction, and what is refused later is refused at least.
    for table in ("mangle", "raw", "filter"):
        if table in tables:
            yield table, tables[table]
