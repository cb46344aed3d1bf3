"""The engine: a gateway without its wires, from its parts.

``handle`` depends on its arguments and the engine's state alone: no I/O, no clock. The same engine
runs behind NFQUEUE, behind a capture and behind a property test. What happens to a packet is
``pipeline.py``'s; here is what an operator sees, and what a changed configuration does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

from gateway.core.admission import Admission
from gateway.core.backend_health import HealthTracker
from gateway.core.events import Event, FlowsEnded, SnatPortsReclaimed
from gateway.core.flow_lifecycle import FlowLifecycle
from gateway.core.flows.flow import Flow, record
from gateway.core.flows.offload import Offload, is_busy
from gateway.core.flows.tcp import ENDED
from gateway.core.inbound.load_balancer import Balancer
from gateway.core.observe.drop_counters import DropCounters
from gateway.core.observe.exhaustion import ExhaustionMonitor
from gateway.core.observe.flow_log import FlowLog
from gateway.core.observe.listings import port_records, security_records
from gateway.core.pipeline import Pipeline
from gateway.core.policy.address_scope import AddressScope
from gateway.core.policy.nsg import Policy, take_over_hits
from gateway.core.reload.change_report import allocation_changes
from gateway.core.reload.preparation import Preparation, scope_of
from gateway.core.reload.resolved import Resolved, resolve
from gateway.core.snat.allocation_manager import AllocationManager
from gateway.core.snat.plan import plan
from gateway.model.configuration import Configuration
from gateway.model.profile import PROFILES
from gateway.schema.records import FlowRecord, PortRecord, SecurityRuleRecord

MAXIMUM_EVENTS = 10_000  # that wait to be taken; the oldest go first
REVIEW_SLICE = 256  # flows evaluated again between two chances to handle packets
MAXIMUM_SAMPLED = 4_096  # kinds of drops and exhaustions distinguished at a time


class Review(NamedTuple):
    """How many live flows the groups would deny if they opened now, and how many were ended."""

    denied: int
    ended: int


class Engine:
    """A gateway without its wires. ``seed`` fixes the choice among frontends and backends."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        seed: int | None = None,
        now: float = 0.0,
        offload: Offload | None = None,
        probed: bool = False,
    ) -> None:
        """``probed``: the health of backends will be reported; until then they are not up."""
        self.configuration = configuration
        self.profile = PROFILES[configuration.gateway.profile]
        self._events: deque[Event] = deque(maxlen=MAXIMUM_EVENTS)
        self._shortage = ExhaustionMonitor(self.profile, MAXIMUM_SAMPLED, self._events.append)
        self._plan = plan(configuration, self.profile)
        self.outbound = AllocationManager(self._plan, self.profile)
        self.lifecycle = FlowLifecycle(
            self.profile,
            self.outbound,
            configuration.gateway.maximum_flows,
            seed,
            self._shortage,
        )
        self.lifecycle.offload = offload
        self.flows = self.lifecycle.table
        self.balancer = Balancer(self.outbound, seed, probed=probed)
        self.balancer.apply(configuration)
        self.drops = DropCounters(MAXIMUM_SAMPLED, self._events.append)
        self.drops.now = now
        admission = self._admission(configuration, scope_of(configuration), Policy(configuration))
        self._pipeline = Pipeline(self.lifecycle, admission, self.drops)
        self.handlers = self._pipeline.handlers
        self.build_handlers = self._pipeline.build_handlers
        self.count_segments = self._pipeline.count_segments
        self.lifecycle.log = self._flow_log(configuration)
        self.health = HealthTracker(self.balancer, self.lifecycle, self._events.append)

    @property
    def admission(self) -> Admission:
        """Who may open a flow, by the configuration that holds now."""
        return self._pipeline.admission

    def handle(self, packet: bytes, ingress: int, now: float) -> bytes | None:
        """What becomes of a packet that came in by ``ingress`` (an ``IngressPath``) at ``now``.

        ``handlers[ingress]`` is the same, one call less for who handles many.
        """
        return self.handlers[ingress](packet, now)

    # -- time

    def expire(self, now: float, limit: int = 1000) -> int:
        """Reclaim flows that have timed out, visiting ``limit`` at most; returns how many."""
        self.drops.look(now)
        self._shortage.look(now)
        self.drops.now = now
        self.health.expire(now)
        return self.lifecycle.expire(now, limit)

    # -- what the operator sees

    def take_events(self) -> list[Event]:
        """The events since the last call, oldest first."""
        events = list(self._events)
        self._events.clear()
        return events

    def flow_records(self, now: Callable[[], float], count: int) -> Iterator[list[FlowRecord]]:
        """The flow table, at most ``count`` flows at a time; ``now``: asked for each slice."""
        for _, flows in self.flows.walk(count):
            moment = now()
            for flow in flows:
                if flow.offloaded:
                    self.lifecycle.fold(flow)
            yield [record(flow, moment) for flow in flows]

    def port_records(self, _now: float) -> Iterator[PortRecord | None]:
        """The SNAT ports of every VM, public IP and protocol; None where a caller may pause."""
        return port_records(self.outbound)

    def status(self, _now: float) -> dict[str, Any]:
        """Counters, ready for JSON. All durations are Azure seconds."""
        return {
            "profile": self.profile.name,
            "flows": len(self.flows),
            "maximumFlows": self.flows.maximum,
            "flowsOpened": self.flows.opened,
            "virtualMachines": len(self.outbound.machines),
            "drops": self.drops.counts,
            "unsampledDrops": self.drops.unsampled + self._shortage.unsampled,
        }

    # -- changes

    def reconfigure(self, configuration: Configuration, now: float) -> list[str]:
        """Carry another configuration out at once; returns a sentence for each change."""
        steps = self.reconfiguring(resolve(configuration), lambda: now)
        while True:
            try:
                next(steps)
            except StopIteration as finished:
                changes: list[str] = finished.value
                return changes

    def reconfiguring(
        self, after: Resolved, now: Callable[[], float]
    ) -> Generator[None, None, list[str]]:
        """Carry another configuration out in slices, between which packets may be handled; returns
        a sentence for each change.

        Until the last step the old configuration holds. Flows that the new one does not contradict
        go on untouched; others end before it takes effect, so that no port is another VM's
        while a flow is on it. The profile is fixed for an engine's life: the caller rejects a
        configuration with another one. Only one at a time.
        """
        prepared = Preparation(
            self.configuration,
            self._plan,
            after,
            self.lifecycle,
            self.balancer,
            self.admission.policy,
        )
        yield from prepared.steps()
        configuration, eviction = after.configuration, prepared.eviction
        eviction.finish()
        take_over_hits(prepared.hits)
        outdated = prepared.is_outdated
        self.configuration, self._plan = configuration, after.plan
        self._pipeline.admission = self._admission(configuration, prepared.scope, prepared.policy)
        self.lifecycle.log = self._flow_log(configuration)
        self.flows.maximum = configuration.gateway.maximum_flows
        resized = self.outbound.apply(after.plan, prepared.touched, prepared.made)
        eviction.finish_resizing(resized)
        self.balancer.swap(prepared.tables)
        if outdated:
            self.balancer.apply(configuration)
        self.health.reconfigured()
        changes, broken = prepared.changes, eviction.broken
        for sentence, machine, address, ports, lost in allocation_changes(resized, broken):
            changes.append(sentence)
            if ports or lost:
                event = SnatPortsReclaimed(now(), machine.name, address, ports, lost)
                self._events.append(event)
        misplaced = "their public IP is no longer their VM's, or their inbound rule or VM is gone"
        self._flows_ended(eviction.misplaced, misplaced, changes, now())
        outside = "they are of no subnet any more, or lead out of the virtual network"
        self._flows_ended(eviction.outside, outside, changes, now())
        return changes

    def _flows_ended(self, count: int, reason: str, changes: list[str], now: float) -> None:
        if count:
            changes.append(f"{count} flow{'' if count == 1 else 's'} ended: {reason}")
            self._events.append(FlowsEnded(now, count, reason))

    def review(self, *, enforce: bool) -> Iterator[Review | None]:
        """Ask the groups again about every live flow; None after each slice, the result last.

        Flows continue when rules change (docs/fidelity.md A14), unless the group that denies one
        has ``flushConnection``, or all are to be ended (``enforce``).
        """
        denied = ended = 0
        for _, flows in self.flows.walk(REVIEW_SLICE):
            if not self.admission.policy.groups:
                break
            for flow in flows:
                if flow.awaiting_removal or flow.state in ENDED:
                    continue
                decision = self.admission.still_allowed(flow)
                if decision.allowed:
                    continue
                denied += 1
                denying = self.admission.policy.groups[decision.rule_matches[-1].group]
                if enforce or denying.flush_connection:
                    self.lifecycle.end(flow)
                    ended += 1
            yield None
        yield Review(denied, ended)

    def watch_flows(self, wanted: Callable[[Flow], bool] | None) -> Iterator[None]:
        """See the packets of ``wanted`` flows here, and let all others' pass elsewhere.

        Of flows that open after this at once, of those that live a slice at a time, until the next
        call. None: no capture wants any.
        """
        self.lifecycle.watched = wanted
        return self._share_out(wanted)

    def _share_out(self, wanted: Callable[[Flow], bool] | None) -> Iterator[None]:
        lifecycle = self.lifecycle
        if lifecycle.offload is None:
            return
        for _, flows in self.flows.walk(REVIEW_SLICE):
            if lifecycle.watched is not wanted:
                return  # another call came meanwhile
            for flow in flows:
                if wanted is not None and wanted(flow):
                    lifecycle.take_back(flow)
                elif not flow.awaiting_removal and flow.state not in ENDED and is_busy(flow):
                    lifecycle.hand_over(flow)
            yield None

    def security_records(self) -> list[SecurityRuleRecord]:
        """Every rule of every network security group, with its hits."""
        return security_records(self.admission.policy, self.configuration)

    def _admission(
        self, configuration: Configuration, scope: AddressScope, policy: Policy
    ) -> Admission:
        return Admission(
            scope,
            policy,
            self.outbound,
            self.flows,
            self.balancer,
            translate_echo=configuration.gateway.icmp_echo == "translate",
            hairpin_to_itself=self.profile.hairpin_to_itself,
            closed_without_group=self.profile.closed_without_group,
        )

    @property
    def flow_log(self) -> FlowLog | None:
        """What waits to be logged; None while flow logs are off."""
        return self.lifecycle.log

    def _flow_log(self, configuration: Configuration) -> FlowLog | None:
        """The log for a configuration: the present one, if it continues."""
        mode = configuration.gateway.flow_logs
        if mode == "off":
            return None
        subnets, everything = self.admission.scope.subnets, mode != "nsg"
        log = self.lifecycle.log
        if log is None:
            log = FlowLog(subnets, everything=everything)
            log.fold = self.lifecycle.fold
            return log
        log.subnets, log.everything = subnets, everything
        return log
