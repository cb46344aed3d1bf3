"""What happened, as data. ``time`` is Azure time in seconds, as everywhere in the core.

Events about packets are sampled: the first of a kind at once, then at most one per interval with
the count of those since, so that many packets make few events.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from gateway.model.profile import ExhaustionEvent
from gateway.schema.drop_reasons import DropReason


@dataclass(frozen=True, slots=True)
class PortsExhausted:
    """A VM had no SNAT port left on a public IP toward ``remote``; ``count`` packets dropped."""

    time: float
    vm: str
    public_ip: str
    protocol: str
    remote_ip: str
    remote_port: int
    count: int
    private_ip: str = ""
    owner: str = ""
    """What gives the ports: ``loadBalancers/lb``, ``natGateways/nat``, …"""
    shape: ExhaustionEvent | None = ExhaustionEvent.ALERT
    """As which of Azure's events it is reported; None: Azure has none for this."""


@dataclass(frozen=True, slots=True)
class HighSnatPortUsage:
    """A VM uses most of the SNAT ports that it is allocated on a public IP."""

    time: float
    vm: str
    public_ip: str
    protocol: str
    used: int
    allocated: int
    private_ip: str
    owner: str


@dataclass(frozen=True, slots=True)
class PacketsDropped:
    """``count`` packets were dropped for one reason; addresses are those of the last of them.

    Where the kernel dropped them there is only their number: no protocol, and empty addresses.
    """

    time: float
    reason: DropReason
    vm: str | None
    protocol: int | None
    source: str
    remote: str
    count: int
    rule: str | None = None  # "group/rule", where a security rule denied them


@dataclass(frozen=True, slots=True)
class SnatPortsReclaimed:
    """``ports`` SNAT ports were taken back from a VM; ``flows`` live flows on them are broken."""

    time: float
    vm: str
    public_ip: str
    ports: int
    flows: int


@dataclass(frozen=True, slots=True)
class FlowTableFull:
    """``count`` new flows were not opened, because the table holds its maximum."""

    time: float
    count: int


@dataclass(frozen=True, slots=True)
class FlowsEnded:
    """A reload took away what ``flows`` live flows stood on."""

    time: float
    flows: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProbeHealthChanged:
    """A backend went up or down by its probe; one for each rule that it is behind."""

    time: float
    balancer: str
    probe: str
    rule: str
    vm: str
    up: bool
    public_ip: str
    port: int  # of the rule's frontend
    total: int  # members of the pool
    down: int  # of them, this one counted as it is now


@dataclass(frozen=True, slots=True)
class NoHealthyBackends:
    """A rule of a Standard load balancer has no backend that is up; reported again every hour."""

    time: float
    balancer: str
    rule: str
    public_ip: str
    protocol: str
    port: int


Event = (
    PortsExhausted
    | HighSnatPortUsage
    | PacketsDropped
    | SnatPortsReclaimed
    | FlowTableFull
    | FlowsEnded
    | ProbeHealthChanged
    | NoHealthyBackends
)

Key = TypeVar("Key", bound=Hashable)
Detail = TypeVar("Detail")


class EventThrottle(Generic[Key, Detail]):
    """Lets one occurrence per key and interval through, with a count and the latest detail.

    ``maximum`` bounds the keys: beyond it, occurrences of new keys are counted in ``unsampled``.
    """

    def __init__(self, interval: float, maximum: int) -> None:
        self.interval = interval
        self.maximum = maximum
        self.unsampled = 0
        self._next_due = float("inf")
        self._open: dict[Key, tuple[float, int, Detail]] = {}  # end of the interval, count, last

    def note(self, key: Key, detail: Detail, now: float, times: int = 1) -> bool:
        """Count an occurrence, or several; True if they should be reported now."""
        entry = self._open.get(key)
        if entry is not None:
            self._open[key] = (entry[0], entry[1] + times, detail)
            return False
        if len(self._open) >= self.maximum:
            self.unsampled += times
            return False
        until = now + self.interval
        self._open[key] = (until, 0, detail)
        self._next_due = min(self._next_due, until)
        return True

    def due(self, now: float) -> list[tuple[Key, int, Detail]]:
        """The keys whose interval is over and that occurred in it, with how often."""
        if now < self._next_due:
            return []
        reports = []
        for key, (until, count, detail) in list(self._open.items()):
            if until > now:
                continue
            if count:
                reports.append((key, count, detail))
                self._open[key] = (now + self.interval, 0, detail)
            else:
                del self._open[key]
        self._next_due = min((until for until, _, _ in self._open.values()), default=float("inf"))
        return reports
