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
from ipaddress import IPv4Address
from typing import Any

from gateway.core import icmp
from gateway.core.arrival import Arrival
from gateway.core.drops import DropReason
from gateway.core.established import Way, established_inbound, established_outbound
from gateway.core.events import (
    AllotmentReclaimed,
    Event,
    FlowTableFull,
    PacketsDropped,
    PortsExhausted,
    Sampler,
)
from gateway.core.flow import ICMP, TCP, UDP, Flow, FlowRecord
from gateway.core.outbound import PROTOCOL_NAMES, Machine, Outbound
from gateway.core.packet import (
    ECHO_REPLY,
    ECHO_REQUEST,
    ICMP_ERRORS,
    ICMP_QUERIES,
    PacketView,
    delivered,
    sent,
)
from gateway.core.plan import plan
from gateway.core.ports import PortPool, PortRecord
from gateway.core.reporting import changes_between, port_records
from gateway.core.scope import AddressScope
from gateway.core.tcp import Side, is_opening
from gateway.core.translation import Translation
from gateway.model.configuration import Configuration
from gateway.model.profile import PROFILES, Method

MAXIMUM_EVENTS = 10_000  # that wait to be taken; the oldest go first
MAXIMUM_SAMPLED = 4_096  # kinds of drops and exhaustions told apart at a time

_ORIGINAL, _REPLY = Side.ORIGINAL, Side.REPLY


class Engine:
    """A gateway without its wires. ``seed`` fixes the choice among frontends."""

    def __init__(
        self, configuration: Configuration, *, seed: int | None = None, now: float = 0.0
    ) -> None:
        self.configuration = configuration
        self.profile = PROFILES[configuration.gateway.profile]
        self.outbound = Outbound(plan(configuration, self.profile), self.profile)
        self.translation = Translation(
            self.profile,
            self.outbound,
            configuration.gateway.maximum_flows,
            seed,
            self._exhausted,
        )
        self.flows = self.translation.table
        self.ways = self._build_ways()
        self._scope = _scope(configuration)
        self._translate_echo = configuration.gateway.icmp_echo == "translate"
        self._now = now
        self._events: deque[Event] = deque(maxlen=MAXIMUM_EVENTS)
        self._drops = dict.fromkeys(DropReason, 0)
        interval = self.profile.exhaustion_event_interval
        self._drop_sampler = Sampler[tuple[DropReason, str | None], tuple[int, bytes, bytes]](
            interval, MAXIMUM_SAMPLED
        )
        self._exhaustion_sampler = Sampler[tuple[str, bytes, int], tuple[bytes, int]](
            interval, MAXIMUM_SAMPLED
        )

    # -- the pipeline

    def handle(self, packet: bytes, arrival: int, now: float) -> bytes | None:
        """What becomes of a packet that came in by ``arrival`` (an ``Arrival``) at ``now``.

        ``ways[arrival]`` is the same, one call less for who handles many.
        """
        return self.ways[arrival](packet, now)

    def _build_ways(self) -> tuple[Way, ...]:
        """For each ``Arrival``, in its order, what a packet meets."""
        stages = {
            Arrival.OUTBOUND: self._outbound,
            Arrival.INBOUND: self._inbound,
            Arrival.HAIRPIN: self._hairpin,
            Arrival.LOCAL_ERROR: self._local_error,
            Arrival.LATERAL: self._lateral,
        }
        ways = [self._checked(stages[arrival]) for arrival in Arrival]
        # Most packets belong to a live flow: one look-up, rewritten, done.
        for arrival, established in (
            (Arrival.OUTBOUND, established_outbound),
            (Arrival.INBOUND, established_inbound),
        ):
            ways[arrival] = established(self.flows, ways[arrival])
        return tuple(ways)

    def _checked(self, stages: Callable[[PacketView, float], bytes | None]) -> Way:
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

    def _outbound(self, view: PacketView, now: float) -> bytes | None:
        """A VM sends to outside: its flow, or an error about one, or a flow that begins."""
        flow = self.flows.originals(view.protocol).get(view.key)
        if flow is not None:
            if view.protocol != TCP or not self.translation.reopens(flow, view.kind):
                return self._send(view, flow, now)
            self.translation.replace(flow)
        if view.protocol == ICMP and view.kind in ICMP_ERRORS:
            return self._error_to_outside(view, keep_source=False)
        machine = self._sender(view)
        if isinstance(machine, DropReason):
            return self._refuse(machine, view.packet)
        refusal = self._refusal_to_open(view, machine)
        if refusal is not None:
            return self._refuse(refusal, view.packet, machine.name)
        flow_or_reason = self.translation.open(view.protocol, view.key, machine, now)
        if isinstance(flow_or_reason, DropReason):
            return self._refuse(flow_or_reason, view.packet, machine.name)
        return self._send(view, flow_or_reason, now)

    def _sender(self, view: PacketView) -> Machine | DropReason:
        """The VM that may open a flow with this packet, or why there is none."""
        if view.source not in self._scope.subnets:
            return DropReason.SOURCE_NOT_IN_VIRTUAL_NETWORK
        destination = view.destination
        if not self._scope.is_internet(destination) and destination not in self.outbound.addresses:
            return DropReason.DESTINATION_NOT_INTERNET
        if view.protocol == TCP and not is_opening(view.kind):
            if (TCP, view.key) in self.flows.reclaimed:
                return DropReason.PORT_RECLAIMED
            return DropReason.TCP_WITHOUT_FLOW
        machine = self.outbound.machine(view.source)
        return DropReason.DEFAULT_OUTBOUND_CAPACITY if machine is None else machine

    def _refusal_to_open(self, view: PacketView, machine: Machine) -> DropReason | None:
        """Why this VM's method does not take this packet's protocol; None if it does."""
        protocol = view.protocol
        if protocol in (TCP, UDP) or machine.method is None:
            return None
        if protocol == ICMP:
            if view.kind not in ICMP_QUERIES:
                return DropReason.ICMP_NOT_SUPPORTED
            if machine.method is Method.INSTANCE_LEVEL_PUBLIC_IP:
                return None
            if view.kind != ECHO_REQUEST:
                return DropReason.ICMP_NOT_SUPPORTED
            return None if self._translate_echo else DropReason.ICMP_ECHO_THROUGH_SNAT
        if machine.method is Method.INSTANCE_LEVEL_PUBLIC_IP:
            return None
        return DropReason.PROTOCOL_NOT_SUPPORTED

    def _send(self, view: PacketView, flow: Flow, now: float) -> bytes:
        """A packet of a flow, translated on its way out."""
        packet = view.packet
        self.translation.advance(flow, _ORIGINAL, view.kind, now)
        flow.packets_out += 1
        flow.bytes_out += len(packet)
        return sent(view, flow)

    def _inbound(self, view: PacketView, now: float) -> bytes | None:
        """From outside to a public IP: a reply, an error about a flow, or unsolicited."""
        flow = self.flows.replies(view.protocol).get(view.key)
        if flow is not None:
            return self._deliver(view, flow, now)
        if view.protocol == ICMP and view.kind in ICMP_ERRORS:
            return self._error_to_inside(view)
        return self._refuse(self._refusal_of_unsolicited(view), view.packet)

    def _deliver(self, view: PacketView, flow: Flow, now: float) -> bytes:
        """A packet of a flow, translated on its way in."""
        packet = view.packet
        self.translation.advance(flow, _REPLY, view.kind, now)
        flow.packets_in += 1
        flow.bytes_in += len(packet)
        return delivered(view, flow)

    def _refusal_of_unsolicited(self, view: PacketView) -> DropReason:
        public = self.outbound.addresses.get(view.destination)
        if public is None:
            return DropReason.PUBLIC_ADDRESS_UNKNOWN
        if public.instance_of is not None:
            return DropReason.INBOUND_NOT_ALLOWED
        if view.protocol in (TCP, UDP):
            return DropReason.INBOUND_WITHOUT_FLOW
        if view.protocol == ICMP:
            if view.kind in (ECHO_REQUEST, ECHO_REPLY):
                return DropReason.ICMP_ECHO_THROUGH_SNAT
            return DropReason.ICMP_NOT_SUPPORTED
        return DropReason.PROTOCOL_NOT_SUPPORTED

    def _hairpin(self, view: PacketView, now: float) -> bytes | None:
        """A VM sends to a public IP of this gateway (A9): out by its own method, then in again."""
        outgoing = self._outbound(view, now)
        if outgoing is None:
            return None
        public = PacketView.parse(outgoing)
        assert public is not None  # rewriting changes no length
        if self.flows.replies(public.protocol).get(public.key) is None and not (
            public.protocol == ICMP and public.kind in ICMP_ERRORS
        ):
            return self._refuse(DropReason.HAIRPIN_WITHOUT_RULE, view.packet)
        return self._inbound(public, now)

    def _lateral(self, view: PacketView, now: float) -> bytes | None:
        """From one inside network to another: routed, not translated, and nowhere else."""
        if view.source not in self._scope.subnets:
            return self._refuse(DropReason.SOURCE_NOT_IN_VIRTUAL_NETWORK, view.packet)
        if view.destination not in self._scope.virtual_network:
            return self._refuse(DropReason.DESTINATION_NOT_INTERNET, view.packet)
        return view.packet

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
        if quote is None or flow is None:
            return self._refuse(DropReason.ICMP_ERROR_WITHOUT_FLOW, view.packet)
        return icmp.to_inside(view, quote, flow)

    def _local_error(self, view: PacketView, now: float) -> bytes | None:
        """ICMP that this host sends outward itself: as it is, unless it quotes the inside."""
        if view.protocol != ICMP or view.kind not in ICMP_ERRORS:
            return view.packet
        quote = icmp.quoted(view)
        if quote is None or quote.key[4:8] in self._scope.virtual_network:
            return self._error_to_outside(view, keep_source=True)
        return view.packet

    # -- time

    def expire(self, now: float, limit: int = 1000) -> int:
        """Reclaim flows whose time is over, looking at ``limit`` at most; returns how many."""
        for (reason, vm), count, (protocol, source, remote) in self._drop_sampler.due(now):
            self._report_drop(reason, vm, protocol, source, remote, count, now)
        for (vm, public, protocol), count, (address, port) in self._exhaustion_sampler.due(now):
            self._report_exhaustion(vm, public, protocol, address, port, count, now)
        self._now = now
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
        return self.flows.records(start, count, now)

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
            "unsampledDrops": self._drop_sampler.unsampled + self._exhaustion_sampler.unsampled,
        }

    # -- changes

    def reconfigure(self, configuration: Configuration, now: float) -> list[str]:
        """Carry another configuration out; returns a sentence for each change.

        Flows that the new configuration does not contradict go on untouched. The profile is fixed
        for an engine's life: the caller refuses a configuration with another one.
        """
        before = self.configuration
        self.configuration = configuration
        self._scope = _scope(configuration)
        self._translate_echo = configuration.gateway.icmp_echo == "translate"
        self.flows.maximum = configuration.gateway.maximum_flows
        resized = self.outbound.apply(plan(configuration, self.profile))
        broken = self.translation.resize(resized, now)
        changes = changes_between(before, configuration, self.profile)
        for position, change in enumerate(resized):
            allotment = change.allotment
            lost, after = broken.get(position, 0), sum(map(len, change.ranges))
            address = str(IPv4Address(allotment.address))
            changes.append(
                f"{allotment.machine.name} on {address}: {change.before} -> {after} SNAT ports for "
                f"each protocol, {lost} flows broken"
            )
            if lost or after < change.before:
                self._events.append(
                    AllotmentReclaimed(
                        now, allotment.machine.name, address, max(change.before - after, 0), lost
                    )
                )
        ended = self.translation.end_misplaced()
        if ended:
            changes.append(f"{ended} flows ended: their public IP is no longer their VM's")
        return changes

    # -- refusals

    def _refuse(self, reason: DropReason, packet: bytes, vm: str | None = None) -> bytes | None:
        """The verdict on a packet that is dropped: counted, and sampled into an event."""
        self._drops[reason] += 1
        if reason is DropReason.PORTS_EXHAUSTED:
            return None  # has an event of its own, for each public IP
        protocol, source, remote = packet[9:10], packet[12:16], packet[16:20]
        detail = (protocol[0] if protocol else 0, source, remote)
        if self._drop_sampler.note((reason, vm), detail, self._now):
            self._report_drop(reason, vm, *detail, 1, self._now)
        return None

    def _report_drop(
        self,
        reason: DropReason,
        vm: str | None,
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
            PacketsDropped(now, reason, vm, protocol, _dotted(source), _dotted(remote), count)
        )

    def _exhausted(
        self, machine: Machine, pool: PortPool, protocol: int, original: bytes, now: float
    ) -> None:
        key = (machine.name, pool.address, protocol)
        address, port = original[4:8], int.from_bytes(original[10:12], "big")
        if self._exhaustion_sampler.note(key, (address, port), now):
            self._report_exhaustion(*key, address, port, 1, now)

    def _report_exhaustion(
        self,
        vm: str,
        public: bytes,
        protocol: int,
        address: bytes,
        port: int,
        count: int,
        now: float,
    ) -> None:
        self._events.append(
            PortsExhausted(
                now,
                vm,
                str(IPv4Address(public)),
                PROTOCOL_NAMES[protocol],
                str(IPv4Address(address)),
                port,
                count,
            )
        )


def _scope(configuration: Configuration) -> AddressScope:
    network = configuration.virtual_network
    return AddressScope(
        network.address_prefixes,
        [subnet.address_prefix for subnet in network.subnets],
        configuration.gateway.internet_address_prefixes,
    )


def _dotted(address: bytes) -> str:
    return str(IPv4Address(address)) if len(address) == 4 else ""
