"""The daemon's side of the datapath: from a configuration to probes, claims, queue and diversion.
Runs in the engine process.

The only module of the daemon that knows what a diversion consists of. Failures are the datapath's
``DatapathError``, a line for each reason, with nothing left changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Protocol

from gateway.daemon.console import warn
from gateway.datapath.errors import DatapathError
from gateway.datapath.fastpath import FastPath
from gateway.datapath.fastpath.lease import wait_for_clearing
from gateway.datapath.firewall.background_scan import FirewallLook
from gateway.datapath.firewall.packet_paths import Crossing
from gateway.datapath.host.addresses_and_routes import real_name
from gateway.datapath.host.arp import Announcer
from gateway.datapath.host.diversion import Diversion
from gateway.datapath.host.host_probes import FIREWALL, Finding, probe
from gateway.datapath.host.interface_lock import InterfaceLocks
from gateway.datapath.host.netfilter_rules import DiversionPlan, QueueNumbers
from gateway.datapath.host.netlink_tables import Tables
from gateway.datapath.host.teardown import Collecting
from gateway.datapath.queue import PacketHandlers, PacketQueue, QueueStatistics, Uncut
from gateway.model.configuration import Configuration
from gateway.model.profile import PROFILES
from gateway.model.resolved.tags import PLATFORM_ADDRESS
from gateway.schema.drop_reasons import DropReason


class Queue(Protocol):
    """An open packet queue, as the daemon uses it."""

    last_error: str

    @property
    def numbers(self) -> QueueNumbers:
        """The numbers by which rules name its queues."""

    def descriptors(self) -> tuple[int, ...]:
        """Those that are readable when packets wait."""

    def drain(self, descriptor: int, limit: int, now: float) -> int:
        """Handle packets that wait, ``limit`` at most; how many there were."""

    def interfaces_are(self, inside: Iterable[int], outside: int) -> None:
        """The interfaces have these numbers from now on."""

    def change_handlers(self, handlers: PacketHandlers, *, finished: bool = False) -> None:
        """Give packets to these from now on."""

    def statistics(self) -> QueueStatistics:
        """What was counted since the queue was opened."""


@dataclass(frozen=True)
class GuardState:
    """What has become of the guard on the outside interface."""

    problem: str = ""
    """Why there is none, or not the best one."""
    dropped: int = 0
    """Packets since the start, and ``meanwhile``."""
    restored: int = 0
    """Times that another program had removed it."""
    meanwhile: int = 0
    """Packets while no gateway ran, after what the previous one had reported."""
    shared: bool = False
    """Whether filters of other programs may have dropped some of what is not reported yet."""
    kind: str = "tc"
    """What it stands in: ``tc``, or ``nftables`` where that has no place; empty: there is none."""
    gained: int = 0
    """Times that one could be had which could not be had before."""


class Diverted(Protocol):
    """The host while its packets are diverted. Failures are DatapathError."""

    renewed: set[str]
    """Interfaces that were removed and created again; reading takes them out."""

    def with_real_names(self, configuration: Configuration) -> Configuration:
        """The same with each interface by its own name, where the file has an alternative one."""

    def change(self, configuration: Configuration) -> None:
        """Divert by another configuration; the interfaces are the same."""

    def refresh(self) -> list[str]:
        """Restore what an interface lost that was down, and rules that were removed; what
        could not be restored yet."""

    def rules_restored(self) -> int:
        """How often rules had to be restored."""

    def rules_moved(self) -> int:
        """How often jumps to them had to be moved ahead of others' rules, or behind them."""

    def dropped_by_rules(self) -> Mapping[DropReason, int]:
        """Packets that the gateway's own rules have dropped since the start, by reason; asks the
        kernel."""

    def fileno(self) -> int:
        """Readable when rules on this host have changed."""

    def look_at_rules(self) -> None:
        """Read that: the next ``refresh`` checks them."""

    def guard(self) -> GuardState:
        """The guard as it is now."""

    def guard_drops_reported(self) -> None:
        """What it has dropped was reported."""

    def guard_fileno(self) -> int:
        """Readable when it may have been removed."""

    def restore_guard(self) -> None:
        """Put it back then. Raises DatapathError."""

    firewall_said: list[str]
    """What was said of the host's firewall before the start."""

    def firewall(self) -> list[str] | None:
        """What the host's own firewall drops, after each check; None: nothing new."""

    def leave(self) -> None:
        """Expect another start soon after the end."""

    def network_fileno(self) -> int:
        """Readable when interfaces, addresses, routes, neighbours or settings have changed."""

    def look_at_network(self) -> bool:
        """Read that; whether the next ``refresh`` checks them."""

    def restored(self) -> list[str]:
        """What was set again since the last time."""

    def probes_fileno(self) -> int:
        """Readable when an ARP probe asks whether an address is free; -1: never."""

    def answer_probes(self) -> None:
        """Answer that."""

    def arp_document(self) -> dict[str, Any]:
        """What was said by ARP, for a status."""

    def programmed(self) -> bool:
        """Whether the last ``refresh`` found all interfaces, and gave them what they need."""


class _LinuxDiverted:
    def __init__(
        self,
        diversion: Diversion,
        announcer: Announcer,
        renewed: set[str],
        firewall: FirewallLook,
        said: list[str],
    ) -> None:
        self._diversion = diversion
        self._announcer = announcer
        self.renewed = renewed
        self._firewall = firewall
        self.firewall_said = said
        self._rules_seen = diversion.rules_seen

    def with_real_names(self, configuration: Configuration) -> Configuration:
        return with_real_names(configuration)

    def change(self, configuration: Configuration) -> None:
        plan = _plan(configuration, self._diversion.plan.queues)
        if plan != self._diversion.plan:
            self._diversion.update(plan)
            self._announcer.speak_for(plan.public_ips)
            self._firewall.crossing = _crossing(configuration)
            self._firewall.again()

    def refresh(self) -> list[str]:
        problems = self._diversion.refresh()
        if self._diversion.rules_seen != self._rules_seen:
            self._rules_seen = self._diversion.rules_seen
            self._firewall.again()
        with Collecting(problems):
            self._announcer.look(time.monotonic())
        return problems

    def firewall(self) -> list[str] | None:
        return self._firewall.news()

    def rules_restored(self) -> int:
        return self._diversion.rules_restored

    def rules_moved(self) -> int:
        return self._diversion.rules_moved

    def dropped_by_rules(self) -> Mapping[DropReason, int]:
        return self._diversion.dropped_by_rules()

    def fileno(self) -> int:
        return self._diversion.fileno()

    def look_at_rules(self) -> None:
        self._diversion.look_at_rules()

    def guard(self) -> GuardState:
        guard = self._diversion.guard
        if guard is None:
            return GuardState(self._diversion.no_guard, kind="")
        return GuardState(
            self._diversion.no_guard,
            dropped=guard.dropped(),  # which sees what the rest is about
            restored=self._diversion.guards_restored,
            meanwhile=guard.meanwhile,
            shared=guard.shared,
            kind=guard.kind,
            gained=self._diversion.guards_gained,
        )

    def guard_drops_reported(self) -> None:
        if self._diversion.guard is not None:
            self._diversion.guard.told()

    def guard_fileno(self) -> int:
        return self._diversion.guard_fileno()

    def restore_guard(self) -> None:
        self._diversion.restore_guard()

    def leave(self) -> None:
        self._diversion.leave_guard = True

    def network_fileno(self) -> int:
        return self._diversion.network_fileno()

    def look_at_network(self) -> bool:
        return self._diversion.look_at_network()

    def restored(self) -> list[str]:
        upkeep = self._diversion.upkeep
        restored, upkeep.restored = upkeep.restored, []
        return restored

    def probes_fileno(self) -> int:
        return self._announcer.fileno()

    def answer_probes(self) -> None:
        self._announcer.answer()

    def arp_document(self) -> dict[str, Any]:
        announcer = self._announcer
        return {
            "carrier": announcer.carries,
            "announced": announcer.announced,
            "probesAnswered": announcer.answered,
        }

    def programmed(self) -> bool:
        return self._diversion.programmed


def with_real_names(configuration: Configuration) -> Configuration:
    """The same with each interface by its own name, where the file has an alternative one.

    Raises DatapathError where two names are one interface.
    """
    gateway = configuration.gateway
    given = (*gateway.inside, gateway.outside)
    names = {name: real_name(name) for name in given}
    first: dict[str, str] = {}
    problems = []
    for name in given:
        other = first.setdefault(names[name], name)
        if other != name:
            problems.append(f"{other} and {name} are one interface ({names[name]})")
    if problems:
        raise DatapathError(problems)
    if all(name == names[name] for name in given):
        return configuration
    named = gateway.model_copy(
        update={
            "inside": tuple(names[name] for name in gateway.inside),
            "outside": names[gateway.outside],
        }
    )
    return configuration.model_copy(update={"gateway": named})


class LinuxHost:
    """This host's kernel."""

    def __init__(self) -> None:
        self._path: FastPath | None = None
        self._firewall_said: list[str] = []

    def with_real_names(self, configuration: Configuration) -> Configuration:
        """The same with each interface by its own name; raises DatapathError."""
        return with_real_names(configuration)

    def check(self, configuration: Configuration) -> list[Finding]:
        """``findings`` for a configuration as a file has it: its interfaces may not exist."""
        try:
            return self.findings(self.with_real_names(configuration))
        except DatapathError as error:
            return [Finding("interfaces", False, problem) for problem in error.problems]

    def findings(self, configuration: Configuration) -> list[Finding]:
        """What this host offers and lacks for the configuration; changes nothing."""
        gateway = configuration.gateway
        found = probe(
            gateway.inside,
            gateway.outside,
            _public_ips(configuration),
            configuration.virtual_network.address_prefixes,
            _probe_source(configuration),
            mark_fragments=_marks_fragments(configuration),
            fast_path=gateway.fast_path != "off",
            subnets=_subnets(configuration),
            hairpin=_hairpins(configuration),
        )
        self._firewall_said = [
            finding.sentence for finding in found if finding.name == FIREWALL and not finding.ok
        ]
        return found

    def claim(self, configuration: Configuration) -> AbstractContextManager[object]:
        """Hold the interfaces against a second gateway."""
        claims = InterfaceLocks([*configuration.gateway.inside, configuration.gateway.outside])
        wait_for_clearing()
        return claims

    @contextmanager
    def queue(
        self, configuration: Configuration, handlers: PacketHandlers, uncut: Uncut
    ) -> Iterator[Queue]:
        """An open queue that calls ``handlers`` for each packet, ``uncut`` for several in one."""
        inside, outside = _numbers(configuration)
        if not outside:
            line = f"gateway.outside: {configuration.gateway.outside}: there is no such interface"
            raise DatapathError([line])
        queue = PacketQueue(
            handlers,
            inside,
            outside,
            uncut,
            fragments_marked=_marks_fragments(configuration),
            passed=None if self._path is None else self._path.passed,
        )
        try:
            queue.open()
            yield queue
        finally:
            queue.close()

    @contextmanager
    def fast_path(self, configuration: Configuration) -> Iterator[FastPath]:
        """The fast path, loaded and not yet attached."""
        gateway = configuration.gateway
        path = FastPath(gateway.inside, gateway.outside, gateway.maximum_flows)
        self._path = path
        try:
            yield path
        finally:
            path.close()

    @contextmanager
    def diversion(self, configuration: Configuration, queue: Queue) -> Iterator[Diverted]:
        """Packets come to the queue."""
        renewed: set[str] = set()

        def note(interface: str) -> None:
            queue.interfaces_are(*_numbers(configuration))
            renewed.add(interface)

        plan = _plan(configuration, queue.numbers)
        with (
            Diversion(plan, note, keep_filters=self._path is not None) as diversion,
            closing(Announcer(plan.outside)) as announcer,
            closing(FirewallLook(_crossing(configuration))) as firewall,
        ):
            if announcer.silent:
                warn(announcer.silent)
            announcer.speak_for(plan.public_ips)
            announcer.look(time.monotonic())
            try:
                yield _LinuxDiverted(diversion, announcer, renewed, firewall, self._firewall_said)
            finally:
                diversion.leave_filters = self._path is not None and self._path.leaving


def _crossing(configuration: Configuration) -> Crossing:
    gateway = configuration.gateway
    return Crossing(
        gateway.inside,
        gateway.outside,
        tuple(sorted(_public_ips(configuration))),
        configuration.virtual_network.address_prefixes,
        _subnets(configuration),
        _hairpins(configuration),
    )


def _subnets(configuration: Configuration) -> tuple[IPv4Network, ...]:
    return tuple(subnet.address_prefix for subnet in configuration.virtual_network.subnets)


def _hairpins(configuration: Configuration) -> bool:
    """Whether a VM may reach something by a public IP of its own gateway."""
    return any(vm.public_ip_address for vm in configuration.virtual_machines) or any(
        balancer.load_balancing_rules or balancer.inbound_nat_rules
        for balancer in configuration.load_balancers
    )


def losses(statistics: QueueStatistics) -> dict[str, int]:
    """The counters that only ever grow when packets are lost, by the names of JSON."""
    return {
        "kernelDropped": statistics.kernel_dropped,
        "socketDropped": statistics.user_dropped,
        "overflows": statistics.overflows,
    }


def queue_document(queue: Queue) -> dict[str, int]:
    """The queue in a status."""
    statistics = queue.statistics()
    return {
        "tcpNumber": queue.numbers.tcp,
        "otherNumber": queue.numbers.other,
        "handled": statistics.handled,
        "dropped": statistics.dropped,
        "waiting": statistics.waiting,
        "handlerErrors": statistics.handler_errors,
        **losses(statistics),
    }


def _numbers(configuration: Configuration) -> tuple[list[int], int]:
    """The interfaces' numbers, inside and outside; 0: there is none."""
    gateway = configuration.gateway
    with Tables() as tables:
        inside = [link.number for name in gateway.inside if (link := tables.link(name)) is not None]
        outside = tables.link(gateway.outside)
    return inside, 0 if outside is None else outside.number


def _public_ips(configuration: Configuration) -> list[IPv4Address]:
    return [public.ip_address for public in configuration.public_ip_addresses]


def _plan(configuration: Configuration, queues: QueueNumbers) -> DiversionPlan:
    gateway = configuration.gateway
    return DiversionPlan(
        inside=gateway.inside,
        outside=gateway.outside,
        public_ips=tuple(sorted(_public_ips(configuration))),
        private_prefixes=configuration.virtual_network.address_prefixes,
        queues=queues,
        probe_source=_probe_source(configuration),
        mark_fragments=_marks_fragments(configuration),
        subnets=_subnets(configuration),
    )


def _marks_fragments(configuration: Configuration) -> bool:
    """Whether it matters that a packet came in fragments: the kernel reassembles them."""
    return not PROFILES[configuration.gateway.profile].fragments_through_snat


def _probe_source(configuration: Configuration) -> IPv4Address | None:
    """Where health probes come from, if any are to be sent."""
    probes = any(
        rule.probe is not None and pools[rule.backend_address_pool]
        for balancer in configuration.load_balancers
        for pools in ({p.name: p.virtual_machines for p in balancer.backend_address_pools},)
        for rule in balancer.load_balancing_rules
    )
    return PLATFORM_ADDRESS.network_address if probes else None
