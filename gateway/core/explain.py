"""What would happen to a packet, and why: its path walked in a dry run.

``foresee`` sends any packet on the very path that it would take (``pipeline.py``), over a
``DryRun``: nothing is opened, allocated, counted or remembered, and the answer is what the engine
would say to that packet. The rest builds the opening packet that a user asks about, and makes the
contract's JSON of the answer.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.core.dry_run import DryRun
from gateway.core.flows.flow import Flow
from gateway.core.flows.table import FlowIndex
from gateway.core.flows.tcp import SYN_FLAG
from gateway.core.inbound.listeners import Listener
from gateway.core.ingress import IngressPath
from gateway.core.packet.view import ECHO_REQUEST, PacketView
from gateway.core.path_trace import Step, TracedContext
from gateway.core.pipeline import PATHS
from gateway.core.policy.nsg import RuleMatch
from gateway.core.snat.allocations import Vm
from gateway.core.stages import Verdict
from gateway.model.profile import Method
from gateway.schema.drop_reasons import DropReason
from gateway.schema.protocols import ICMP, PROTOCOL_NUMBERS, TCP, UDP

if TYPE_CHECKING:
    from gateway.core.engine import Engine

FIRST_EPHEMERAL = 49152

HAIRPIN_CAVEAT = (
    "Azure's documents disagree on hairpins through a load balancer (possible, with two SNAT "
    "ports a connection, or not supported): do not build on it"
)


class Foreseen(NamedTuple):
    """What would become of a packet, and what its stages found out."""

    verdict: Verdict
    flow: Flow | None = None  # that it belongs to, or would; of a hairpin that of the second half
    outgoing: Flow | None = None  # of a hairpin that comes in again: that of the first half
    rule_matches: tuple[RuleMatch, ...] = ()
    listener: Listener | None = None
    vm: Vm | None = None  # to which a packet from outside would go
    steps: tuple[Step, ...] = ()

    @property
    def reason(self) -> DropReason | None:
        """Why it would be dropped; None: it would not."""
        return self.verdict if isinstance(self.verdict, DropReason) else None


def foresee(
    engine: Engine, packet: bytes, ingress: IngressPath, now: float, *, to_come: bool = False
) -> Foreseen:
    """What would become of a packet. ``to_come``: a SYN is a new connection's, in any case."""
    context = TracedContext.parse(packet)
    if context is None:
        return Foreseen(DropReason.MALFORMED)
    if context.is_fragment:
        return Foreseen(DropReason.FRAGMENT)
    context.steps = []
    dry = DryRun(engine.lifecycle, to_come=to_come)
    context.start(engine.admission, dry, now, fragmented=ingress is not ingress.whole)
    verdict = context.walk(PATHS[ingress.whole])
    matches, flow = getattr(context, "rule_matches", ()), context.flow
    if flow is not None:
        matches = flow.rule_matches
    outgoing = None if context.sender is None else context.outgoing
    if outgoing is not None:
        matches = outgoing.rule_matches + matches
    vm = getattr(context, "vm", None) if context.rejected is None else context.rejected.machine
    listener = getattr(context, "listener", None)
    return Foreseen(verdict, flow, outgoing, matches, listener, vm, tuple(context.steps))


def explain_outbound(
    engine: Engine,
    source: IPv4Address,
    protocol: str,
    remote: IPv4Address,
    remote_port: int,
    source_port: int | None,
    *,
    trace: bool = False,
) -> dict[str, Any]:
    """What a VM's opening packet would meet; ``source`` is the VM's private address."""
    number = PROTOCOL_NUMBERS[protocol]
    ingress = IngressPath.OUTBOUND
    if engine.admission.is_public(remote.packed):
        ingress = IngressPath.HAIRPIN
    elif remote.packed in engine.admission.scope.virtual_network:
        ingress = IngressPath.LATERAL
    lateral = ingress is IngressPath.LATERAL
    flows = engine.flows.lateral if lateral else engine.flows
    port = _free_port(flows, source, number, remote, remote_port, source_port)
    view = opening_packet(number, source, port, remote, remote_port)
    said = foresee(engine, view.packet, ingress, engine.drops.now, to_come=True)
    first = said.outgoing if said.outgoing is not None else said.flow
    vm = engine.outbound.peek(view.source) if first is None else first.machine
    live = None if first is None or first.slot < 0 else first
    if lateral:
        method: Method | None = Method.VIRTUAL_NETWORK
    else:
        method = vm.method_of(number) if live is None else live.method
    candidates = [] if lateral else _candidates(engine, vm, view)
    existing = live
    if said.outgoing is not None and (said.flow is None or said.flow.slot < 0):
        existing = None  # the second half is new
    document = _document(said, method, candidates, None if existing is None else existing.id)
    if said.outgoing is not None and (said.flow is None or said.flow.slot < 0):
        document["reason"] += _about_hairpin(said, said.outgoing.machine, live, candidates)
    return document | _trace(said, trace)


def explain_inbound(
    engine: Engine,
    remote: IPv4Address,
    remote_port: int,
    protocol: str,
    public: IPv4Address,
    public_port: int,
    *,
    trace: bool = False,
) -> dict[str, Any]:
    """What a packet from outside to a public IP would meet."""
    number = PROTOCOL_NUMBERS[protocol]
    view = opening_packet(number, remote, remote_port, public, public_port)
    said = foresee(engine, view.packet, IngressPath.INBOUND, engine.drops.now, to_come=True)
    method, existing = None, None
    if said.flow is not None and said.flow.slot >= 0:
        method, existing = said.flow.method, said.flow.id
    elif said.listener is not None:
        method = said.listener.method
    else:
        address = engine.outbound.addresses.get(public.packed)
        if address is not None and address.instance_of is not None:
            method = Method.INSTANCE_LEVEL_PUBLIC_IP
    return _document(said, method, [], existing) | _trace(said, trace)


def address_of(engine: Engine, vm: str) -> IPv4Address | None:
    """The private address of a VM by its name, or by the address that names it."""
    for machine in engine.outbound.machines.values():
        if machine.name == vm:
            return IPv4Address(machine.address)
    try:
        address = IPv4Address(vm)
    except ValueError:
        return None
    return address if address.packed in engine.admission.scope.subnets else None


def opening_packet(
    protocol: int, source: IPv4Address, port: int, to: IPv4Address, to_port: int
) -> PacketView:
    """The first packet of a flow: a SYN, a datagram, an echo request. Checksums are left out."""
    word = port.to_bytes(2, "big")
    if protocol == TCP:
        transport = (
            word + to_port.to_bytes(2, "big") + bytes(8) + bytes((0x50, SYN_FLAG)) + bytes(6)
        )
    elif protocol == UDP:
        transport = word + to_port.to_bytes(2, "big") + (8).to_bytes(2, "big") + bytes(2)
    else:
        transport = bytes((ECHO_REQUEST, 0, 0, 0)) + word + bytes(2)
    total = (20 + len(transport)).to_bytes(2, "big")
    head = b"\x45\0" + total + b"\0\0\0\0\x40" + bytes((protocol,)) + b"\0\0"
    view = PacketView.parse(head + source.packed + to.packed + transport)
    assert view is not None
    return view


def _free_port(
    index: FlowIndex,
    source: IPv4Address,
    protocol: int,
    remote: IPv4Address,
    remote_port: int,
    wanted: int | None,
) -> int:
    """The wanted source port, or an ephemeral one without a flow toward the remote."""
    if wanted is not None:
        return wanted
    flows = index.originals(protocol)
    key = opening_packet(protocol, source, FIRST_EPHEMERAL, remote, remote_port).key
    before, after = key[:8], key[10:]  # around the source port, an echo's identifier
    for port in range(FIRST_EPHEMERAL, 65536):
        if before + port.to_bytes(2, "big") + after not in flows:
            return port
    return FIRST_EPHEMERAL


def _candidates(engine: Engine, machine: Vm, view: PacketView) -> list[dict[str, Any]]:
    """The public IPs that the flow could get, with the ports free toward its destination.

    ``portsFree`` None: no port is needed.
    """
    method = machine.method_of(view.protocol)
    if method is None:
        return []
    if machine.instance is not None and method is Method.INSTANCE_LEVEL_PUBLIC_IP:
        return [{"publicIp": str(IPv4Address(machine.instance)), "portsFree": None}]
    if view.protocol not in (TCP, UDP, ICMP):
        return []
    destination = engine.lifecycle.allocator.destination(view.protocol, view.key)
    offers = engine.outbound.offers(machine, view.protocol, destination)
    return [
        {"publicIp": str(IPv4Address(address)), "portsFree": ports} for address, ports in offers
    ]


def _about_hairpin(
    said: Foreseen, machine: Vm, live: Flow | None, candidates: list[dict[str, Any]]
) -> str:
    """What there is to know of a hairpin whose second half opens a flow."""
    reason, listener = [""], said.listener
    if listener is not None:
        if listener.takes(machine) and len(listener.healthy) > 1:
            reason.append(
                f"{machine.name} is one of the {len(listener.healthy)} VMs that the rule's hash "
                "chooses from: mapped to itself its connection times out, mapped to another it "
                "works."
            )
        if live is None and len(candidates) > 1:
            reason.append("Another public IP or SNAT port may lead to another VM.")
    reason.append(f"Hairpin: {HAIRPIN_CAVEAT}.")
    return " ".join(reason)


def _document(
    said: Foreseen, method: Method | None, candidates: list[dict[str, Any]], existing: int | None
) -> dict[str, Any]:
    """The contract's JSON of an explanation."""
    backend = None if existing is not None else _backend(said)
    dropped = said.reason
    if dropped is None:
        verdict, reason = "Allow", _allowed(said.rule_matches, existing)
    elif dropped is DropReason.DENIED_BY_SECURITY_RULE:
        decisive = said.rule_matches[-1]
        verdict = "Deny"
        reason = f"Rule {decisive.rule.name} of {decisive.group} ({decisive.level}) denies it."
    else:
        verdict, reason = "Drop", f"{dropped.value}: {dropped.sentence}"
    if backend is not None and said.listener is not None:
        reason = f"{reason} {_by_rule(said.listener, backend)}"
    return {
        "verdict": verdict,
        "reason": reason,
        "networkSecurityGroups": [
            {
                "level": rule_match.level,
                "name": rule_match.group,
                "rule": rule_match.rule.name,
                "access": rule_match.rule.access,
                "default": rule_match.rule.default,
            }
            for rule_match in said.rule_matches
        ],
        "method": None if method is None else method.value,
        "candidates": candidates,
        "existingFlow": existing,
    } | ({} if backend is None else {"backend": backend})


def _trace(said: Foreseen, wanted: bool) -> dict[str, Any]:
    return {"trace": [step._asdict() for step in said.steps]} if wanted else {}


def _backend(said: Foreseen) -> dict[str, Any] | None:
    """The rule that takes an inbound packet, and the VM that it would go to (null: to none)."""
    listener, machine = said.listener, said.vm
    if listener is None:
        return None
    return {
        "loadBalancer": listener.balancer,
        "rule": listener.rule,
        "vm": None if machine is None else machine.name,
        "ip": None if machine is None else str(IPv4Address(machine.address)),
        "port": int.from_bytes(listener.backend_port, "big"),
        "healthy": len(listener.members) - listener.down,
        "total": len(listener.members),
    }


def _by_rule(listener: Listener, backend: dict[str, Any]) -> str:
    if listener.method is Method.INBOUND_NAT_RULE:
        return f"Inbound NAT rule {listener.rule} of {listener.balancer} leads to {backend['vm']}."
    chosen = (
        f"its hash ({listener.distribution}) chooses {backend['vm']}, "
        if backend["vm"] is not None
        else ""
    )
    up = f"{backend['healthy']} of {backend['total']} VMs are up"
    return f"Load balancing rule {listener.rule} of {listener.balancer}: {chosen}{up}."


def _allowed(rule_matches: tuple[RuleMatch, ...], existing: int | None) -> str:
    if existing is not None:
        return "It belongs to a live flow, which was evaluated when it opened."
    if not rule_matches:
        return "No network security group stands in its way."
    rules = ", ".join(f"{j.rule.name} of {j.group}" for j in rule_matches)
    return f"Allowed by {rules}."
