"""One run of the benchmark: the gateways that are up, whose turn it is, what was found so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.figures import Alone, Row
from bench.forwarders import FORWARDERS, Forwarder
from bench.loads import Loads
from bench.namespaces import BenchError

ALL_FLOWS, PER_SOURCE = 63_488, 1024  # 62 VMs with 1,024 ports each: one public IP's worth
TOLERATED = 0.001
"""Of the SYNs, when the kernel masquerades."""
NO_TARGETS: Mapping[str, float] = {}


@dataclass
class Bench:
    """What the measurements work with and what they have found."""

    loads: Loads
    gateways: dict[str, Forwarder]
    seconds: float
    rounds: int
    say: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    alone: list[Alone] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Measurements that could not be made to their end, and why."""

    def row(
        self,
        name: str,
        title: str,
        unit: str,
        *,
        higher_is_better: bool = True,
        targets: Mapping[str, float] = NO_TARGETS,
    ) -> Row:
        """A new row of the table."""
        row = Row(name, title, unit, higher_is_better, dict(targets))
        self.rows.append(row)
        return row

    def turns(
        self, what: str, rounds: int | None = None, names: Sequence[str] = FORWARDERS
    ) -> Iterator[Forwarder]:
        """Each of the forwarders in turn, as often as there are rounds."""
        rounds = rounds or self.rounds
        for number in range(1, rounds + 1):
            self.say(f"{what}, round {number} of {rounds}")
            yield from (self.gateways[name] for name in names)


def fill(bench: Bench, gateway: Forwarder, turn: int, row: Row | None = None) -> None:
    """Every turn has a destination of its own, toward which all ports are free.

    The VMs are the one that the other loads use and the 61 addresses after it: no room for more.
    """
    said = bench.loads.flood(
        gateway,
        seconds=30,
        flows=ALL_FLOWS,
        to=f"198.19.0.{turn}",
        once=True,
        syn=True,
        per_source=PER_SOURCE,
    )
    # The kernel looks for a free port at random and not for ever: with 98 % of them taken it drops
    # a few SYNs.
    least = ALL_FLOWS * (1 - TOLERATED) if gateway.name == "masquerade" else ALL_FLOWS
    if said.received < least:
        raise BenchError(f"{gateway.name}: {said.received} of {ALL_FLOWS} SYNs arrived")
    if row is not None:
        row.add(gateway.name, said.per_second / 1e3)
