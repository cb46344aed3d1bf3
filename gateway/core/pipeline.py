"""What happens to a packet, in the order in which the packet meets it.

A verdict is the packet's bytes as they go on (the very same object if unchanged), or None: dropped,
for a reason that is counted and sampled into events. Nothing that arrives can make it raise.

Read ``_build_handlers`` first, then the stages below it in the order in which they stand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gateway.core.admission import (
    PROBE_SOURCE,
    Admission,
    Rejected,
    is_to_itself,
    takes_fragments,
)
from gateway.core.established import PacketHandler, established_inbound, established_outbound
from gateway.core.flow_lifecycle import FlowLifecycle
from gateway.core.flows import icmp_errors as icmp
from gateway.core.flows.flow import Flow
from gateway.core.flows.icmp_errors import Quote
from gateway.core.flows.nat_rewrite import snat_inbound, snat_outbound
from gateway.core.flows.offload import BUSY, NEVER
from gateway.core.flows.tcp import Side, State, is_opening
from gateway.core.ingress import IngressPath
from gateway.core.observe.drop_counters import DropCounters
from gateway.core.observe.flow_log import FlowLog
from gateway.core.packet.view import ICMP_ERRORS, ICMP_QUERIES, PacketView
from gateway.core.policy.nsg import RuleMatch
from gateway.schema.drop_reasons import DropReason
from gateway.schema.protocols import ICMP, TCP, UDP

_ORIGINAL, _REPLY = Side.ORIGINAL, Side.REPLY

_Stage = Callable[[PacketView, float], bytes | None]


class Pipeline:
    """One handler for each path that a packet takes. ``admission`` is another one after each
    change."""

    def __init__(self, lifecycle: FlowLifecycle, admission: Admission, drops: DropCounters) -> None:
        self.admission = admission
        self.drops = drops
        self._lifecycle = lifecycle
        self._flows = lifecycle.table
        self.handlers = self._build_handlers()
        """For each ``IngressPath``, in its order."""

    def _build_handlers(self) -> tuple[PacketHandler, ...]:
        """For each ``IngressPath``, in its order, what a packet meets."""
        stages: dict[IngressPath, _Stage] = {
            IngressPath.OUTBOUND: self._outbound,
            IngressPath.INBOUND: self._inbound,
            IngressPath.HAIRPIN: self._to_us,
            IngressPath.LOCAL_ERROR: self._local_error,
            IngressPath.LATERAL: self._to_networks,
            IngressPath.PROBE: self._from_host,
            IngressPath.OUTBOUND_IN_FRAGMENTS: partial(self._outbound, fragmented=True),
            IngressPath.INBOUND_IN_FRAGMENTS: partial(self._inbound, fragmented=True),
            IngressPath.HAIRPIN_IN_FRAGMENTS: partial(self._to_us, fragmented=True),
        }
        handlers = [self._checked(stages[ingress]) for ingress in IngressPath]
        # Most packets belong to a live flow: one look-up, rewritten, done.
        busy = NEVER if self._lifecycle.offload is None else BUSY
        for ingress, established in (
            (IngressPath.OUTBOUND, established_outbound),
            (IngressPath.INBOUND, established_inbound),
        ):
            handlers[ingress] = established(
                self._flows, handlers[ingress], self._lifecycle.hand_over, busy
            )
        return tuple(handlers)

    def _checked(self, stages: _Stage) -> PacketHandler:
        """The headers are checked once; after this no look at them can fail."""

        def handler(packet: bytes, now: float) -> bytes | None:
            self.drops.now = now
            view = PacketView.parse(packet)
            if view is None:
                return self.drops.drop(DropReason.MALFORMED, packet)
            # The kernel reassembles before its hooks; a fragment here has no ports to go by.
            if view.is_fragment:
                return self.drops.drop(DropReason.FRAGMENT, packet)
            return stages(view, now)

        return handler

    def _outbound(self, view: PacketView, now: float, *, fragmented: bool = False) -> bytes | None:
        """A VM sends to outside: its flow, or an error about one, or a flow that begins.

        ``fragmented``: in fragments.
        """
        flow = self._flows.originals(view.protocol).get(view.key)
        if flow is not None:
            if fragmented and not takes_fragments(flow.method):
                return self._drop_fragments(view, flow)
            if not self._reopens(flow, _ORIGINAL, view, now):
                return self._send(view, flow, now)
        if view.protocol == ICMP and view.kind in ICMP_ERRORS:
            return self._error_to_outside(view, fragmented=fragmented)
        answer = self.admission.outbound(view, fragmented=fragmented)
        if isinstance(answer, Rejected):
            return self._reject(answer, view, fragmented=fragmented)
        machine, rule_matches, _ = answer
        opened = self._lifecycle.open(
            view.protocol, view.key, machine, rule_matches, now, superseded=flow
        )
        if isinstance(opened, DropReason):
            return self.drops.drop(opened, view.packet, machine.name)
        return self._send(view, opened, now)

    def _send(self, view: PacketView, flow: Flow, now: float) -> bytes:
        """A packet of a flow, translated on its way out."""
        packet = view.packet
        self._lifecycle.track(flow, _ORIGINAL, view.kind, now, view.numbers)
        flow.packets_out += 1
        flow.bytes_out += len(packet)
        return snat_outbound(view, flow)

    def _inbound(
        self,
        view: PacketView,
        now: float,
        *,
        hairpin_of: bytes | None = None,
        fragmented: bool = False,
    ) -> bytes | None:
        """To a public IP: a reply, an error about a flow, or a flow that begins, or unsolicited."""
        flow = self._flows.replies(view.protocol).get(view.key)
        if hairpin_of is not None and is_to_itself(view):
            flow = None  # of its own first half: it would come back to who sent it
        if flow is not None:
            if fragmented and not takes_fragments(flow.method):
                return self._drop_fragments(view, flow)
            if not self._reopens(flow, _REPLY, view, now):
                return self._deliver(view, flow, now)
        if view.protocol == ICMP and view.kind in ICMP_ERRORS:
            return self._error_to_inside(
                view, hairpin=hairpin_of is not None, fragmented=fragmented
            )
        answer = self.admission.inbound(view, hairpin_of=hairpin_of, fragmented=fragmented)
        if isinstance(answer, Rejected):
            return self._reject(answer, view, fragmented=fragmented)
        machine, rule_matches, listener = answer
        opened = self._lifecycle.open_inbound(
            view.protocol, view.key, machine, rule_matches, listener, now, superseded=flow
        )
        if isinstance(opened, DropReason):
            return self.drops.drop(opened, view.packet, machine.name)
        return self._deliver(view, opened, now)

    def _deliver(self, view: PacketView, flow: Flow, now: float) -> bytes:
        """A packet of a flow, translated on its way in."""
        packet = view.packet
        if view.protocol == UDP and flow.state is State.OPENING:
            self._lifecycle.answer_by(flow)
        self._lifecycle.track(flow, _REPLY, view.kind, now, view.numbers)
        flow.packets_in += 1
        flow.bytes_in += len(packet)
        return snat_inbound(view, flow)

    def _to_us(self, view: PacketView, now: float, *, fragmented: bool = False) -> bytes | None:
        """From inside, before routing: to a public IP, or to this host's own addresses."""
        to = view.destination
        if self.admission.is_public(to) or to == PROBE_SOURCE:
            return self._hairpin(view, now, fragmented=fragmented)
        return (
            self._outbound(view, now, fragmented=fragmented)
            if self._answers(view, now)
            else view.packet
        )

    def _to_networks(self, view: PacketView, now: float) -> bytes | None:
        """From inside, routed to another inside network, or to one that is not the gateway's."""
        if view.destination in self.admission.scope.virtual_network:
            return self._lateral(view, now)
        if self._answers(view, now):
            return self._outbound(view, now)
        vm = self.admission.name_of(view.source)
        return self.drops.drop(DropReason.ROUTED_ELSEWHERE, view.packet, vm)

    def _answers(self, view: PacketView, now: float) -> bool:
        """Whether a VM's packet is of a flow, or about one, that somebody else began by a public
        IP: this host, or another network of it, whose answers do not leave by the outside."""
        flow = self._flows.originals(view.protocol).get(view.key)
        if flow is not None:
            return flow.inbound and not self._reopens(flow, _ORIGINAL, view, now)
        if view.protocol != ICMP or view.kind not in ICMP_ERRORS:
            return False
        quote = icmp.quoted(view)
        flow = None if quote is None else icmp.flow_of_received(self._flows, quote)
        return flow is not None and flow.inbound

    def _from_host(self, view: PacketView, now: float) -> bytes | None:
        """This host itself sends to a public IP, or probes a VM."""
        if self.admission.is_public(view.destination):
            return self._inbound(view, now)
        return self._probe(view, now)

    def _hairpin(self, view: PacketView, now: float, *, fragmented: bool = False) -> bytes | None:
        """A VM sends to a public IP of this gateway (A9): out by its own method, then in again."""
        flow = self._flows.originals(view.protocol).get(view.key)
        if flow is not None and self._reopens(flow, _ORIGINAL, view, now):
            rejected = self._reason_against_second_half(view, now, fragmented=fragmented)
            if rejected is not None:  # before the first half takes the place of its old flow
                return self._reject(*rejected, fragmented=fragmented)
        outgoing = self._outbound(view, now, fragmented=fragmented)
        if outgoing is None:
            return None
        public = PacketView.parse(outgoing)
        assert public is not None  # rewriting changes no length
        return self._inbound(public, now, hairpin_of=view.source, fragmented=fragmented)

    def _reason_against_second_half(
        self, view: PacketView, now: float, *, fragmented: bool
    ) -> tuple[Rejected, PacketView] | None:
        """Why a hairpin that begins anew would not come in again, and the packet that would not."""
        admission = self.admission
        leaving = admission.outbound(view, count=False, fragmented=fragmented)
        if isinstance(leaving, Rejected):
            return None  # it is not even to go out
        machine, source = leaving.machine, view.source
        if machine.instance is None:
            address, port = self._lifecycle.allocator.foreseen(machine, view.protocol, view.key)
        else:
            address, port = machine.instance, 0  # its own
        if not address:
            return None  # there is no port: it will be said
        start, packet = view.transport, view.packet
        number = port.to_bytes(2, "big") if port else view.ports[0:2]
        public = PacketView.parse(
            b"".join((packet[:12], address, packet[16:start], number, packet[start + 2 :]))
        )
        assert public is not None
        second = self._flows.replies(public.protocol).get(public.key)
        if second is not None and not self._reopens(second, _REPLY, public, now):
            return None
        answer = admission.inbound(public, hairpin_of=source, count=False, fragmented=fragmented)
        if not isinstance(answer, Rejected):
            return None
        if answer.reason is DropReason.HAIRPIN_TO_ITSELF and len(machine.allocations) > 1:
            return None  # another public IP may lead to another VM
        admission.outbound(view, fragmented=fragmented)  # what it meets on the way is counted
        admission.inbound(public, hairpin_of=source, fragmented=fragmented)
        return answer, public

    def _reopens(self, flow: Flow, side: Side, view: PacketView, now: float) -> bool:
        return self._lifecycle.is_tuple_reuse(flow, side, view.kind, view.numbers[0], now)

    def _lateral(self, view: PacketView, now: float) -> bytes | None:
        """From one inside network to another: judged and watched, not translated."""
        lifecycle, packet = self._lifecycle, view.packet
        flows = self._flows.lateral
        flow = flows.originals(view.protocol).get(view.key)
        side = _ORIGINAL
        if flow is None:
            flow = flows.replies(view.protocol).get(view.key)
            side = _REPLY
        if flow is None and view.protocol == ICMP and view.kind in ICMP_ERRORS:
            return self._lateral_error(view)
        superseded = None
        if flow is not None and self._reopens(flow, side, view, now):
            flow, superseded = None, flow
        if flow is None:
            answer = self.admission.lateral(view)
            if isinstance(answer, Rejected):
                return self._reject(answer, view)
            reason = _not_opening(view)
            if reason is not None:
                # Where no group judges, what began elsewhere goes on.
                if not answer.rule_matches:
                    return packet
                return self.drops.drop(reason, packet, answer.machine.name)
            opened = lifecycle.open_lateral(
                view.protocol,
                view.key,
                answer.machine,
                answer.rule_matches,
                now,
                superseded=superseded,
            )
            if isinstance(opened, DropReason):
                return self.drops.drop(opened, packet, answer.machine.name)
            flow, side = opened, _ORIGINAL
        lifecycle.track(flow, side, view.kind, now, view.numbers)
        if side is _ORIGINAL:
            flow.packets_out += 1
            flow.bytes_out += len(packet)
        else:
            flow.packets_in += 1
            flow.bytes_in += len(packet)
        return packet

    def _lateral_error(self, view: PacketView) -> bytes | None:
        """An ICMP error between the two VMs of a flow passes with it."""
        quote = icmp.quoted(view)
        flow = None
        if quote is not None:
            flows = self._flows.lateral
            flow = flows.originals(quote.protocol).get(quote.key)
            if flow is None:
                flow = flows.replies(quote.protocol).get(quote.key)
        reason = self._fault_of_error(view, quote, flow, from_receiver=True)
        return view.packet if reason is None else self.drops.drop(reason, view.packet)

    def _probe(self, view: PacketView, _now: float) -> bytes | None:
        """A health probe goes to a VM as any packet from outside does, past the groups there."""
        answer = self.admission.probe(view)
        return self._reject(answer, view) if isinstance(answer, Rejected) else view.packet

    def count_segments(self, packet: bytes, ingress: int, mtu: int) -> None:
        """A TCP packet that passed was several segments, of ``mtu`` bytes at most: count each.

        The kernel cuts it when it leaves; listings and logs are of what is on a wire.
        """
        view = PacketView.parse(packet)
        if view is None or view.protocol != TCP:
            return
        key = view.key
        flows = self._flows.lateral if ingress == IngressPath.LATERAL else self._flows
        flow, out = flows.tcp_original.get(key), True
        if flow is None or ingress == IngressPath.INBOUND:
            flow, out = flows.tcp_reply.get(key), False
        if flow is None and ingress == IngressPath.LATERAL:  # an answer to a network of this host
            flow, out = self._flows.tcp_original.get(key), True
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

    def _fault_of_error(
        self, view: PacketView, quote: Quote | None, flow: Flow | None, *, from_receiver: bool
    ) -> DropReason | None:
        """Why an error does not pass with the flow of the packet that it quotes; None: it does.

        ``from_receiver``: it must come from where that packet went.
        """
        if quote is None:
            return DropReason.ICMP_ERROR_WITHOUT_FLOW
        if not icmp.is_intact(view, quote):
            return DropReason.ICMP_ERROR_INVALID
        if flow is None:
            return DropReason.ICMP_ERROR_WITHOUT_FLOW
        if not icmp.goes_back(view, quote):
            return DropReason.ICMP_ERROR_MISADDRESSED
        if from_receiver and not icmp.is_from_receiver(view, quote):
            return DropReason.ICMP_ERROR_MISADDRESSED
        return None

    def _error_to_outside(
        self, view: PacketView, *, by_gateway: bool = False, fragmented: bool = False
    ) -> bytes | None:
        """A VM, or this host, says what became of a packet from outside."""
        quote = icmp.quoted(view)
        flow = None if quote is None else icmp.flow_of_received(self._flows, quote)
        reason = self._fault_of_error(view, quote, flow, from_receiver=not by_gateway)
        if reason is not None or quote is None or flow is None:
            reason = reason or DropReason.ICMP_ERROR_WITHOUT_FLOW
            vm = self.admission.name_of(view.source)
            return self.drops.drop(reason, view.packet, vm)
        if fragmented and not takes_fragments(flow.method):
            return self._drop_fragments(view, flow)
        keep_source = by_gateway and view.source not in self.admission.scope.virtual_network
        return icmp.to_outside(view, quote, flow, keep_source=keep_source)

    def _error_to_inside(
        self, view: PacketView, *, hairpin: bool = False, fragmented: bool = False
    ) -> bytes | None:
        """Somebody outside says what became of a packet that was sent from a public IP.

        ``hairpin``: it was another VM.
        """
        if not hairpin and not self.admission.can_be_outside(view.source):
            return self.drops.drop(DropReason.SOURCE_NOT_OUTSIDE, view.packet)
        quote = icmp.quoted(view)
        flow = None if quote is None else icmp.flow_of_sent(self._flows, quote)
        reason = self._fault_of_error(view, quote, flow, from_receiver=hairpin)
        if reason is not None or quote is None or flow is None or self._is_outlived(flow):
            reason = reason or DropReason.ICMP_ERROR_WITHOUT_FLOW
            return self.drops.drop(reason, view.packet)
        if fragmented and not takes_fragments(flow.method):
            return self._drop_fragments(view, flow)
        return icmp.to_inside(view, quote, flow)

    def _is_outlived(self, flow: Flow) -> bool:
        """Whether a TCP flow only holds its port: an error would hit the connection after it."""
        return flow.protocol == TCP and self._flows.tcp_original.get(flow.original) is not flow

    def _local_error(self, view: PacketView, _now: float) -> bytes | None:
        """ICMP that this host sends outward itself: as it is, unless it quotes the inside."""
        inside = self.admission.scope.virtual_network
        if view.destination in inside:
            return self.drops.drop(DropReason.PRIVATE_ADDRESS_OUTSIDE, view.packet)
        if view.protocol == ICMP and view.kind in ICMP_ERRORS:
            quoted = icmp.quoted_addresses(view)
            if any(len(address) == 4 and address in inside for address in quoted):
                return self._error_to_outside(view, by_gateway=True)
        if view.source in inside:
            return self.drops.drop(DropReason.PRIVATE_ADDRESS_OUTSIDE, view.packet)
        return view.packet

    # -- drops

    def _drop_fragments(self, view: PacketView, flow: Flow) -> bytes | None:
        return self.drops.drop(DropReason.FRAGMENTS_NOT_SUPPORTED, view.packet, flow.machine.name)

    def _reject(
        self, answer: Rejected, view: PacketView, *, fragmented: bool = False
    ) -> bytes | None:
        """The verdict on a packet that may not open a flow."""
        answered = view.protocol == TCP and not fragmented
        if answered and self.admission.is_to_be_reset(view, answer.reason):
            self._lifecycle.reset_queue.answer(view)
        rule = None
        if answer.reason is DropReason.DENIED_BY_SECURITY_RULE:
            decisive = answer.rule_matches[-1]
            rule = f"{decisive.group}/{decisive.rule.name}"
            if self._lifecycle.log is not None:
                self._log_denial(self._lifecycle.log, view, decisive, answer)
        return self.drops.drop(answer.reason, view.packet, answer.vm, rule)

    def _log_denial(
        self, log: FlowLog, view: PacketView, rule_match: RuleMatch, answer: Rejected
    ) -> None:
        """Flow logs, too, see the private destination."""
        to = view.destination if answer.machine is None else answer.machine.address
        port = None if answer.listener is None else answer.listener.backend_port
        log.denied(view, to, port, rule_match, self.drops.now)


def _not_opening(view: PacketView) -> DropReason | None:
    """Why a packet between VMs begins no flow; None: it may."""
    if view.protocol == TCP and not is_opening(view.kind):
        return DropReason.TCP_WITHOUT_FLOW
    if view.protocol == ICMP and view.kind not in ICMP_QUERIES:
        return DropReason.ICMP_NOT_SUPPORTED
    return None
