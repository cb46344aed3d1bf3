"""Where the jumps to our chains stand among the host's own rules of a built-in chain.

FIRST: ahead of all of them; ours take nothing from packets that are not ours. LATE: behind what
only changes packets or drops them (a host's TCPMSS, MARK, DSCP; what the queue has passed skips the
rest of the chain), but ahead of the first rule that may end the chain for packets of ours, so that
nothing passes beside the queue. LAST: behind all existing rules; in force is what the host decides.
A jump is moved in one transaction: at no moment is there none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from gateway.datapath.firewall.parse_iptables import read_rule
from gateway.datapath.firewall.traversal import ACCEPT, QUEUE, UNKNOWN, Packet, Rule, walk


class Place(Enum):
    """See above."""

    FIRST = "first"
    LATE = "late"
    LAST = "last"


@dataclass(frozen=True)
class Jump:
    """From a built-in chain of a table to one of ours. ``meets``: packets that must come to it."""

    table: str
    hook: str
    name: str
    place: Place
    meets: tuple[Packet, ...] = ()


def moves(
    saved: Mapping[str, list[str]], jumps: Iterable[Jump], prefix: str
) -> tuple[str, list[str]]:
    """Input for ``iptables-restore --noflush`` that sets the jumps that are missing and moves those
    that stand wrong; and which had to be moved, by their chains. ``saved``: each table's ``-N`` and
    ``-A`` lines; ``prefix``: of every gateway's chains."""
    lines: dict[str, list[str]] = {}
    moved = []
    for jump in jumps:
        rules = saved.get(jump.table, [])
        standing = [line for line in rules if line.startswith(f"-A {jump.hook} ")]
        ours = f"-A {jump.hook} -j {jump.name}"
        others = [line for line in standing if line != ours]
        wanted = _wanted(jump, others, rules, prefix)
        places = [at for at, line in enumerate(standing) if line == ours]
        if len(places) == 1 and (
            jump.place is Place.LAST
            or _foreign(standing[: places[0]], prefix) == _foreign(others[:wanted], prefix)
        ):
            continue
        change = lines.setdefault(jump.table, [])
        change += [f"-D {jump.hook} -j {jump.name}"] * len(places)
        change.append(
            f"-I {jump.hook} {wanted + 1} -j {jump.name}"
            if wanted < len(others)
            else f"-A {jump.hook} -j {jump.name}"
        )
        if places:
            moved.append(jump.name)
    text = "".join(
        "\n".join([f"*{table}", *change, "COMMIT", ""]) for table, change in lines.items()
    )
    return text, moved


def _wanted(jump: Jump, others: list[str], rules: list[str], prefix: str) -> int:
    """How many of the others shall stand ahead of it."""
    if jump.place is Place.FIRST:
        return 0
    if jump.place is Place.LAST:
        return len(others)
    for at, ends in enumerate(_may_end(jump, others, rules, prefix)):
        if ends:
            return at
    return len(others)


def _may_end(jump: Jump, others: list[str], rules: list[str], prefix: str) -> Iterator[bool]:
    names = [line.split()[1] for line in rules if line.startswith("-N ")]
    chains: dict[str, list[Rule]] = {name: [] for name in names}
    for line in rules:
        if line.startswith("-A "):
            chains.setdefault(line.split(maxsplit=2)[1], []).append(read_rule(line, names))
    for line in others:
        rule = read_rule(line, names)
        if rule.target.startswith(prefix):
            yield False  # another gateway's, which is not about what is ours
            continue
        chains["a rule"] = [rule]
        yield any(
            walk(chains, "a rule", packet).may(ACCEPT, QUEUE, UNKNOWN) for packet in jump.meets
        )


def _foreign(lines: list[str], prefix: str) -> int:
    """How many are no gateway's: two gateways do not fight for the first place."""
    return sum(not line.split()[-1].startswith(prefix) for line in lines)
