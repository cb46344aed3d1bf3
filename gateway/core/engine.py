"""The engine: what happens to a packet, in the order in which the packet meets it.

``handle`` depends on its arguments and the engine's state alone: no I/O, no clock. The same engine
runs behind NFQUEUE, behind a capture and behind a property test. A verdict is the packet's bytes as
they go on (the very same object if unchanged), or None: dropped, for a reason that is counted and
sampled into events. Nothing that arrives can make it raise.

Read ``_build_ways`` first, then the stages below it in the order in which they stand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import Any, NamedTuple, Protocol

from gateway.core import icmp
from gateway.core.admission import Admission, Refused, takes_fragments
from gateway.core.arrival import Arrival
from gateway.core.balancer import Balancer
from gateway.core.displacing import end_misplaced, end_outside, resize
from gateway.core.drops import DropReason
from gateway.core.established import Way, established_inbound, established_outbound
from gateway.core.events import (
    AllotmentReclaimed,
    Event,
    FlowsEnded,
    FlowTableFull,
    PacketsDropped,
    Sampler,
)
from gateway.core.flow import ICMP, TCP, Flow, FlowRecord, record
from gateway.core.flow_log import FlowLog
from gateway.core.health import HealthKeeper
from gateway.core.nsg import Judgement, Policy
from gateway.core.offload import BUSY, NEVER, Offload, is_busy
from gateway.core.outbound import Outbound
from gateway.core.packet import (
    ICMP_ERRORS,
    PacketView,
    delivered,
    sent,
)
from gateway.core.plan import plan
from gateway.core.ports import PortRecord
from gateway.core.reporting import (
    SecurityRuleRecord,
    allotment_changes,
    changes_between,
    port_records,
    security_records,
)
from gateway.core.scope import AddressScope
from gateway.core.shortage import PortWatch
from gateway.core.tcp import ENDED, Side, is_opening
from gateway.core.translation import Translation
from gateway.model.configuration import Configuration
from gateway.model.profile import PROFILES

MAXIMUM_EVENTS = 10_000  # that wait to be taken; the oldest go first
DROP_EVENT_INTERVAL = 60.0  # seconds; drops of one kind make at most one event in it
REVIEW_SLICE = 256  # flows looked at again between two chances to handle packets
MAXIMUM_SAMPLED = 4_096  # kinds of drops and exhaustions told apart at a time

_ORIGINAL, _REPLY = Side.ORIGINAL, Side.REPLY


class Review(NamedTuple):
    """How many live flows the groups would refuse if they opened now, and how many were ended."""

    refused: int
    ended: int


_Stage = Callable[[PacketView, float], bytes | None]


class _Refuse(Protocol):
    def __call__(
        self, reason: DropReason, packet: bytes, vm: str | None = None, rule: str | None = None
    ) -> bytes | None: ...


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
        """``probed``: somebody will report the health of backends, which are not up until then."""
        self.configuration = configuration
        self.profile = PROFILES[configuration.gateway.profile]
        self._events: deque[Event] = deque(maxlen=MAXIMUM_EVENTS)
        self._shortage = PortWatch(self.profile, MAXIMUM_SAMPLED, self._events.append)
        self.outbound = Outbound(plan(configuration, self.profile), self.profile)
        self.translation = Translation(
            self.profile,
            self.outbound,
            configuration.gateway.maximum_flows,
            seed,
            self._shortage,
        )
        self.translation.offload = offload
        self.flows = self.translation.table
        self.balancer = Balancer(self.outbound, seed, probed=probed)
        self.balancer.apply(configuration)
        self.ways = self._build_ways()
        self.admission = self._admission(configuration)
        self.translation.log = self._flow_log(configuration)
        self._refuse: _Refuse = self._drop  # who wants to be told of refusals stands before it
        self._now = now
        self.health = HealthKeeper(self.balancer, self.translation, self._events.append)
        self._drops = dict.fromkeys(DropReason, 0)
        self._drop_sampler = Sampler[
            tuple[DropReason, str | None, str | None], tuple[int, bytes, bytes]
        ](DROP_EVENT_INTERVAL, MAXIMUM_SAMPLED)

    # -- the pipeline

    def handle(self, packet: bytes, arrival: int, now: float) -> bytes | None:
        """What becomes of a packet that came in by ``arrival`` (an ``Arrival``) at ``now``.

        ``ways[arrival]`` is the same, one call less for who handles many.
        """
        return self.ways[arrival](packet, now)

    def _build_ways(self) -> tuple[Way, ...]:
        """For each ``Arrival``, in its order, what a packet meets."""
        stages: dict[Arrival, _Stage] = {
            Arrival.OUTBOUND: self._outbound,
            Arrival.INBOUND: self._inbound,
            Arrival.HAIRPIN: self._hairpin,
            Arrival.LOCAL_ERROR: self._local_error,
            Arrival.LATERAL: self._lateral,
            Arrival.PROBE: self._probe,
            Arrival.OUTBOUND_IN_FRAGMENTS: partial(self._outbound, cut=True),
            Arrival.INBOUND_IN_FRAGMENTS: partial(self._inbound, cut=True),
            Arrival.HAIRPIN_IN_FRAGMENTS: partial(self._hairpin, cut=True),
        }
        ways = [self._checked(stages[arrival]) for arrival in Arrival]
        # Most packets belong to a live flow: one look-up, rewritten, done.
        busy = NEVER if self.translation.offload is None else BUSY
        for arrival, established in (
            (Arrival.OUTBOUND, established_outbound),
            (Arrival.INBOUND, established_inbound),
        ):
            ways[arrival] = established(self.flows, ways[arrival], self.translation.hand_over, busy)
        return tuple(ways)

    def _checked(self, stages: _Stage) -> Way:
        """The headers are checked once; after this no look at them can fail."""

        def way(packet: bytes, now: float) -> bytes | None:
            self._now = now
            view = PacketView.parse(packet)
            if view is None:
                return self._refuse(DropReason.MALFORMED, packet)
            # The kernel reassembles before its hooks; a fragment here has no ports to go by.
            if view.is_fragment:
                return self._refuse(DropReason.FRAGMENT, packet)
            return stages(view, now)

        return way

    def _outbound(self, view: PacketView, now: float, *, cut: bool = False) -> bytes | None:
        """A VM sends to outside: its flow, or an error about one, or a flow that begins.

        ``cut``: in fragments.
        """
        flow = self.flows.originals(view.protocol).get(view.key)
        if flow is not None:
            if cut and not takes_fragments(flow.method):
                return self._refuse_fragments(view, flow)
            if not self.translation.reopens(flow, _ORIGINAL, view.kind):
                return self._send(view, flow, now)
            self.translation.replace(flow)
        if view.protocol == ICMP and view.kind in ICMP_ERRORS:
            return self._error_to_outside(view, keep_source=False)
        answer = self.admission.outbound(view, cut=cut)
        if isinstance(answer, Refused):
            return self._refused(answer, view)
        machine, judgements, _ = answer
        opened = self.translation.open(view.protocol, view.key, machine, judgements, now)
        if isinstance(opened, DropReason):
            return self._refuse(opened, view.packet, machine.name)
        return self._send(view, opened, now)

    def _send(self, view: PacketView, flow: Flow, now: float) -> bytes:
        """A packet of a flow, translated on its way out."""
        packet = view.packet
        self.translation.advance(flow, _ORIGINAL, view.kind, now)
        if flow.acknowledged is not None:
            flow.acknowledged.note(view, _ORIGINAL)
        flow.packets_out += 1
        flow.bytes_out += len(packet)
        return sent(view, flow)

    def _inbound(
        self, view: PacketView, now: float, *, hairpin_of: bytes | None = None, cut: bool = False
    ) -> bytes | None:
        """To a public IP: a reply, an error about a flow, or a flow that begins, or unsolicited."""
        flow = self.flows.replies(view.protocol).get(view.key)
        if flow is not None:
            if cut and not takes_fragments(flow.method):
                return self._refuse_fragments(view, flow)
            if not self.translation.reopens(flow, _REPLY, view.kind):
                return self._deliver(view, flow, now)
            self.translation.replace(flow)
        if view.protocol == ICMP and view.kind in ICMP_ERRORS:
            return self._error_to_inside(view)
        answer = self.admission.inbound(view, hairpin_of=hairpin_of, cut=cut)
        if isinstance(answer, Refused):
            return self._refused(answer, view)
        machine, judgements, listener = answer
        opened = self.translation.open_inbound(
            view.protocol, view.key, machine, judgements, listener, now
        )
        if isinstance(opened, DropReason):
            return self._refuse(opened, view.packet, machine.name)
        return self._deliver(view, opened, now)

    def _deliver(self, view: PacketView, flow: Flow, now: float) -> bytes:
        """A packet of a flow, translated on its way in."""
        packet = view.packet
        self.translation.advance(flow, _REPLY, view.kind, now)
        if flow.acknowledged is not None:
            flow.acknowledged.note(view, _REPLY)
        flow.packets_in += 1
        flow.bytes_in += len(packet)
        return delivered(view, flow)

    def _hairpin(self, view: PacketView, now: float, *, cut: bool = False) -> bytes | None:
        """A VM sends to a public IP of this gateway (A9): out by its own method, then in again."""
        outgoing = self._outbound(view, now, cut=cut)
        if outgoing is None:
            return None
        public = PacketView.parse(outgoing)
        assert public is not None  # rewriting changes no length
        return self._inbound(public, now, hairpin_of=view.source, cut=cut)

    def _lateral(self, view: PacketView, now: float) -> bytes | None:
        """From one inside network to another: judged and watched, not translated."""
        translation, packet = self.translation, view.packet
        flow = self.flows.originals(view.protocol).get(view.key)
        side = _ORIGINAL
        if flow is None:
            flow = self.flows.replies(view.protocol).get(view.key)
            side = _REPLY
        if flow is None and view.protocol == ICMP and view.kind in ICMP_ERRORS:
            return self._lateral_error(view)
        if flow is not None and translation.reopens(flow, side, view.kind):
            translation.replace(flow)
            flow = None
        if flow is None:
            answer = self.admission.lateral(view)
            if isinstance(answer, Refused):
                return self._refused(answer, view)
            if view.protocol == TCP and not is_opening(view.kind):
                # Where no group judges, a connection that began elsewhere goes on.
                if not answer.judgements:
                    return packet
                return self._refuse(DropReason.TCP_WITHOUT_FLOW, packet, answer.machine.name)
            opened = translation.open_lateral(
                view.protocol, view.key, answer.machine, answer.judgements, now
            )
            if isinstance(opened, DropReason):
                return self._refuse(opened, packet, answer.machine.name)
            flow, side = opened, _ORIGINAL
        translation.advance(flow, side, view.kind, now)
        if side is _ORIGINAL:
            flow.packets_out += 1
            flow.bytes_out += len(packet)
        else:
            flow.packets_in += 1
            flow.bytes_in += len(packet)
        return packet

    def _lateral_error(self, view: PacketView) -> bytes | None:
        """An ICMP error between VMs passes with the flow that it quotes."""
        quote = icmp.quoted(view)
        if quote is not None:
            known = self.flows.originals(quote.protocol).get(quote.key)
            if known is not None or icmp.flow_of_sent(self.flows, quote) is not None:
                return view.packet
            if self.flows.replies(quote.protocol).get(quote.key) is not None:
                return view.packet
        return self._refuse(DropReason.ICMP_ERROR_WITHOUT_FLOW, view.packet)

    def _probe(self, view: PacketView, now: float) -> bytes | None:
        """A health probe goes to a VM as any packet from outside does, past the groups there."""
        answer = self.admission.probe(view)
        return self._refused(answer, view) if isinstance(answer, Refused) else view.packet

    def count_segments(self, packet: bytes, arrival: int, mtu: int) -> None:
        """A TCP packet that passed was several segments, of ``mtu`` bytes at most: count each.

        The kernel cuts it when it leaves; listings and logs are of what is on a wire.
        """
        view = PacketView.parse(packet)
        if view is None or view.protocol != TCP:
            return
        key = view.key
        flow, out = self.flows.tcp_original.get(key), True
        if flow is None or arrival == Arrival.INBOUND:
            flow, out = self.flows.tcp_reply.get(key), False
        headers = view.transport + (packet[view.transport + 12] >> 4 << 2)
        room = mtu - headers
        if flow is None or room <= 0:
            return
        more = -(-(len(packet) - headers) // room) - 1
        if more <= 0:
            return
        if out:
            flow.packets_out += more
            flow.bytes_out += more * headers
        else:
            flow.packets_in += more
            flow.bytes_in += more * headers

    # -- ICMP errors

    def _error_to_outside(self, view: PacketView, *, keep_source: bool) -> bytes | None:
        quote = icmp.quoted(view)
        flow = None if quote is None else icmp.flow_of_received(self.flows, quote)
        if quote is None or flow is None:
            return self._refuse(DropReason.ICMP_ERROR_WITHOUT_FLOW, view.packet)
        return icmp.to_outside(view, quote, flow, keep_source=keep_source)

    def _error_to_inside(self, view: PacketView) -> bytes | None:
        quote = icmp.quoted(view)
        flow = None if quote is None else icmp.flow_of_sent(self.flows, quote)
        if quote is None or flow is None or view.destination != flow.public:
            return self._refuse(DropReason.ICMP_ERROR_WITHOUT_FLOW, view.packet)
        return icmp.to_inside(view, quote, flow)

    def _local_error(self, view: PacketView, now: float) -> bytes | None:
        """ICMP that this host sends outward itself: as it is, unless it quotes the inside."""
        if view.protocol != ICMP or view.kind not in ICMP_ERRORS:
            return view.packet
        quote = icmp.quoted(view)
        if quote is None or quote.key[4:8] in self.admission.scope.virtual_network:
            return self._error_to_outside(view, keep_source=True)
        return view.packet

    # -- time

    def expire(self, now: float, limit: int = 1000) -> int:
        """Reclaim flows whose time is over, looking at ``limit`` at most; returns how many."""
        for (reason, vm, rule), count, (protocol, source, remote) in self._drop_sampler.due(now):
            self._report_drop(reason, vm, rule, protocol, source, remote, count, now)
        self._shortage.look(now)
        self._now = now
        self.health.expire(now)
        return self.translation.expire(now, limit)

    # -- what the operator sees

    def take_events(self) -> list[Event]:
        """The events since the last call, oldest first."""
        events = list(self._events)
        self._events.clear()
        return events

    def flow_records(
        self, start: int, count: int, now: float
    ) -> tuple[list[FlowRecord], int | None]:
        """A slice of the flow table and where the next one starts (None: this was the last)."""
        flows, following = self.flows.slice(start, count)
        for flow in flows:
            if flow.offloaded:
                self.translation.fold(flow)
        return [record(flow, now) for flow in flows], following

    def port_records(self, now: float) -> Iterator[PortRecord | None]:
        """The SNAT ports of every VM, public IP and protocol; None where a caller may pause."""
        return port_records(self.outbound)

    def status(self, now: float) -> dict[str, Any]:
        """Counters, ready for JSON. ``now`` and all durations are Azure seconds."""
        return {
            "profile": self.profile.name,
            "flows": len(self.flows),
            "maximumFlows": self.flows.maximum,
            "flowsOpened": self.flows.opened,
            "virtualMachines": len(self.outbound.machines),
            "drops": {reason.value: count for reason, count in self._drops.items() if count},
            "unsampledDrops": self._drop_sampler.unsampled + self._shortage.unsampled,
        }

    # -- changes

    def reconfigure(self, configuration: Configuration, now: float) -> list[str]:
        """Carry another configuration out; returns a sentence for each change.

        Flows that the new configuration does not contradict go on untouched. The profile is fixed
        for an engine's life: the caller refuses a configuration with another one.
        """
        before = self.configuration
        self.configuration = configuration
        policy = self.admission.policy
        self.admission = self._admission(configuration)
        self.admission.policy.take_over_hits(policy)
        self.translation.log = self._flow_log(configuration)
        self.flows.maximum = configuration.gateway.maximum_flows
        owners = self.outbound.owners()
        machines = list(self.outbound.machines.values())
        resized = self.outbound.apply(plan(configuration, self.profile))
        broken = resize(self.translation, resized)
        changes = changes_between(before, configuration, self.profile)
        for sentence, machine, address, ports, lost in allotment_changes(resized, broken):
            changes.append(sentence)
            if ports or lost:
                self._events.append(AllotmentReclaimed(now, machine.name, address, ports, lost))
        gone = self.balancer.apply(configuration)
        self.health.reconfigured()
        # A look at every flow: only where an address went, or went to another VM, or a rule or VM.
        moved = owners.items() - self.outbound.owners().items()
        lost = any(m.flows and self.outbound.machines.get(m.address) is not m for m in machines)
        ended = end_misplaced(self.translation, gone) if moved or gone or lost else 0
        self._flows_ended(
            ended,
            "their public IP is no longer their VM's, or their inbound rule or VM is gone",
            changes,
            now,
        )
        if _prefixes(before) - _prefixes(configuration):
            ended = end_outside(self.translation, self.admission.scope)
            reason = "they are of no subnet any more, or lead out of the virtual network"
            self._flows_ended(ended, reason, changes, now)
        return changes

    def _flows_ended(self, count: int, reason: str, changes: list[str], now: float) -> None:
        if count:
            changes.append(f"{count} flow{'' if count == 1 else 's'} ended: {reason}")
            self._events.append(FlowsEnded(now, count, reason))

    def review(self, *, enforce: bool) -> Iterator[Review | None]:
        """Ask the groups again about every live flow; None after each slice, the result last.

        Flows go on when rules change (docs/fidelity.md A14), unless the group that denies one has
        ``flushConnection``, or all are to be ended (``enforce``).
        """
        refused = ended = 0
        start: int | None = 0
        while start is not None and self.admission.policy.groups:
            flows, start = self.flows.slice(start, REVIEW_SLICE)
            for flow in flows:
                if flow.awaiting_removal or flow.state in ENDED:
                    continue
                decision = self.admission.still_allowed(flow)
                if decision.allowed:
                    continue
                refused += 1
                denying = self.admission.policy.groups[decision.judgements[-1].group]
                if enforce or denying.flush_connection:
                    self.translation.end(flow)
                    ended += 1
            yield None
        yield Review(refused, ended)

    def watch_flows(self, wanted: Callable[[Flow], bool] | None) -> Iterator[None]:
        """See the packets of ``wanted`` flows here, and let all others' pass elsewhere.

        Of flows that open after this at once, of those that live a slice at a time, until the next
        call. None: nobody wants to see any.
        """
        self.translation.watched = wanted
        return self._share_out(wanted)

    def _share_out(self, wanted: Callable[[Flow], bool] | None) -> Iterator[None]:
        translation = self.translation
        start: int | None = 0
        while start is not None and translation.offload is not None:
            if translation.watched is not wanted:
                return  # somebody has come or gone meanwhile
            flows, start = self.flows.slice(start, REVIEW_SLICE)
            for flow in flows:
                if wanted is not None and wanted(flow):
                    translation.take_back(flow)
                elif not flow.awaiting_removal and flow.state not in ENDED and is_busy(flow):
                    translation.hand_over(flow)
            yield None

    def security_records(self) -> list[SecurityRuleRecord]:
        """Every rule of every network security group, with its hits."""
        return security_records(self.admission.policy, self.configuration)

    def _admission(self, configuration: Configuration) -> Admission:
        network = configuration.virtual_network
        scope = AddressScope(
            network.address_prefixes,
            [subnet.address_prefix for subnet in network.subnets],
            configuration.gateway.internet_address_prefixes,
        )
        return Admission(
            scope,
            Policy(configuration),
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
        return self.translation.log

    def _flow_log(self, configuration: Configuration) -> FlowLog | None:
        """The log for a configuration: the one that there is, if it goes on."""
        mode = configuration.gateway.flow_logs
        if mode == "off":
            return None
        subnets, everything = self.admission.scope.subnets, mode != "nsg"
        log = self.translation.log
        if log is None:
            log = FlowLog(subnets, everything=everything)
            log.fold = self.translation.fold
            return log
        log.subnets, log.everything = subnets, everything
        return log

    # -- refusals

    def _refuse_fragments(self, view: PacketView, flow: Flow) -> bytes | None:
        return self._refuse(DropReason.FRAGMENTS_NOT_SUPPORTED, view.packet, flow.machine.name)

    def _refused(self, answer: Refused, view: PacketView) -> bytes | None:
        """The verdict on a packet that may not open a flow."""
        if view.protocol == TCP and self.admission.is_to_be_reset(view, answer.reason):
            self.translation.outbox.answer(view)
        rule = None
        if answer.reason is DropReason.DENIED_BY_SECURITY_RULE:
            decisive = answer.judgements[-1]
            rule = f"{decisive.group}/{decisive.rule.name}"
            if self.translation.log is not None:
                self._log_denial(self.translation.log, view, decisive, answer)
        return self._refuse(answer.reason, view.packet, answer.vm, rule)

    def tell_refusals(
        self, told: Callable[[DropReason, str | None, str | None], None] | None
    ) -> None:
        """Call ``told`` with reason, VM and rule of every refusal; None: tell nobody any more."""
        if told is None:
            self._refuse = self._drop
            return
        drop = self._drop

        def refuse(
            reason: DropReason, packet: bytes, vm: str | None = None, rule: str | None = None
        ) -> bytes | None:
            told(reason, vm, rule)
            return drop(reason, packet, vm, rule)

        self._refuse = refuse

    def _drop(
        self, reason: DropReason, packet: bytes, vm: str | None = None, rule: str | None = None
    ) -> bytes | None:
        """The verdict on a packet that is dropped: counted, and sampled into an event."""
        self._drops[reason] += 1
        if reason is DropReason.PORTS_EXHAUSTED:
            return None  # has an event of its own, for each public IP
        protocol, source, remote = packet[9:10], packet[12:16], packet[16:20]
        detail = (protocol[0] if protocol else 0, source, remote)
        if self._drop_sampler.note((reason, vm, rule), detail, self._now):
            self._report_drop(reason, vm, rule, *detail, 1, self._now)
        return None

    def _log_denial(
        self, log: FlowLog, view: PacketView, judgement: Judgement, answer: Refused
    ) -> None:
        """Flow logs, too, see the private destination."""
        to = view.destination if answer.machine is None else answer.machine.address
        port = None if answer.listener is None else answer.listener.backend_port
        log.denied(view, to, port, judgement, self._now)

    def _report_drop(
        self,
        reason: DropReason,
        vm: str | None,
        rule: str | None,
        protocol: int,
        source: bytes,
        remote: bytes,
        count: int,
        now: float,
    ) -> None:
        if reason is DropReason.FLOW_TABLE_FULL:
            self._events.append(FlowTableFull(now, count))
            return
        self._events.append(
            PacketsDropped(now, reason, vm, protocol, _dotted(source), _dotted(remote), count, rule)
        )


def _prefixes(configuration: Configuration) -> set[IPv4Network]:
    """What decides which private addresses there may be flows of."""
    network = configuration.virtual_network
    return {*network.address_prefixes, *(subnet.address_prefix for subnet in network.subnets)}


def _dotted(address: bytes) -> str:
    return str(IPv4Address(address)) if len(address) == 4 else ""
