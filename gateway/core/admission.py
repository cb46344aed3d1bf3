"""May this packet open a flow? Everything that is asked before one is opened, and nothing else.

The engine asks, and so does ``explain``: the same code, so that they cannot differ. Answers are
data: who sends (or receives) and what the network security groups said, or why not. Asking changes
nothing but hit counts (``count``) and, for a VM that the configuration does not name, its place
among the VMs (``keep``).

The order is the one in which Azure's host would meet it: the address, the network security groups
at the VM's interface and subnet, then the outbound method and its protocols.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.flows.flow import Flow
from gateway.core.flows.table import FlowTable
from gateway.core.flows.tcp import is_opening
from gateway.core.inbound.listeners import Listener
from gateway.core.inbound.load_balancer import Balancer
from gateway.core.packet.view import (
    ECHO_REPLY,
    ECHO_REQUEST,
    ICMP_QUERIES,
    PacketView,
    has_right_checksum,
)
from gateway.core.policy.address_scope import AddressScope
from gateway.core.policy.nsg import NOTHING_ASKED, Decision, FiveTuple, Policy, RuleMatch
from gateway.core.snat.allocation_manager import AllocationManager
from gateway.core.snat.allocations import Vm
from gateway.model.profile import HairpinToItself, Method
from gateway.model.resolved.tags import PLATFORM_ADDRESS
from gateway.schema.drop_reasons import DropReason
from gateway.schema.protocols import ICMP, TCP, UDP

PROBE_SOURCE = PLATFORM_ADDRESS.network_address.packed


class Admitted(NamedTuple):
    """The packet may open a flow of the VM ``machine``, so far as ports and room allow."""

    machine: Vm
    rule_matches: tuple[RuleMatch, ...]
    listener: Listener | None = None  # the inbound rule that it came by


class Rejected(NamedTuple):
    """It may not."""

    reason: DropReason
    vm: str | None
    rule_matches: tuple[RuleMatch, ...] = ()
    listener: Listener | None = None
    machine: Vm | None = None  # that it would have gone to, from outside


class Admission:
    """The questions, over one configuration's scope, groups and VMs."""

    def __init__(
        self,
        scope: AddressScope,
        policy: Policy,
        outbound: AllocationManager,
        table: FlowTable,
        balancer: Balancer,
        *,
        translate_echo: bool,
        hairpin_to_itself: HairpinToItself,
        closed_without_group: bool,
    ) -> None:
        self.scope = scope
        self.policy = policy
        self._outbound = outbound
        self._table = table
        self._balancer = balancer
        self._translate_echo = translate_echo
        self._closed = closed_without_group
        self._to_itself = hairpin_to_itself is HairpinToItself.DELIVERED

    def is_public(self, address: bytes) -> bool:
        """Whether it is a public IP of this gateway."""
        return address in self._outbound.addresses

    def name_of(self, address: bytes) -> str | None:
        """The VM that has a private address; None: none that is known."""
        machine = self._outbound.machines.get(address)
        return None if machine is None else machine.name

    def outbound(
        self, view: PacketView, *, count: bool = True, keep: bool = True, fragmented: bool = False
    ) -> Admitted | Rejected:
        """A VM sends to the internet, or to a public IP of this gateway.

        ``fragmented``: in fragments.
        """
        if view.source not in self.scope.subnets:
            return Rejected(DropReason.SOURCE_NOT_IN_VIRTUAL_NETWORK, None)
        known = self._outbound.machines.get(view.source)
        vm = None if known is None else known.name
        to = view.destination
        leads_out = self.scope.is_internet(to) or to in self._outbound.addresses
        if not leads_out and to in self.scope.not_judged:
            return Rejected(DropReason.DESTINATION_NOT_INTERNET, vm)
        if view.protocol == TCP and not is_opening(view.kind):
            reclaimed = (TCP, view.key) in self._table.reclaimed
            reason = DropReason.PORT_RECLAIMED if reclaimed else DropReason.TCP_WITHOUT_FLOW
            return Rejected(reason, vm)
        decision = NOTHING_ASKED
        if self.policy.groups:
            decision = self.policy.outbound(_five_tuple(view), count=count)
        if not decision.allowed:
            return _denied(decision, vm)
        if not leads_out:  # private, but not here: without a group, or by a rule of the user's own
            return Rejected(DropReason.DESTINATION_NOT_INTERNET, vm, decision.rule_matches)
        machine = known
        if known is None or not known.allocations:
            machine = self._outbound.machine(view.source, keep=keep)
        if machine is None:
            return Rejected(DropReason.DEFAULT_OUTBOUND_CAPACITY, vm, decision.rule_matches)
        against = self._reason_against_protocol(view, machine)
        if against is None and fragmented and not takes_fragments(machine.method_of(view.protocol)):
            against = DropReason.FRAGMENTS_NOT_SUPPORTED
        if against is not None:
            return Rejected(against, machine.name, decision.rule_matches)
        return Admitted(machine, decision.rule_matches)

    def inbound(  # noqa: C901, PLR0911
        self,
        view: PacketView,
        *,
        hairpin_of: bytes | None = None,
        count: bool = True,
        fragmented: bool = False,
    ) -> Admitted | Rejected:
        """From outside to a public IP, and no packet of a live flow.

        ``hairpin_of``: the private address of the VM that sent it, if it was one. ``fragmented``:
        in fragments.
        """
        public = self._outbound.addresses.get(view.destination)
        if public is None:  # as the kernel's rules have it (datapath.host.netfilter_rules)
            ours = view.source in self.scope.virtual_network or self.is_public(view.source)
            forged = ours and hairpin_of is None
            return Rejected(
                DropReason.SOURCE_NOT_OUTSIDE if forged else DropReason.PUBLIC_ADDRESS_UNKNOWN, None
            )
        if hairpin_of is None and not self.can_be_outside(view.source):
            return Rejected(DropReason.SOURCE_NOT_OUTSIDE, None)
        machine, listener = public.instance_of, None
        if machine is not None and machine.address == hairpin_of and is_to_itself(view):
            return Rejected(DropReason.HAIRPIN_TO_ITSELF, machine.name)
        if machine is None:
            listener = self._balancer.match(view.protocol, view.key)
            if listener is None:
                return Rejected(_reason_at_snat_address(view, hairpin_of is not None), None)
            if fragmented:
                return Rejected(DropReason.FRAGMENTS_NOT_SUPPORTED, None, (), listener)
        if view.protocol == TCP and not is_opening(view.kind):
            name = None if machine is None else machine.name
            return Rejected(DropReason.TCP_WITHOUT_FLOW, name, (), listener)
        if view.protocol == ICMP and machine is not None and view.kind not in ICMP_QUERIES:
            return Rejected(DropReason.ICMP_NOT_SUPPORTED, machine.name)
        five = _five_tuple(view)
        if machine is None:
            assert listener is not None
            member = self._balancer.choose(listener, view.key)
            if member is None:
                return Rejected(DropReason.NO_HEALTHY_BACKEND, None, (), listener)
            machine = member.machine
            five = five._replace(destination_port=int.from_bytes(listener.backend_port, "big"))
            if machine.address == hairpin_of and not self._to_itself:
                return Rejected(DropReason.HAIRPIN_TO_ITSELF, machine.name, (), listener, machine)
        # Rules see the private destination: public to private comes first (docs/fidelity.md, N4).
        five = five._replace(destination=int.from_bytes(machine.address, "big"))
        decision = self.policy.inbound(five, count=count)
        if not decision.allowed:
            return _denied(decision, machine.name)._replace(listener=listener, machine=machine)
        # A VM's own public IP has no SKU here: where Standard ones exist, it is one.
        if self._closed and not decision.rule_matches and (listener is None or listener.standard):
            reason = DropReason.CLOSED_WITHOUT_SECURITY_GROUP
            return Rejected(reason, machine.name, (), listener, machine)
        return Admitted(machine, decision.rule_matches, listener)

    def can_be_outside(self, source: bytes) -> bool:
        """Whether what comes from outside may have this source (4 bytes) without lying."""
        return source not in self._outbound.addresses and self.scope.can_be_outside(source)

    def lateral(self, view: PacketView, *, count: bool = True) -> Admitted | Rejected:
        """One VM sends to another through the gateway: out of the one, into the other."""
        if view.source not in self.scope.subnets:
            return Rejected(DropReason.SOURCE_NOT_IN_VIRTUAL_NETWORK, None)
        machine = self._outbound.peek(view.source)
        if view.destination not in self.scope.virtual_network:
            return Rejected(DropReason.DESTINATION_NOT_INTERNET, machine.name)
        five = _five_tuple(view)
        leaving = self.policy.outbound(five, count=count)
        if not leaving.allowed:
            return _denied(leaving, machine.name)
        arriving = self.policy.inbound(five, count=count)
        rule_matches = leaving.rule_matches + arriving.rule_matches
        if not arriving.allowed:
            return _denied(Decision(False, rule_matches), machine.name)
        return Admitted(machine, rule_matches)

    def probe(self, view: PacketView, *, count: bool = True) -> Admitted | Rejected:
        """A load balancer's probe (tag AzureLoadBalancer) opens a connection to a VM."""
        machine = self._outbound.peek(view.destination)
        if view.source != PROBE_SOURCE or view.destination not in self.scope.subnets:
            return Rejected(DropReason.DESTINATION_NOT_INTERNET, None)
        decision = self.policy.inbound(_five_tuple(view), count=count)
        if not decision.allowed:
            return _denied(decision, machine.name)._replace(machine=machine)
        return Admitted(machine, decision.rule_matches)

    def is_to_be_reset(self, view: PacketView, reason: DropReason) -> bool:
        """Whether a NAT gateway answers the sender of a dropped segment with an RST.

        Only who sends to a flow that no longer exists gets one; what would open one is dropped
        silently, and so is what no host can have sent: a wrong checksum, a network's address as
        source.
        """
        if is_opening(view.kind) or view.source in self.scope.nobody:
            return False
        if reason is DropReason.INBOUND_WITHOUT_FLOW:
            public = self._outbound.addresses.get(view.destination)
            return public is not None and bool(public.shared) and has_right_checksum(view)
        if reason is not DropReason.TCP_WITHOUT_FLOW or view.source not in self.scope.subnets:
            return False
        machine = self._outbound.peek(view.source)
        if machine.method_of(TCP) is not Method.NAT_GATEWAY:
            return False
        # What a group stops at the VM's own interface never comes to a NAT gateway.
        allowed = self.policy.outbound(_five_tuple(view), count=False).allowed
        return allowed and has_right_checksum(view)

    def still_allowed(self, flow: Flow) -> Decision:
        """What the groups would say to a live flow if it opened now; counts no hits."""
        word = int.from_bytes
        key = flow.original
        ported = flow.protocol in (TCP, UDP)
        five = FiveTuple(
            flow.protocol,
            word(key[0:4], "big"),
            word(key[8:10], "big") if ported else 0,
            word(key[4:8], "big"),
            word(key[10:12], "big") if ported else 0,
        )
        if flow.inbound:
            opened = five._replace(
                source=five.destination,
                source_port=five.destination_port,
                destination=five.source,
                destination_port=five.source_port,
            )
            return self.policy.inbound(opened, count=False)
        leaving = self.policy.outbound(five, count=False)
        if flow.method is not Method.VIRTUAL_NETWORK or not leaving.allowed:
            return leaving
        return self.policy.inbound(five, count=False)

    def _reason_against_protocol(self, view: PacketView, machine: Vm) -> DropReason | None:
        """Why the VM's method does not take this packet's protocol; None if it does."""
        protocol = view.protocol
        method = machine.method_of(protocol)
        if method is None:
            if machine.method is None:
                return DropReason.NO_OUTBOUND_METHOD
            return DropReason.PROTOCOL_WITHOUT_RULE
        if protocol in (TCP, UDP):
            return None
        direct = method is Method.INSTANCE_LEVEL_PUBLIC_IP
        if protocol != ICMP:
            return None if direct else DropReason.PROTOCOL_NOT_SUPPORTED
        if view.kind not in ICMP_QUERIES:
            return DropReason.ICMP_NOT_SUPPORTED
        if direct:
            return None
        if view.kind != ECHO_REQUEST:
            return DropReason.ICMP_NOT_SUPPORTED
        return None if self._translate_echo else DropReason.ICMP_ECHO_THROUGH_SNAT


def is_to_itself(view: PacketView) -> bool:
    """Whether a packet goes to the very address and port that it comes from."""
    return view.source == view.destination and view.ports[0:2] == view.ports[2:4]


def takes_fragments(method: Method | None) -> bool:
    """Whether a packet that came in fragments is translated, where Azure's SNAT drops these.

    Azure: "fragments pass" by an instance-level public IP; all that masquerades ports, and load
    balancing rules, drop them (load-balancer-outbound-connections.md, concepts.md).
    Packets are marked as fragmented only where the profile drops fragments
    (``engine_process/host.py``).
    """
    return method is Method.INSTANCE_LEVEL_PUBLIC_IP or method is Method.VIRTUAL_NETWORK


def _reason_at_snat_address(view: PacketView, hairpin: bool) -> DropReason:
    if hairpin:
        return DropReason.HAIRPIN_WITHOUT_RULE
    if view.protocol in (TCP, UDP):
        return DropReason.INBOUND_WITHOUT_FLOW
    if view.protocol == ICMP:
        echo = view.kind in (ECHO_REQUEST, ECHO_REPLY)
        return DropReason.ICMP_ECHO_THROUGH_SNAT if echo else DropReason.ICMP_NOT_SUPPORTED
    return DropReason.PROTOCOL_NOT_SUPPORTED


def _denied(decision: Decision, vm: str | None) -> Rejected:
    return Rejected(DropReason.DENIED_BY_SECURITY_RULE, vm, decision.rule_matches)


def _five_tuple(view: PacketView) -> FiveTuple:
    word = int.from_bytes
    if view.protocol in (TCP, UDP):
        ports = word(view.ports[0:2], "big"), word(view.ports[2:4], "big")
    else:
        ports = 0, 0
    return FiveTuple(
        view.protocol,
        word(view.source, "big"),
        ports[0],
        word(view.destination, "big"),
        ports[1],
    )
