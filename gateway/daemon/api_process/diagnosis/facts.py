"""What a diagnosis is made from: plain data, gathered from listings a few seconds apart.
Runs in the API process.

``Gatherer`` takes the records as they come (all flows once, the ports twice, the VMs, the latest
events, the status) and gives ``Facts``. It keeps figures for the destinations that take most ports
of each pool only, so that its memory grows with VMs, not with flows. It decides nothing: what is
wrong, and what would help, is ``diagnose.py``'s to say. Seconds are Azure's, but for ``real``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from gateway.core.snat.port_pool import BUSIEST
from gateway.daemon.channel.probe_messages import Result
from gateway.model.profile import PROFILES, DestinationScope, Method, Profile
from gateway.schema.protocols import protocol_name
from gateway.schema.records import FlowRecord, HealthRecord, MachineRecord, PortRecord

BUSY = 15.0
"""Seconds: a flow with a packet in the last ones is in use, and one that is younger is new. Every
flow that holds a SNAT port is in the table for so long at least (an RST holds it for 15 s)."""
UNANSWERED = 3.0
"""Seconds after which a SYN without answer counts: two retransmissions were not answered either."""
REMOTES = 1_000
"""Remotes of unanswered flows that are distinguished, of one VM."""
Remote = tuple[str, int | None]
"""What makes a port reusable: an address, or address and port; None where the port is no part."""


@dataclass
class Destination:
    """A VM's flows toward one destination; each of them holds a port."""

    remote: Remote
    fin_hold: float  # for how long an ended flow keeps its port
    rst_hold: float
    before: int = 0  # ports held at the first look
    held: int = 0
    opening: int = 0
    unanswered: int = 0  # of these, older than UNANSWERED
    busy: int = 0
    half_closed: int = 0
    closed: int = 0  # by FINs from both sides
    reset: int = 0
    new: int = 0  # opened in the last BUSY seconds
    idle: list[float] = field(default_factory=list)  # for how long each idle one has been
    timeout: float = 0.0  # after which idle flows end
    returning: list[float] = field(
        default_factory=list
    )  # in how long each ended flow's port is back
    idling: list[float] = field(default_factory=list)  # and each idle one's, if it stays so
    ports: Counter[int] = field(default_factory=Counter)  # flows by the remote's port
    spans: list[tuple[float, float]] = field(default_factory=list)
    """From the first packet to the last, as seconds ago, of flows with one in the last BUSY."""

    @property
    def most_at_once(self) -> int:
        """The most flows that were open at the same time in the last BUSY seconds."""
        steps = [(-first, 1) for first, _ in self.spans] + [(-last, -1) for _, last in self.spans]
        steps.sort()  # one that ends as another begins makes room for it
        most = max(accumulate(change for _, change in steps), default=0)
        return max(most, 1 if self.spans else 0)

    @property
    def over(self) -> int:
        """Flows that have ended, or are about to."""
        return self.half_closed + self.closed + self.reset

    def add(self, record: FlowRecord) -> None:
        """Count a flow."""
        self.held += 1
        self.ports[record.remote_port] += 1
        self.new += record.age <= BUSY
        state = record.state
        if record.idle < BUSY:
            still_open = state in ("Opening", "Established")
            self.spans.append((record.age, 0.0 if still_open else record.idle))
        if state == "Opening":
            self.opening += 1
            self.unanswered += record.age >= UNANSWERED
        elif state == "Closing":
            self.half_closed += 1
        elif state == "CoolDown" and record.idle + record.expires_in > self.rst_hold + 1:
            self.closed += 1
        elif state == "CoolDown":
            self.reset += 1
        elif record.idle < BUSY:
            self.busy += 1
        else:
            self.idle.append(record.idle)
        if state in ("Closing", "CoolDown"):
            self.returning.append(record.expires_in)
        elif record.idle >= BUSY:
            self.idling.append(record.expires_in)
            self.timeout = max(self.timeout, record.idle + record.expires_in)


@dataclass
class Supply:
    """A VM's SNAT ports for one protocol, on all of its public IPs."""

    protocol: str
    publics: tuple[str, ...] = ()
    allocated: int = 0
    used: int = 0
    high_water: int = 0
    failed: int = 0
    failed_lately: int = 0  # between the two looks
    destinations: list[Destination] = field(default_factory=list)  # the most ports first

    @property
    def busiest(self) -> Destination | None:
        """The destination that holds most ports."""
        return self.destinations[0] if self.destinations else None


@dataclass
class Unanswered:
    """TCP connections that got no answer in UNANSWERED seconds."""

    count: int = 0
    oldest: float = 0.0
    remotes: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, record: FlowRecord) -> None:
        """Count a flow; of very many remotes the first are distinguished."""
        self.count += 1
        self.oldest = max(self.oldest, record.age)
        remote = record.remote_ip, record.remote_port
        if remote in self.remotes or len(self.remotes) < REMOTES:
            self.remotes[remote] += 1


@dataclass
class Drops:
    """Packets dropped for one reason, with the last one's endpoints; events are sampled, so that
    it is so many at least."""

    reason: str
    rule: str | None
    inward: bool  # not sent by the VM
    count: int = 0
    protocol: str = ""
    source: str = ""
    destination: str = ""


@dataclass
class Exhausted:
    """When a VM was last out of ports, by the events."""

    time: str
    remote: tuple[str, int]


@dataclass
class Reclaimed:
    """Ports that were taken back from a VM on a public IP."""

    public_ip: str
    ports: int
    flows: int


@dataclass
class Down:
    """A health probe that finds a VM down, and the rules that give it no new flows for that."""

    balancer: str
    probe: str
    reason: str  # of the last failure; empty: not known
    in_a_row: int
    denied_by: str | None  # "group/rule" that keeps the probes out
    rules: list[str] = field(default_factory=list)


@dataclass
class VirtualMachine:
    """All about one VM."""

    machine: MachineRecord
    flows: int = 0
    supplies: dict[str, Supply] = field(default_factory=dict)
    unanswered: Unanswered = field(default_factory=Unanswered)
    drops: list[Drops] = field(default_factory=list)
    exhausted: dict[str, Exhausted] = field(default_factory=dict)  # the last, by protocol
    reclaimed: list[Reclaimed] = field(default_factory=list)
    down: dict[tuple[str, str], Down] = field(default_factory=dict)  # by load balancer and probe

    @property
    def name(self) -> str:
        """The VM's name."""
        return self.machine.name

    def udp_patience(self, profile: Profile) -> float:
        """Seconds for which a UDP flow's port is held after its last packet."""
        nat = profile.nat_gateway if self.machine.udp == Method.NAT_GATEWAY else None
        return self.machine.udp_idle_timeout + (0.0 if nat is None else nat.udp_hold)


@dataclass
class Facts:
    """What was seen. ``machines`` are the VMs that were asked for."""

    profile: Profile
    window: float  # seconds between the two looks
    scale: float  # Azure's seconds in a real one
    uptime: float  # Azure's seconds
    events_window: float  # real seconds back to which events were read
    status: Mapping[str, Any]
    earlier: Mapping[str, Any]  # the status at the first look
    machines: list[VirtualMachine]
    gateway_events: list[Mapping[str, Any]] = field(default_factory=list)  # the oldest first
    gateway_drops: list[Drops] = field(default_factory=list)  # of senders that are no VM

    @property
    def recent(self) -> float:
        """The seconds that "lately" means for new flows."""
        return min(BUSY, self.uptime)


class Gatherer:
    """Takes what the listings have: VMs, ports twice, flows, health; then gives ``facts``."""

    def __init__(self, profile: str, machines: Iterable[MachineRecord]) -> None:
        self._profile = PROFILES[profile]
        self._machines = {m.name: VirtualMachine(m) for m in machines}
        self._first: dict[tuple[str, str, str], PortRecord] = {}
        self._by_remote: dict[tuple[str, str, Remote], Destination] = {}
        self._failed_before: Counter[tuple[str, str]] = Counter()
        """Attempts that failed on pools which a VM keeps only until their last flows end."""

    def first_ports(self, records: Iterable[PortRecord]) -> None:
        """Ports at the first look."""
        for record in records:
            vm = self._machines.get(record.vm)
            if vm is not None and _is_current(vm, record):
                self._first[record.vm, record.protocol, record.public_ip] = record

    def second_ports(self, records: Iterable[PortRecord]) -> None:
        """Ports of the second listing: flows to the busiest destinations of both are counted."""
        for record in records:
            vm = self._machines.get(record.vm)
            if vm is None:
                continue
            if not _is_current(vm, record):
                self._failed_before[record.vm, record.protocol] += record.failed
                continue
            supply = vm.supplies.setdefault(record.protocol, Supply(record.protocol))
            supply.publics += (record.public_ip,)
            supply.allocated += record.allocated
            supply.used += record.used
            supply.high_water += record.high_water
            supply.failed += record.failed
            first = self._first.get((record.vm, record.protocol, record.public_ip))
            supply.failed_lately += record.failed - (first.failed if first else 0)
            nat = self._profile.nat_gateway if record.method == Method.NAT_GATEWAY else None
            holds = self._profile if nat is None else nat
            for ip, port, _ in (*record.destinations, *(first.destinations if first else ())):
                self._destination(supply, record.vm, (ip, port), holds.fin_hold, holds.rst_hold)

    def _destination(
        self, supply: Supply, vm: str, remote: Remote, fin_hold: float, rst_hold: float
    ) -> None:
        key = vm, supply.protocol, remote
        if key not in self._by_remote:
            self._by_remote[key] = Destination(remote, fin_hold, rst_hold)
            supply.destinations.append(self._by_remote[key])

    def flow(self, record: FlowRecord) -> None:
        """A flow, right after the second look."""
        vm = self._machines.get(record.vm)
        if vm is None or record.awaiting_removal:
            return
        vm.flows += 1
        if record.direction == "Inbound" or record.method == Method.VIRTUAL_NETWORK:
            return
        protocol = protocol_name(record.protocol)
        if protocol == "Tcp" and record.state == "Opening" and record.age >= UNANSWERED:
            vm.unanswered.add(record)
        supply = vm.supplies.get(protocol)
        if supply is None or record.public_ip not in supply.publics:
            return
        profile = self._profile
        scope = profile.tcp_destination if protocol == "Tcp" else profile.udp_destination
        whole = scope is DestinationScope.ADDRESS_AND_PORT and protocol != "Icmp"
        remote = record.remote_ip, record.remote_port if whole else None
        destination = self._by_remote.get((record.vm, protocol, remote))
        if destination is not None:
            destination.add(record)

    def health(self, record: HealthRecord, result: Result | None) -> None:
        """A VM behind a rule, with its probe's latest result."""
        vm = self._machines.get(record.vm)
        if vm is None or record.up is not False or record.probe is None:
            return
        key = record.balancer, record.probe
        down = vm.down.get(key)
        if down is None:
            reason, in_a_row = ("", 0) if result is None else (result.reason, abs(result.in_a_row))
            down = vm.down[key] = Down(*key, reason, in_a_row, record.denied_by)
        down.rules.append(record.rule)

    def facts(
        self,
        status: Mapping[str, Any],
        earlier: Mapping[str, Any],
        events: Iterable[Mapping[str, Any]],
        *,
        real: float,
        events_window: float,
    ) -> Facts:
        """All that was gathered; ``real`` seconds are between the looks."""
        scale = float(status["timeScale"])
        for vm in self._machines.values():
            for supply in vm.supplies.values():
                supply.failed += self._failed_before[vm.name, supply.protocol]
                self._sort(vm.name, supply)
        facts = Facts(
            profile=self._profile,
            window=real * scale,
            scale=scale,
            uptime=float(status["uptimeSeconds"]) * scale,
            events_window=events_window,
            status=status,
            earlier=earlier,
            machines=list(self._machines.values()),
        )
        self._read_events(facts, events)
        return facts

    def _sort(self, vm: str, supply: Supply) -> None:
        """The busiest first. What a destination held at the first look, if it was not among the
        busiest then, was at most the least of these."""
        for destination in supply.destinations:
            for public in supply.publics:
                first = self._first.get((vm, supply.protocol, public))
                if first is not None:
                    held = {(ip, port): used for ip, port, used in first.destinations}
                    least = min(held.values()) if len(held) >= BUSIEST else 0
                    destination.before += held.get(destination.remote, least)
        supply.destinations.sort(key=lambda d: d.held, reverse=True)

    def _read_events(self, facts: Facts, events: Iterable[Mapping[str, Any]]) -> None:
        by_address = {vm.machine.private_ip: vm for vm in facts.machines}
        counts: dict[tuple[str | None, str, str | None, bool], Drops] = {}
        for event in events:
            properties = event["properties"]
            vm = self._machines.get(properties.get("vm") or "")
            if event["operationName"] == "PacketsDropped":
                source = properties["source"]
                if source is None:
                    continue  # the kernel dropped them: whose they were is unknown
                vm = vm or by_address.get(source)
                if vm is None and properties["vm"] is not None:
                    continue  # another VM than those asked for
                inward = vm is not None and source != vm.machine.private_ip
                name = None if vm is None else vm.name
                key = name, properties["reason"], properties["rule"], inward
                drops = counts.get(key)
                if drops is None:
                    drops = counts[key] = Drops(*key[1:])
                    (facts.gateway_drops if vm is None else vm.drops).append(drops)
                drops.count += properties["count"]
                drops.protocol, drops.source = properties["protocol"], source
                drops.destination = properties["destination"]
            elif properties.get("eventDescription") == "Ports exhausted":
                if vm is not None:
                    remote = properties["remote"]
                    at = Exhausted(event["time"], (remote["ip"], remote["port"]))
                    vm.exhausted[properties["protocol"]] = at
            elif event["operationName"] == "AllotmentReclaimed":
                if vm is not None:
                    vm.reclaimed.append(
                        Reclaimed(
                            properties["publicIp"], properties["ports"], properties["flowsBroken"]
                        )
                    )
            elif event["category"] == "GatewayEvent":
                facts.gateway_events.append(event)


def _is_current(vm: VirtualMachine, record: PortRecord) -> bool:
    """Whether new flows get these ports: not, if they are kept until their last flows end."""
    return any(record.public_ip == ip for ip, _ in vm.machine.ports)
