"""The tap: every packet as it came and as it leaves, for those who capture.

It stands around ``Engine.handlers``: ``CaptureTap.handlers`` are the same handlers, watched. Who
handles packets uses them while at least one ``CaptureSession`` is attached and the engine's own
otherwise, so that a tap without a capture costs nothing. The engine knows of it only that its
drops are observed.

A packet that a session wants becomes a ``CapturedPacket`` for each side on which it shows: where it
came in, and, unless it was dropped, where it leaves. Recorders filter before anything is copied,
hold a bounded amount, and count what does not fit. Wall-clock time is the caller's to tell
(``clock``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.engine import Engine
from gateway.core.established import PacketHandler
from gateway.core.flows import icmp_errors as icmp
from gateway.core.flows.flow import Flow
from gateway.core.flows.nat_rewrite import snat_outbound
from gateway.core.flows.resets import Reset
from gateway.core.ingress import IngressPath
from gateway.core.packet.view import ICMP_ERRORS, PORTED, PacketView
from gateway.core.path_trace import ESTABLISHED, noting
from gateway.schema.captures import (
    INSIDE,
    OUTSIDE,
    RECEIVED,
    SENT,
    UNKNOWN,
    CapturedPacket,
    PacketAnnotation,
)
from gateway.schema.drop_reasons import DropReason
from gateway.schema.protocols import ICMP, TCP, UDP

# Where a packet comes in and where it leaves. What this host sends itself came in nowhere.
_SIDES: dict[IngressPath, tuple[int | None, int]] = {
    IngressPath.OUTBOUND: (INSIDE, OUTSIDE),
    IngressPath.INBOUND: (OUTSIDE, INSIDE),
    IngressPath.HAIRPIN: (INSIDE, INSIDE),
    IngressPath.LOCAL_ERROR: (None, OUTSIDE),
    IngressPath.LATERAL: (INSIDE, INSIDE),
    IngressPath.PROBE: (None, INSIDE),
}
_PLAIN = (bytes((TCP,)), bytes((UDP,)))


@dataclass(frozen=True)
class CaptureFilter:
    """What a capture is of. Fields that are None ask for nothing; addresses are 4 bytes.

    A VM's packets are those with its private address at either end and on either side, and those
    dropped in its name. A remote's are those with it at either end, or quoted by an ICMP error.
    ``trace``: each with the stages that it passed.
    """

    side: int | None = None
    vm: str | None = None
    vm_address: bytes | None = None
    remote: bytes | None = None
    remote_port: bytes | None = None
    protocol: int | None = None
    snap_length: int = 0xFFFF
    trace: bool = False

    @property
    def everything(self) -> bool:
        """Whether every packet matches."""
        return self.protocol is None and self.vm_address is None and self.remote is None

    def matches(self, packet: bytes, verdict: bytes | None, dropped_vm: str | None) -> bool:
        """Whether a packet, with what became of it, is one of those asked for."""
        if self.protocol is not None and (len(packet) < 20 or packet[9] != self.protocol):
            return False
        address = self.vm_address
        if (
            address is not None
            and address != packet[12:16]
            and address != packet[16:20]
            and (verdict is None or address not in (verdict[12:16], verdict[16:20]))
            and (dropped_vm is None or dropped_vm != self.vm)
        ):
            return False
        return self.remote is None or self._involves_remote(packet)

    def covers(self, flow: Flow) -> bool:
        """Whether packets of a flow could match."""
        if self.protocol is not None and flow.protocol != self.protocol:
            return False
        original, reply = flow.original, flow.reply
        if self.vm_address is not None and self.vm_address not in (original[0:4], original[4:8]):
            return False
        if self.remote is not None and self.remote not in (
            original[0:4],
            original[4:8],
            reply[4:8],
        ):
            return False
        return self.remote_port is None or self.remote_port in (
            original[8:10],
            original[10:12],
            reply[10:12],
        )

    def _involves_remote(self, packet: bytes) -> bool:
        if len(packet) < 20:
            return False
        if self._at_an_end(packet, 0):
            return True
        transport = (packet[0] & 0x0F) << 2
        if packet[9] != ICMP or len(packet) < transport + 28:
            return False
        return packet[transport] in ICMP_ERRORS and self._at_an_end(packet, transport + 8)

    def _at_an_end(self, packet: bytes, offset: int) -> bool:
        """Of the IP packet at ``offset``, of which 20 bytes are there."""
        source = packet[offset + 12 : offset + 16] == self.remote
        destination = packet[offset + 16 : offset + 20] == self.remote
        if self.remote_port is None or not (source or destination):
            return source or destination
        if packet[offset + 9] not in PORTED:
            return False
        ports = offset + ((packet[offset] & 0x0F) << 2)
        return (source and packet[ports : ports + 2] == self.remote_port) or (
            destination and packet[ports + 2 : ports + 4] == self.remote_port
        )


class CaptureSession:
    """One capture: what it wants, and the packets that wait to be taken, within bounds.

    ``matched`` and ``lost`` count packets by side; lost ones are among the matched. A packet is
    kept or lost on all of its sides.
    """

    __slots__ = (
        "_maximum_bytes",
        "_maximum_count",
        "_waiting",
        "covers",
        "lost",
        "matched",
        "matches",
        "sides",
        "size",
        "snap_length",
        "traces",
    )

    def __init__(self, wanted: CaptureFilter, maximum_bytes: int, maximum_count: int) -> None:
        """Nothing is kept while ``maximum_bytes`` (of packets) or ``maximum_count`` wait."""
        self.matches = None if wanted.everything else wanted.matches
        self.covers = wanted.covers
        self.sides = wanted.side in (None, INSIDE), wanted.side in (None, OUTSIDE)
        self.snap_length = wanted.snap_length
        self.traces = wanted.trace
        self.matched = [0, 0]
        self.lost = [0, 0]
        self.size = 0
        self._maximum_bytes = maximum_bytes
        self._maximum_count = maximum_count
        self._waiting: list[CapturedPacket] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another packet."""
        return self.size >= self._maximum_bytes or len(self._waiting) >= self._maximum_count

    def lose(self, side: int) -> None:
        """Count a packet for which there is no room."""
        self.matched[side] += 1
        self.lost[side] += 1

    def keep(
        self,
        number: int,
        side: int,
        direction: int,
        time: int,
        packet: bytes,
        annotation: PacketAnnotation,
    ) -> None:
        """Add a packet."""
        self.matched[side] += 1
        kept = packet[: self.snap_length]  # the same object, if it is no longer
        self.size += len(kept)
        self._waiting.append((number, side, direction, time, len(packet), kept, annotation))

    def take(self, maximum_bytes: int, maximum_count: int) -> list[CapturedPacket]:
        """The oldest packets, at least one if any waits; no longer kept."""
        size = count = 0
        for captured in self._waiting[:maximum_count]:
            size += len(captured[5])
            if count and size > maximum_bytes:
                size -= len(captured[5])
                break
            count += 1
        taken = self._waiting[:count]
        del self._waiting[:count]
        self.size -= size
        return taken


class CaptureTap:
    """An engine's tap. ``clock`` tells the time in nanoseconds since 1970."""

    def __init__(self, engine: Engine, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._clock = clock
        self._sessions: tuple[CaptureSession, ...] = ()
        self._dropped: tuple[DropReason, str | None, str | None] | None = None
        self._number = 0
        self._passed: list[str] = []  # stages, of the packet that is handled

    @property
    def sessions(self) -> tuple[CaptureSession, ...]:
        """Those attached; with none, ``handlers`` should not be used."""
        return self._sessions

    def attach(self, session: CaptureSession) -> None:
        """Tell ``session`` of every packet from now on."""
        self._sessions = (*self._sessions, session)
        self._engine.drops.tell(self._note)

    def detach(self, session: CaptureSession) -> None:
        """Undo ``attach``."""
        self._sessions = tuple(known for known in self._sessions if known is not session)
        if not self._sessions:
            self._engine.drops.tell(None)

    def wants(self, flow: Flow) -> bool:
        """Whether a flow's packets must pass the engine."""
        return any(session.covers(flow) for session in self._sessions)

    def handlers(self) -> tuple[PacketHandler, ...]:
        """The engine's handlers, watched; noting stages, if a session of now wants them."""
        handlers = self._engine.handlers
        if any(session.traces for session in self._sessions):
            handlers = self._engine.build_handlers(noting(self._passed))
        return tuple(
            self._watched(ingress.whole, handler)
            for ingress, handler in zip(IngressPath, handlers, strict=True)
        )

    def _watched(self, ingress: IngressPath, handler: PacketHandler) -> PacketHandler:
        clock, passed = self._clock, self._passed

        def watched(packet: bytes, now: float) -> bytes | None:
            self._dropped = None
            passed.clear()
            came = clock()
            verdict = handler(packet, now)
            self._see(ingress, packet, verdict, came)
            return verdict

        return watched

    def _note(self, reason: DropReason, vm: str | None, rule: str | None) -> None:
        self._dropped = reason, vm, rule

    def _see(self, ingress: IngressPath, packet: bytes, verdict: bytes | None, came: int) -> None:
        dropped_vm = None if self._dropped is None else self._dropped[1]
        annotation: PacketAnnotation | None = None
        number = left = 0
        for session in self._sessions:
            matches = session.matches
            if matches is not None and not matches(packet, verdict, dropped_vm):
                continue
            came_in, leaves = _SIDES[ingress]
            direction = RECEIVED
            if came_in is None:  # shows where it leaves, or would have
                came_in = leaves if verdict is None else None
                direction = UNKNOWN
            first = came_in if came_in is not None and session.sides[came_in] else None
            second = leaves if verdict is not None and session.sides[leaves] else None
            if session.is_full:
                for side in (first, second):
                    if side is not None:
                        session.lose(side)
                continue
            if annotation is None:
                left = self._clock()
                number = self._number = self._number + 1
                annotation = self._annotation(ingress, packet, verdict)
            noted = (*annotation[:-1], self._stages(verdict)) if session.traces else annotation
            if first is not None:
                session.keep(number, first, direction, came, packet, noted)
            if second is not None and verdict is not None:
                session.keep(number, second, SENT, left, verdict, noted)

    def _stages(self, verdict: bytes | None) -> str | None:
        """The stages that the packet passed; none before its path: it is no packet to look at."""
        return ",".join(self._passed) or (None if verdict is None else ESTABLISHED)

    def made(self, reset: Reset) -> None:
        """The gateway itself sends an RST: it came in nowhere and leaves on one side."""
        packet = reset.packet
        inside = packet[16:20] in self._engine.admission.scope.subnets
        side = INSIDE if inside else OUTSIDE
        vm = self._name_of(packet[16:20]) if reset.vm is None and inside else reset.vm
        self._number += 1
        annotation: PacketAnnotation = (
            reset.flow,
            vm,
            reset.method,
            "sent",
            reset.reason,
            None,
            None,
            None,
            None,
        )
        for session in self._sessions:
            matches = session.matches
            if not session.sides[side] or not (matches is None or matches(packet, None, vm)):
                continue
            if session.is_full:
                session.lose(side)
            else:
                session.keep(self._number, side, SENT, self._clock(), packet, annotation)

    def _annotation(
        self, ingress: IngressPath, packet: bytes, verdict: bytes | None
    ) -> PacketAnnotation:
        reason, vm, rule = self._dropped or (None, None, None)
        flow, second = self._flows(ingress, packet, reason)
        if verdict is not None:
            said = "passed" if verdict == packet else "translated"
        elif reason is DropReason.DENIED_BY_SECURITY_RULE:
            said = "denied"
        else:
            said = "dropped"
        to_flow = to_vm = None
        if second is not None:
            to_flow, to_vm = second.id, second.machine.name
        elif ingress is IngressPath.LATERAL or ingress is IngressPath.PROBE:
            to_vm = self._name_of(packet[16:20])
        if flow is not None:
            vm = flow.machine.name
            if ingress is IngressPath.LATERAL and packet[12:16] != flow.private:
                vm, to_vm = self._name_of(packet[12:16]), vm
        elif vm is None and ingress is not IngressPath.INBOUND:
            vm = self._name_of(packet[12:16])
        return (
            None if flow is None else flow.id,
            vm,
            None if flow is None else flow.method.value,
            said,
            None if reason is None else reason.value,
            rule,
            to_flow,
            to_vm,
            None,
        )

    def _name_of(self, address: bytes) -> str | None:
        machine = self._engine.outbound.machines.get(address)
        return None if machine is None else machine.name

    def _flows(  # noqa: PLR0911
        self, ingress: IngressPath, packet: bytes, reason: DropReason | None
    ) -> tuple[Flow | None, Flow | None]:
        """The flow that a packet belongs to, and a hairpin's second one."""
        if reason is DropReason.MALFORMED or reason is DropReason.FRAGMENT:
            return None, None
        table = self._engine.flows
        # Nearly every packet that passes, without a view of it.
        if reason is None and packet[:1] == b"\x45" and packet[9:10] in _PLAIN:
            if ingress is IngressPath.OUTBOUND:
                return table.originals(packet[9]).get(packet[12:24]), None
            if ingress is IngressPath.INBOUND:
                return table.replies(packet[9]).get(packet[12:24]), None
        view = PacketView.parse(packet)
        if view is None:
            return None, None
        if view.protocol == ICMP and view.kind in ICMP_ERRORS:
            return self._flow_of_error(ingress, view), None
        protocol, key = view.protocol, view.key
        if ingress is IngressPath.INBOUND or ingress is IngressPath.PROBE:
            return table.replies(protocol).get(key), None
        if ingress is IngressPath.LATERAL:
            between_vms = table.lateral.originals(protocol).get(key)
            between_vms = between_vms or table.lateral.replies(protocol).get(key)
            if between_vms is not None:
                return between_vms, None
            # Else it answers another network of this host, by a flow that is translated.
        flow = table.originals(protocol).get(key)
        if flow is None or ingress is not IngressPath.HAIRPIN:
            return flow, None
        between = PacketView.parse(snat_outbound(view, flow))
        return flow, None if between is None else table.replies(protocol).get(between.key)

    def _flow_of_error(self, ingress: IngressPath, view: PacketView) -> Flow | None:
        """The flow of the packet that an ICMP error quotes."""
        quote = icmp.quoted(view)
        if quote is None:
            return None
        table = self._engine.flows
        if ingress is IngressPath.INBOUND or ingress is IngressPath.PROBE:
            return icmp.flow_of_sent(table, quote)
        if ingress is IngressPath.LATERAL:
            between_vms = icmp.flow_of_received(table.lateral, quote)
            between_vms = between_vms or icmp.flow_of_sent(table.lateral, quote)
            if between_vms is not None:
                return between_vms
        return icmp.flow_of_received(table, quote)
