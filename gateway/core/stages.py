"""The stages of a packet's path: each checks one thing and decides what becomes of the packet.

A stage is a function of a ``PacketContext``. It answers None (the next stage is asked), or a
verdict: the packet's bytes as they go on (the very same object if unchanged), a ``DropReason``, or
another path to go on with. ``pipeline.py`` lists the stages of each path in order; what a stage
finds out, it leaves in the context for those after it.

Stages run twice: when a packet arrives, and in a dry run (``dry_run.py``) that says beforehand what
would become of it. So all that a stage changes goes through the context's ``lifecycle``, and none
counts a drop or answers it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.core.admission import Admission, Admitted, Rejected, is_to_itself, takes_fragments
from gateway.core.flows.flow import Flow
from gateway.core.flows.nat_rewrite import snat_inbound, snat_outbound
from gateway.core.flows.tcp import Side, State, is_opening
from gateway.core.packet.view import ICMP_QUERIES, PacketView
from gateway.schema.drop_reasons import DropReason
from gateway.schema.protocols import ICMP, TCP, UDP

if TYPE_CHECKING:
    from gateway.core.dry_run import DryRun
    from gateway.core.flow_lifecycle import FlowLifecycle
    from gateway.core.inbound.listeners import Listener
    from gateway.core.policy.nsg import RuleMatch
    from gateway.core.snat.allocations import Vm

_ORIGINAL, _REPLY = Side.ORIGINAL, Side.REPLY

Verdict = bytes | DropReason
Path = tuple["Stage", ...]
Stage = Callable[["PacketContext"], "Verdict | Path | None"]


class PacketContext(PacketView):
    """One packet on its path: what it is, and what the stages found out about it."""

    __slots__ = (
        "admission",
        "flow",
        "flow_key",
        "fragmented",
        "lifecycle",
        "listener",
        "now",
        "outgoing",
        "rejected",
        "rule_matches",
        "sender",
        "side",
        "superseded",
        "vm",
        "vm_name",
    )

    # Set by its sender on the path.
    admission: Admission
    lifecycle: FlowLifecycle | DryRun  # opens and tracks flows; in a dry run it only says how
    now: float
    fragmented: bool  # it came in fragments, and the kernel reassembled it
    flow_key: bytes
    flow: Flow | None  # that it belongs to
    superseded: Flow | None  # an ended one that a new one takes the place of
    rejected: Rejected | None  # what admission said, if that was no
    vm_name: str | None  # in whose name it is dropped
    sender: bytes | None  # of a hairpin's second half: the VM's private address
    # Set by stages, when there is something to know.
    side: Side  # of the flow
    vm: Vm  # with the two below: whose flow it may open
    rule_matches: tuple[RuleMatch, ...]
    listener: Listener | None
    outgoing: Flow | None  # with ``sender``: the flow of the first half

    def start(
        self,
        admission: Admission,
        lifecycle: FlowLifecycle | DryRun,
        now: float,
        fragmented: bool,
    ) -> None:
        """Begin a path."""
        self.admission = admission
        self.lifecycle = lifecycle
        self.now = now
        self.fragmented = fragmented
        self.flow_key = self.key
        self.flow = self.superseded = self.rejected = self.vm_name = self.sender = None

    def walk(self, path: Path) -> Verdict:
        """Ask the stages of a path in turn until one decides; the last one does."""
        for stage in path:
            verdict = stage(self)
            if verdict is not None:
                return verdict if not isinstance(verdict, tuple) else self.walk(verdict)
        raise AssertionError(f"no stage decided: {path}")

    def turn_back(self, packet: bytes) -> None:
        """Go on as the second half of a hairpin: ``packet`` is how the first half left."""
        self.sender, self.outgoing = self.source, self.flow
        PacketView.__init__(self, packet, self.protocol, self.transport)  # no length changes
        self.flow_key = self.key
        self.flow = self.superseded = self.listener = None
        self.rule_matches = ()


# -- which flow


def find_by_original(packet: PacketContext) -> None:
    """The flow that the VM's packet belongs to, by the VM's side of it."""
    packet.side = _ORIGINAL
    packet.flow = packet.lifecycle.table.originals(packet.protocol).get(packet.flow_key)


def find_by_reply(packet: PacketContext) -> None:
    """The flow that a packet to a public IP belongs to, by the public side of it."""
    packet.side = _REPLY
    if packet.sender is not None and is_to_itself(packet):
        return  # the flow is that of its own first half: it would come back to who sent it
    packet.flow = packet.lifecycle.table.replies(packet.protocol).get(packet.flow_key)


def find_either(packet: PacketContext) -> None:
    """The flow between two VMs, which either may have begun."""
    flows, protocol = packet.lifecycle.table.lateral, packet.protocol
    packet.side = _ORIGINAL
    packet.flow = flows.originals(protocol).get(packet.flow_key)
    if packet.flow is None:
        packet.side = _REPLY
        packet.flow = flows.replies(protocol).get(packet.flow_key)


def drop_fragments(packet: PacketContext) -> DropReason | None:
    """SNAT and load balancing rules drop what came in fragments (docs/fidelity.md A1)."""
    if not packet.fragmented or packet.flow is None or takes_fragments(packet.flow.method):
        return None
    packet.vm_name = packet.flow.machine.name
    return DropReason.FRAGMENTS_NOT_SUPPORTED


def supersede_reused_tuple(packet: PacketContext) -> None:
    """A SYN that begins another connection between the endpoints of an ended flow opens one."""
    flow = packet.flow
    if flow is not None and is_reused(packet, flow, packet.side):
        packet.flow, packet.superseded = None, flow


def is_reused(packet: PacketContext, flow: Flow, side: Side) -> bool:
    """Whether a packet from a side of a flow begins another connection on its endpoints."""
    return packet.lifecycle.is_tuple_reuse(flow, side, packet.kind, packet.numbers[0], packet.now)


# -- may it open a flow


def admit_outbound(packet: PacketContext) -> DropReason | None:
    """Addresses, network security groups, the VM's outbound method and its protocols."""
    if packet.flow is not None:
        return None
    lifecycle = packet.lifecycle
    answer = packet.admission.outbound(
        packet,
        count=lifecycle.counts,
        keep=lifecycle.opens,
        fragmented=packet.fragmented,
    )
    return _admitted(packet, answer)


def admit_inbound(packet: PacketContext) -> DropReason | None:
    """The public IP's own VM or the rule that listens there, and the groups in front of the VM."""
    if packet.flow is not None:
        return None
    answer = packet.admission.inbound(
        packet,
        hairpin_of=packet.sender,
        count=packet.lifecycle.counts,
        fragmented=packet.fragmented,
    )
    return _admitted(packet, answer)


def admit_lateral(packet: PacketContext) -> DropReason | None:
    """Both VMs' network security groups."""
    if packet.flow is not None:
        return None
    answer = packet.admission.lateral(packet, count=packet.lifecycle.counts)
    return _admitted(packet, answer)


def admit_probe(packet: PacketContext) -> DropReason | None:
    """A health probe goes to a VM as any packet from outside does, past the groups there."""
    answer = packet.admission.probe(packet, count=packet.lifecycle.counts)
    return _admitted(packet, answer)


def _admitted(packet: PacketContext, answer: Admitted | Rejected) -> DropReason | None:
    """What admission found, for the stages after it; or why the packet opens nothing."""
    if isinstance(answer, Rejected):
        packet.rejected, packet.vm_name = answer, answer.vm
        packet.rule_matches, packet.listener = answer.rule_matches, answer.listener
        return answer.reason
    packet.vm, packet.rule_matches, packet.listener = answer
    return None


# -- open one


def open_outbound_flow(packet: PacketContext) -> DropReason | None:
    """Room in the flow table and a SNAT port, or the VM's own public IP."""
    if packet.flow is not None:
        return None
    opened = packet.lifecycle.open(
        packet.protocol,
        packet.flow_key,
        packet.vm,
        packet.rule_matches,
        packet.now,
        superseded=packet.superseded,
    )
    return _opened(packet, opened)


def open_inbound_flow(packet: PacketContext) -> DropReason | None:
    """Room in the flow table, and a port of the VM that no other flow with the remote has."""
    if packet.flow is not None:
        return None
    opened = packet.lifecycle.open_inbound(
        packet.protocol,
        packet.flow_key,
        packet.vm,
        packet.rule_matches,
        packet.listener,
        packet.now,
        superseded=packet.superseded,
    )
    return _opened(packet, opened)


def open_lateral_flow(packet: PacketContext) -> Verdict | None:
    """Room in the flow table, for a packet that begins something."""
    if packet.flow is not None:
        return None
    reason = None
    if packet.protocol == TCP and not is_opening(packet.kind):
        reason = DropReason.TCP_WITHOUT_FLOW
    elif packet.protocol == ICMP and packet.kind not in ICMP_QUERIES:
        reason = DropReason.ICMP_NOT_SUPPORTED
    if reason is not None and not packet.rule_matches:
        return packet.packet  # where no group applies, what began elsewhere continues
    packet.side = _ORIGINAL
    return _opened(
        packet,
        reason
        or packet.lifecycle.open_lateral(
            packet.protocol,
            packet.flow_key,
            packet.vm,
            packet.rule_matches,
            packet.now,
            superseded=packet.superseded,
        ),
    )


def _opened(packet: PacketContext, opened: Flow | DropReason) -> DropReason | None:
    if isinstance(opened, Flow):
        packet.flow = opened
        return None
    packet.vm_name = packet.vm.name
    return opened


# -- a packet of a flow


def take_shared_endpoint(packet: PacketContext) -> None:
    """Of two UDP flows at one port of a VM, what the VM sends belongs to the one answered last."""
    flow = packet.flow
    if flow is not None and flow.state is State.OPENING and flow.protocol == UDP:
        packet.lifecycle.answer_by(flow)


def track(packet: PacketContext) -> None:
    """The flow's state, its time (``flow_tracking.py``), and its counters."""
    flow, side = packet.flow, packet.side
    if flow is None or not packet.lifecycle.opens:
        return
    packet.lifecycle.track(flow, side, packet.kind, packet.now, packet.numbers)
    if side is _ORIGINAL:
        flow.packets_out += 1
        flow.bytes_out += len(packet.packet)
    else:
        flow.packets_in += 1
        flow.bytes_in += len(packet.packet)


def translate_source(packet: PacketContext) -> bytes:
    """The source becomes the flow's public side."""
    assert packet.flow is not None
    return snat_outbound(packet, packet.flow)


def translate_destination(packet: PacketContext) -> bytes:
    """The destination becomes the flow's private side."""
    assert packet.flow is not None
    return snat_inbound(packet, packet.flow)


def pass_unchanged(packet: PacketContext) -> bytes:
    """It goes on as it came."""
    return packet.packet


# -- where something does not belong


def drop_routed_elsewhere(packet: PacketContext) -> DropReason:
    """To a network of this host that did not ask for it."""
    packet.vm_name = packet.admission.name_of(packet.source)
    return DropReason.ROUTED_ELSEWHERE


def drop_private_destination(packet: PacketContext) -> DropReason | None:
    """This host sends to the virtual network by the outside interface."""
    inside = packet.destination in packet.admission.scope.virtual_network
    return DropReason.PRIVATE_ADDRESS_OUTSIDE if inside else None


def drop_private_source(packet: PacketContext) -> DropReason | None:
    """This host sends to outside from an address of the virtual network."""
    inside = packet.source in packet.admission.scope.virtual_network
    return DropReason.PRIVATE_ADDRESS_OUTSIDE if inside else None
