"""A packet's path: which stages it meets, in which order, by the way that it came in.

``PATHS`` has a path for each ``IngressPath``: a tuple of stages (``stages.py``), asked in turn
until one gives a verdict. A verdict is the packet's bytes as they go on (the very same object if
unchanged), or a reason to drop it, which is counted and sampled into events. Nothing that arrives
can make a stage raise.

A data packet of a live flow meets none of them: ``established.py`` stands before, and hands on what
it does not take. ``explain`` walks the same paths in a dry run (``dry_run.py``; its sentences:
``explain.py``).

What the stages ask: may it open a flow (``admission.py``), by which method
(``model/resolved/outbound_methods.py``), from which IP and port (``port_selection.py``); what its
segments do to the flow's state, and how long a port is held (``flow_tracking.py``). Every number of
Azure's is in ``model/profile.py``.
"""

from __future__ import annotations

from gateway.core.admission import PROBE_SOURCE, Admission, Rejected
from gateway.core.dry_run import DryRun
from gateway.core.established import PacketHandler, established_inbound, established_outbound
from gateway.core.flow_lifecycle import FlowLifecycle
from gateway.core.flows import icmp_errors as icmp
from gateway.core.flows.offload import BUSY, NEVER
from gateway.core.flows.tcp import Side
from gateway.core.ingress import IngressPath
from gateway.core.observe.drop_counters import DropCounters
from gateway.core.packet.view import ICMP_ERRORS, PacketView
from gateway.core.stages import (
    PacketContext,
    Path,
    Verdict,
    admit_inbound,
    admit_lateral,
    admit_outbound,
    admit_probe,
    drop_fragments,
    drop_private_destination,
    drop_private_source,
    drop_routed_elsewhere,
    find_by_original,
    find_by_reply,
    find_either,
    is_reused,
    open_inbound_flow,
    open_lateral_flow,
    open_outbound_flow,
    pass_unchanged,
    supersede_reused_tuple,
    take_shared_endpoint,
    track,
    translate_destination,
    translate_source,
)
from gateway.core.stages_icmp import (
    pass_icmp_error,
    translate_icmp_error_in,
    translate_icmp_error_out,
    translate_own_icmp_error,
)
from gateway.schema.drop_reasons import DropReason
from gateway.schema.protocols import ICMP, TCP

# -- stages that lead to another path


def hairpin_to_public(packet: PacketContext) -> Path | None:
    """To a public IP of this gateway: out, then in again."""
    to = packet.destination
    return HAIRPIN if packet.admission.is_public(to) or to == PROBE_SOURCE else None


def answer_by_outbound(packet: PacketContext) -> Path | None:
    """A VM answers this host, or another network of it, that asked a public IP.

    Its flow, or an error about it, was begun from there: the answer does not leave by the outside
    interface, and is translated all the same.
    """
    flows = packet.lifecycle.table
    flow = flows.originals(packet.protocol).get(packet.flow_key)
    if flow is not None:
        return OUTBOUND if flow.inbound and not is_reused(packet, flow, Side.ORIGINAL) else None
    if packet.protocol != ICMP or packet.kind not in ICMP_ERRORS:
        return None
    quote = icmp.quoted(packet)
    flow = None if quote is None else icmp.flow_of_received(flows, quote)
    return OUTBOUND if flow is not None and flow.inbound else None


def lateral_within_network(packet: PacketContext) -> Path | None:
    """From one inside network to another: evaluated and tracked, not translated."""
    inside = packet.destination in packet.admission.scope.virtual_network
    return LATERAL if inside else None


def inbound_to_public(packet: PacketContext) -> Path | None:
    """This host asks a public IP, as the outside would."""
    return INBOUND if packet.admission.is_public(packet.destination) else None


def foresee_second_half(packet: PacketContext) -> Verdict | None:
    """A hairpin that would take the place of an ended flow comes in again, or that one stays.

    A dry run of both halves tells. Where the ports of several public IPs are drawn at random,
    another one may lead to another VM than the sender itself: it is tried.
    """
    lifecycle = packet.lifecycle
    flow = lifecycle.table.originals(packet.protocol).get(packet.flow_key)
    if not isinstance(lifecycle, FlowLifecycle) or flow is None:
        return None  # a dry run changes nothing that would have to stay
    if not is_reused(packet, flow, Side.ORIGINAL):
        return None
    for counts in (False, True):  # what it meets on the way is counted once it is known
        ahead = PacketContext(packet.packet, packet.protocol, packet.transport)
        dry = DryRun(lifecycle, counts=counts)
        ahead.start(packet.admission, dry, packet.now, packet.fragmented)
        verdict = ahead.walk(HAIRPIN)
        if ahead.sender is None or not isinstance(verdict, DropReason):
            return None
        if verdict is DropReason.HAIRPIN_TO_ITSELF and flow.machine.draws_ports:
            return None
    packet.turn_back(ahead.packet)
    packet.vm_name, packet.rejected = ahead.vm_name, ahead.rejected
    return verdict


def first_half_out(packet: PacketContext) -> DropReason | None:
    """A hairpin leaves as any packet of its VM does; how it left is what comes in again (A9)."""
    verdict = packet.walk(OUTBOUND)
    if isinstance(verdict, DropReason):
        return verdict
    packet.turn_back(verdict)
    return None


# -- the paths

OUTBOUND: Path = (
    find_by_original,
    drop_fragments,
    supersede_reused_tuple,
    translate_icmp_error_out,
    admit_outbound,
    open_outbound_flow,
    track,
    translate_source,
)
INBOUND: Path = (
    find_by_reply,
    drop_fragments,
    supersede_reused_tuple,
    translate_icmp_error_in,
    admit_inbound,
    open_inbound_flow,
    take_shared_endpoint,
    track,
    translate_destination,
)
LATERAL: Path = (
    find_either,
    supersede_reused_tuple,
    pass_icmp_error,
    admit_lateral,
    open_lateral_flow,
    track,
    pass_unchanged,
)
HAIRPIN: Path = (foresee_second_half, first_half_out, *INBOUND)

PATHS: dict[IngressPath, Path] = {
    IngressPath.OUTBOUND: OUTBOUND,
    IngressPath.INBOUND: INBOUND,
    IngressPath.HAIRPIN: (hairpin_to_public, answer_by_outbound, pass_unchanged),
    IngressPath.LOCAL_ERROR: (
        drop_private_destination,
        translate_own_icmp_error,
        drop_private_source,
        pass_unchanged,
    ),
    IngressPath.LATERAL: (lateral_within_network, answer_by_outbound, drop_routed_elsewhere),
    IngressPath.PROBE: (inbound_to_public, admit_probe, pass_unchanged),
}
"""What a packet meets by its way in; in fragments, the same."""


class Pipeline:
    """A handler for each way in. ``admission`` is another one after each change."""

    def __init__(self, lifecycle: FlowLifecycle, admission: Admission, drops: DropCounters) -> None:
        self.admission = admission
        self.drops = drops
        self.lifecycle = lifecycle
        self.handlers = self.build_handlers()
        """For each ``IngressPath``, in its order."""

    def build_handlers(
        self, context: type[PacketContext] = PacketContext
    ) -> tuple[PacketHandler, ...]:
        """Handlers whose packets pass the stages in a ``context`` each."""
        handlers = [self._handler(ingress, context) for ingress in IngressPath]
        # Most packets belong to a live flow: one look-up, rewritten, done.
        busy = NEVER if self.lifecycle.offload is None else BUSY
        for ingress, established in (
            (IngressPath.OUTBOUND, established_outbound),
            (IngressPath.INBOUND, established_inbound),
        ):
            handlers[ingress] = established(
                self.lifecycle.table, handlers[ingress], self.lifecycle.hand_over, busy
            )
        return tuple(handlers)

    def _handler(self, ingress: IngressPath, context: type[PacketContext]) -> PacketHandler:
        path, fragmented = PATHS[ingress.whole], ingress is not ingress.whole
        drops, lifecycle = self.drops, self.lifecycle

        def handler(packet: bytes, now: float) -> bytes | None:
            drops.now = now
            passing = context.parse(packet)
            if passing is None:
                return drops.drop(DropReason.MALFORMED, packet)
            # The kernel reassembles before its hooks; a fragment here has no ports to go by.
            if passing.is_fragment:
                return drops.drop(DropReason.FRAGMENT, packet)
            passing.start(self.admission, lifecycle, now, fragmented)
            verdict = passing.walk(path)
            return verdict if isinstance(verdict, bytes) else self._drop(passing, verdict)

        return handler

    def _drop(self, packet: PacketContext, reason: DropReason) -> bytes | None:
        """Count a drop, log a denial, and answer a segment that a NAT gateway resets."""
        rule, rejected = None, packet.rejected
        if rejected is not None:
            answered = packet.protocol == TCP and not packet.fragmented
            if answered and self.admission.is_to_be_reset(packet, reason):
                self.lifecycle.reset_queue.answer(packet)
            if reason is DropReason.DENIED_BY_SECURITY_RULE:
                rule = self._denied(packet, rejected)
        return self.drops.drop(reason, packet.packet, packet.vm_name, rule)

    def _denied(self, view: PacketView, rejected: Rejected) -> str:
        """The rule that denies a packet, as events name it."""
        decisive, log = rejected.rule_matches[-1], self.lifecycle.log
        if log is not None:  # flow logs, too, see the private destination
            to = view.destination if rejected.machine is None else rejected.machine.address
            port = None if rejected.listener is None else rejected.listener.backend_port
            log.denied(view, to, port, decisive, self.drops.now)
        return f"{decisive.group}/{decisive.rule.name}"

    def count_segments(self, packet: bytes, ingress: int, mtu: int) -> None:
        """A TCP packet that passed was several segments, of ``mtu`` bytes at most: count each.

        The kernel cuts it when it leaves; listings and logs are of what is on a wire.
        """
        view = PacketView.parse(packet)
        if view is None or view.protocol != TCP:
            return
        key, table = view.key, self.lifecycle.table
        flows = table.lateral if ingress == IngressPath.LATERAL else table
        flow, out = flows.tcp_original.get(key), True
        if flow is None or ingress == IngressPath.INBOUND:
            flow, out = flows.tcp_reply.get(key), False
        if flow is None and ingress == IngressPath.LATERAL:  # an answer to a network of this host
            flow, out = table.tcp_original.get(key), True
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
