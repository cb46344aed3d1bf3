"""What would happen to a packet, and why: the engine's own questions, asked without consequence.

The packet that would open the flow is built and put before the very ``Admission`` that judges real
ones, so that the answer cannot differ from what the packet meets. Nothing is allocated, counted or
remembered.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from gateway.core.admission import Admitted, Rejected, is_to_itself
from gateway.core.flows.flow import Flow
from gateway.core.flows.table import FlowIndex
from gateway.core.flows.tcp import SYN_FLAG, Side
from gateway.core.inbound.load_balancer import Listener
from gateway.core.packet.view import ECHO_REQUEST, PacketView
from gateway.core.policy.nsg import RuleMatch
from gateway.core.snat.allocations import Vm
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


def explain_outbound(
    engine: Engine,
    source: IPv4Address,
    protocol: str,
    remote: IPv4Address,
    remote_port: int,
    source_port: int | None,
) -> dict[str, Any]:
    """What a VM's opening packet would meet; ``source`` is the VM's private address."""
    number = PROTOCOL_NUMBERS[protocol]
    scope = engine.admission.scope
    lateral = remote.packed in scope.virtual_network and source.packed in scope.subnets
    flows = engine.flows.lateral if lateral else engine.flows
    port = _free_port(flows, source, number, remote, remote_port, source_port)
    view = opening_packet(number, source, port, remote, remote_port)
    flow = None if source_port is None else _live_flow(engine, view, lateral)
    superseded = engine.flows.originals(number).get(view.key) if flow is None else None
    if flow is not None:
        leaving = Admitted(flow.machine, flow.rule_matches)
        if view.destination in engine.outbound.addresses:
            candidates = _candidates(engine, flow.machine, view)
            return _hairpin(engine, leaving, view, candidates, flow, None)
        candidates = [] if lateral else _candidates(engine, flow.machine, view)
        return _document(leaving, flow.method, candidates, flow.id)
    if lateral:
        answer = engine.admission.lateral(view, count=False)
        return _document(answer, Method.VIRTUAL_NETWORK, [], None)
    answer = engine.admission.outbound(view, count=False, keep=False)
    if isinstance(answer, Rejected):
        machine = engine.outbound.peek(view.source)
        method = machine.method_of(number)
        return _document(answer, method, _candidates(engine, machine, view), None)
    machine = answer.machine
    candidates = _candidates(engine, machine, view)
    if not engine.lifecycle.has_room(superseded):
        answer = Rejected(DropReason.FLOW_TABLE_FULL, machine.name, answer.rule_matches)
    elif not any(c["portsFree"] != 0 for c in candidates):
        answer = Rejected(DropReason.PORTS_EXHAUSTED, machine.name, answer.rule_matches)
    elif view.destination in engine.outbound.addresses:
        return _hairpin(engine, answer, view, candidates, None, superseded)
    return _document(answer, machine.method_of(number), candidates, None)


def explain_inbound(
    engine: Engine,
    remote: IPv4Address,
    remote_port: int,
    protocol: str,
    public: IPv4Address,
    public_port: int,
) -> dict[str, Any]:
    """What a packet from outside to a public IP would meet."""
    number = PROTOCOL_NUMBERS[protocol]
    view = opening_packet(number, remote, remote_port, public, public_port)
    flow = engine.flows.replies(number).get(view.key)
    if flow is not None and not engine.lifecycle.is_tuple_reuse(flow, Side.REPLY, view.kind, None):
        return _document(Admitted(flow.machine, flow.rule_matches), flow.method, [], flow.id)
    answer = _arriving(engine, view, None, flow)
    if answer.listener is not None:
        return _document(answer, answer.listener.method, [], None)
    address = engine.outbound.addresses.get(public.packed)
    instance = address is not None and address.instance_of is not None
    return _document(answer, Method.INSTANCE_LEVEL_PUBLIC_IP if instance else None, [], None)


def _arriving(
    engine: Engine,
    view: PacketView,
    hairpin_of: bytes | None,
    *superseded: Flow | None,
    flows: int = 1,
) -> Admitted | Rejected:
    """What the engine would say to a packet for a public IP that opens a flow."""
    answer = engine.admission.inbound(view, hairpin_of=hairpin_of, count=False)
    if isinstance(answer, Rejected):
        return answer
    machine, rule_matches, listener = answer
    lifecycle = engine.lifecycle
    reason = lifecycle.reason_against_inbound(
        view.protocol, view.key, machine, listener, *superseded, flows=flows
    )
    if reason is None:
        return answer
    return Rejected(reason, machine.name, rule_matches, listener, machine)


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


def _live_flow(engine: Engine, view: PacketView, lateral: bool) -> Flow | None:
    """The flow that a packet from inside belongs to; an ended one that it would replace is none."""
    flows = engine.flows.lateral if lateral else engine.flows
    flow, side = flows.originals(view.protocol).get(view.key), Side.ORIGINAL
    if flow is None and lateral:
        flow, side = flows.replies(view.protocol).get(view.key), Side.REPLY
    if flow is None or engine.lifecycle.is_tuple_reuse(flow, side, view.kind, None):
        return None
    return flow


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


def _hairpin(
    engine: Engine,
    leaving: Admitted,
    view: PacketView,
    candidates: list[dict[str, Any]],
    live: Flow | None,
    superseded: Flow | None,
) -> dict[str, Any]:
    """Out by the VM's own method was allowed: now in again, from the public address."""
    machine = leaving.machine
    if live is None:
        public, port = _foreseen(engine, machine, view, candidates)
    else:
        public = IPv4Address(live.reply[4:8])
        port = int.from_bytes(live.reply[10:12], "big")
    again = opening_packet(
        view.protocol,
        public,
        port,
        IPv4Address(view.destination),
        int.from_bytes(view.ports[2:4], "big"),
    )
    second = None
    if not is_to_itself(again):
        second = engine.flows.replies(view.protocol).get(again.key)
    if second and not engine.lifecycle.is_tuple_reuse(second, Side.REPLY, again.kind, None):
        both = Admitted(machine, leaving.rule_matches + second.rule_matches)
        if live is None:
            return _document(both, machine.method_of(view.protocol), candidates, None)
        return _document(both, live.method, candidates, live.id)
    flows = 1 if live is not None else 2
    arriving = _arriving(engine, again, machine.address, second, superseded, flows=flows)
    answer = arriving._replace(rule_matches=leaving.rule_matches + arriving.rule_matches)
    document = _document(answer, machine.method_of(view.protocol), candidates, None)
    reason = [document["reason"]]
    listener = arriving.listener
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
    document["reason"] = " ".join(reason)
    return document


def _foreseen(
    engine: Engine, machine: Vm, view: PacketView, candidates: list[dict[str, Any]]
) -> tuple[IPv4Address, int]:
    """The public endpoint that a flow would have: of several public IPs, the first with a port."""
    own = int.from_bytes(view.ports[0:2], "big")
    if view.protocol in (TCP, UDP):
        public, port = engine.lifecycle.allocator.foreseen(machine, view.protocol, view.key)
        if port:
            return IPv4Address(public), port
    return IPv4Address(candidates[0]["publicIp"]), own


def _document(
    answer: Admitted | Rejected,
    method: Method | None,
    candidates: list[dict[str, Any]],
    existing: int | None,
) -> dict[str, Any]:
    """The contract's JSON of an explanation."""
    backend = None if existing is not None else _backend(answer)
    if isinstance(answer, Admitted):
        verdict, reason = "Allow", _allowed(answer.rule_matches, existing)
    elif answer.reason is DropReason.DENIED_BY_SECURITY_RULE:
        decisive = answer.rule_matches[-1]
        verdict = "Deny"
        reason = f"Rule {decisive.rule.name} of {decisive.group} ({decisive.level}) denies it."
    else:
        verdict, reason = "Drop", f"{answer.reason.value}: {answer.reason.sentence}"
    if backend is not None and answer.listener is not None:
        reason = f"{reason} {_by_rule(answer.listener, backend)}"
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
            for rule_match in answer.rule_matches
        ],
        "method": None if method is None else method.value,
        "candidates": candidates,
        "existingFlow": existing,
    } | ({} if backend is None else {"backend": backend})


def _backend(answer: Admitted | Rejected) -> dict[str, Any] | None:
    """The rule that takes an inbound packet, and the VM that it would go to (null: to none)."""
    listener, machine = answer.listener, answer.machine
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
        return "It belongs to a live flow, which was judged when it opened."
    if not rule_matches:
        return "No network security group stands in its way."
    rules = ", ".join(f"{j.rule.name} of {j.group}" for j in rule_matches)
    return f"Allowed by {rules}."
