"""Netfilter through the programs of iptables: chains are loaded, read and removed.

A table is one transaction of ``iptables-restore --noflush``. What stands is what ``iptables-save``
prints. What the chains hold is ``netfilter_rules.py``'s.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator

from gateway.datapath.errors import DatapathError
from gateway.datapath.firewall.parse_iptables import saved_lines
from gateway.datapath.host.jump_placement import Jump, moves
from gateway.datapath.host.netfilter_rules import PREFIX, Chain

TIMEOUT = 30  # seconds that a netfilter command may take
_ENDS = r"raw|pre|frag|fwd|out|post|queue|ok|in|drop\d"  # of our chains' names


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
        """Set a chain that nothing jumps to; the caller removes its instance again."""
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
        """Queues that rules send to, with a reader or without."""
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
        for line in saved_lines(self._run([f"{self.command}-save"])):
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
        return run(command, text, package="iptables")


def run(command: list[str], text: str = "", *, package: str) -> str:
    """What a netfilter command prints, undisturbed by signals to us. Raises DatapathError, whatever
    keeps it from doing its work. ``package``: Debian's, that has it."""
    try:
        with undisturbed():
            done = subprocess.run(
                command,
                input=text,
                capture_output=True,
                text=True,
                errors="surrogateescape",  # a comment may have any bytes, and goes back as it came
                timeout=TIMEOUT,
                check=False,
            )
    except FileNotFoundError:
        problem = f"{command[0]} is not installed (Debian's package {package} has it)"
        raise DatapathError([problem]) from None
    except subprocess.TimeoutExpired:
        raise DatapathError([f"{' '.join(command)} did not end in {TIMEOUT} s"]) from None
    except OSError as error:  # no memory or descriptors, too many processes
        line = f"{command[0]} cannot be run: {error.strerror or error}"
        raise DatapathError([line]) from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        reason = said[0].encode(errors="replace").decode() if said else "failed without a word"
        raise DatapathError([f"{command[0]}: {reason}"])
    return done.stdout


IPV4, IPV6 = Netfilter("iptables"), Netfilter("ip6tables")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """What is started here does not get the signals that end a gateway; we do, after it.

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


def _by_table(chains: Iterable[Chain]) -> Iterator[tuple[str, list[Chain]]]:
    tables: dict[str, list[Chain]] = {}
    for chain in chains:
        tables.setdefault(chain.table, []).append(chain)
    # Diversion first: a table is one transaction, and what fails later fails at least closed.
    for table in ("mangle", "raw", "filter"):
        if table in tables:
            yield table, tables[table]
