"""Stages for ICMP errors, which pass with the flow of the packet that they quote.

``flows/icmp_errors.py`` reads and rewrites them; here is which flow it is, and whether the error
may pass. An error changes neither the flow's state nor its time.
"""

from __future__ import annotations

from gateway.core.admission import takes_fragments
from gateway.core.flows import icmp_errors as icmp
from gateway.core.flows.flow import Flow
from gateway.core.flows.icmp_errors import Quote
from gateway.core.packet.view import ICMP_ERRORS, PacketView
from gateway.core.stages import PacketContext, Verdict
from gateway.schema.drop_reasons import DropReason
from gateway.schema.protocols import ICMP, TCP


def translate_icmp_error_out(packet: PacketContext) -> Verdict | None:
    """An error from a VM about a packet from outside."""
    if packet.flow is not None or packet.protocol != ICMP or packet.kind not in ICMP_ERRORS:
        return None
    return _error_to_outside(packet, by_gateway=False)


def translate_icmp_error_in(packet: PacketContext) -> Verdict | None:
    """An error from outside, or from a hairpin's other VM, about what a public IP sent."""
    flows = packet.lifecycle.table
    if packet.flow is not None or packet.protocol != ICMP or packet.kind not in ICMP_ERRORS:
        return None
    hairpin = packet.sender is not None
    if not hairpin and not packet.admission.can_be_outside(packet.source):
        return DropReason.SOURCE_NOT_OUTSIDE
    quote = icmp.quoted(packet)
    flow = None if quote is None else icmp.flow_of_sent(flows, quote)
    reason = _reason_against_error(packet, quote, flow, from_receiver=hairpin)
    if reason is not None or quote is None or flow is None:
        return reason or DropReason.ICMP_ERROR_WITHOUT_FLOW
    if flow.protocol == TCP and flows.originals(TCP).get(flow.original) is not flow:
        # It only holds its port: the error would hit the connection after it.
        return DropReason.ICMP_ERROR_WITHOUT_FLOW
    if packet.fragmented and not takes_fragments(flow.method):
        packet.vm_name = flow.machine.name
        return DropReason.FRAGMENTS_NOT_SUPPORTED
    return icmp.to_inside(packet, quote, flow)


def pass_icmp_error(packet: PacketContext) -> Verdict | None:
    """An error between the two VMs of a flow."""
    if packet.flow is not None or packet.protocol != ICMP or packet.kind not in ICMP_ERRORS:
        return None
    quote, flow = icmp.quoted(packet), None
    if quote is not None:
        flows = packet.lifecycle.table.lateral
        flow = flows.originals(quote.protocol).get(quote.key)
        if flow is None:
            flow = flows.replies(quote.protocol).get(quote.key)
    return _reason_against_error(packet, quote, flow, from_receiver=True) or packet.packet


def translate_own_icmp_error(packet: PacketContext) -> Verdict | None:
    """An error of this host's own, if it quotes an address of the virtual network."""
    inside = packet.admission.scope.virtual_network
    if packet.protocol != ICMP or packet.kind not in ICMP_ERRORS:
        return None
    if any(len(address) == 4 and address in inside for address in icmp.quoted_addresses(packet)):
        return _error_to_outside(packet, by_gateway=True)
    return None


def _error_to_outside(packet: PacketContext, *, by_gateway: bool) -> Verdict:
    quote = icmp.quoted(packet)
    flow = None if quote is None else icmp.flow_of_received(packet.lifecycle.table, quote)
    reason = _reason_against_error(packet, quote, flow, from_receiver=not by_gateway)
    if reason is not None or quote is None or flow is None:
        packet.vm_name = packet.admission.name_of(packet.source)
        return reason or DropReason.ICMP_ERROR_WITHOUT_FLOW
    if packet.fragmented and not takes_fragments(flow.method):
        packet.vm_name = flow.machine.name
        return DropReason.FRAGMENTS_NOT_SUPPORTED
    keep_source = by_gateway and packet.source not in packet.admission.scope.virtual_network
    return icmp.to_outside(packet, quote, flow, keep_source=keep_source)


def _reason_against_error(
    view: PacketView, quote: Quote | None, flow: Flow | None, *, from_receiver: bool
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
