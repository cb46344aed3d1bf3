"""The life of a flow: opened with a SNAT port, advanced by packets, ended by time.

This is the one place that joins the flow table, the timers and the port allocator. It does not read
packets: it is told keys, flags and times. What it refuses it answers with a ``DropReason``.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.accounting import Connections
from gateway.core.allocator import PortAllocator
from gateway.core.allotment import Machine
from gateway.core.balancer import Listener
from gateway.core.drops import DropReason
from gateway.core.flow import PORTS, TCP, UDP, Flow, FlowTable
from gateway.core.flow_log import FlowLog
from gateway.core.nat_ports import NatShare
from gateway.core.nsg import Judgement
from gateway.core.offload import Offload
from gateway.core.outbound import Outbound
from gateway.core.ports import Ports
from gateway.core.resets import Acknowledged, Outbox
from gateway.core.shortage import PortWatch
from gateway.core.tcp import (
    CLOSING,
    ENDED,
    SEGMENT_OF_FLAGS,
    TRANSITIONS,
    Segment,
    Side,
    State,
    is_opening,
)
from gateway.core.timers import Expiry
from gateway.model.profile import Method, Profile

CATCH_UP = 64
"""Times that one packet has the offload tell what passed: more than it can have to tell."""


class Translation:
    """Flows and the ports they hold. ``watch`` is told of every pool that has no port, or few."""

    def __init__(
        self,
        profile: Profile,
        outbound: Outbound,
        maximum: int,
        seed: int | None,
        watch: PortWatch,
    ) -> None:
        self.profile = profile
        self.outbound = outbound
        self.table = FlowTable(maximum)
        self.expiry = Expiry()
        self.expiry.fold = self.table.traffic.fold = self.fold
        self.connections = Connections()
        self.log: FlowLog | None = None
        self.offload: Offload | None = None
        self.watched: Callable[[Flow], bool] | None = None
        """Of which flows somebody wants to see every packet: they are not handed over."""
        self.allocator = PortAllocator(profile, outbound, seed, watch, self.connections)
        self._hold = {
            State.FIN_FROM_ORIGINAL: profile.fin_hold,
            State.FIN_FROM_REPLY: profile.fin_hold,
            State.FINISHED: profile.fin_hold,
            State.RESET: profile.rst_hold,
        }
        self._nat_hold: dict[State, float] = {}
        self._half_open = profile.idle_timeout
        self._at_deadline = self._time_out if profile.tcp_reset_on_idle else self.end
        self.outbox = Outbox()
        if profile.nat_gateway is not None:
            terms = profile.nat_gateway
            self._nat_hold = {State.FINISHED: terms.fin_hold, State.RESET: terms.rst_hold}
            self._half_open = terms.half_open_timeout
            self._udp_hold = terms.udp_hold
            self._at_deadline = self._time_out

    # -- opening

    def open(
        self,
        protocol: int,
        original: bytes,
        machine: Machine,
        judgements: tuple[Judgement, ...],
        now: float,
        *,
        replaced: Flow | None = None,
    ) -> Flow | DropReason:
        """A flow for a VM's packet to outside; ``original`` has no live flow.

        ``replaced``, here and below: the flow that makes way for it. Where none can be opened, that
        one stays as it is.
        """
        if not self._has_room(replaced):
            return DropReason.FLOW_TABLE_FULL
        method = machine.method_of(protocol)
        if method is None:
            return DropReason.NO_OUTBOUND_METHOD
        pool: Ports | None = None
        reset = False
        if method is Method.INSTANCE_LEVEL_PUBLIC_IP:
            assert machine.instance is not None
            public, port, timeout = machine.instance, original[8:10], machine.idle_timeout
        else:
            held = self.allocator.take(machine, protocol, original, now)
            if isinstance(held, DropReason):
                return held
            allotment, number = held
            pool = allotment.pools[protocol]
            public, port = pool.address, PORTS[number]
            method, timeout = allotment.terms.method, allotment.terms.idle_timeout
            reset = allotment.terms.tcp_reset
            if method is Method.NAT_GATEWAY and protocol == TCP:
                timeout = min(timeout, self._half_open)
        # An echo's identifier stands on the asking side; its reply key has it on that side too.
        reply = original[4:8] + public + original[10:12] + port + original[12:]
        return self._enter(
            Flow(
                protocol,
                original,
                reply,
                machine,
                public,
                method,
                pool,
                timeout,
                now,
                judgements=judgements,
            ),
            replaced,
            reset=reset,
        )

    def open_inbound(
        self,
        protocol: int,
        reply: bytes,
        machine: Machine,
        judgements: tuple[Judgement, ...],
        listener: Listener | None,
        now: float,
        *,
        replaced: Flow | None = None,
    ) -> Flow | DropReason:
        """A flow for a packet from outside: to a VM's own public IP, one to one, or by a rule."""
        refusal = self.refusal_of_inbound(protocol, reply, machine, listener, replaced)
        if refusal is not None:
            return refusal
        original = _arriving_at(reply, machine, listener)
        other = self.table.originals(protocol).get(original)
        if other is not None and other is not replaced and other.state not in ENDED:
            self._step_back(other)
            other = None
        if listener is None:
            method, timeout = Method.INSTANCE_LEVEL_PUBLIC_IP, machine.idle_timeout
        else:
            method, timeout = listener.method, listener.idle_timeout
        return self._enter(
            Flow(
                protocol,
                original,
                reply,
                machine,
                reply[4:8],
                method,
                None,
                timeout,
                now,
                inbound=True,
                judgements=judgements,
            ),
            replaced,
            other,
            reset=listener is not None and listener.tcp_reset,
        )

    def open_lateral(
        self,
        protocol: int,
        original: bytes,
        machine: Machine,
        judgements: tuple[Judgement, ...],
        now: float,
        *,
        replaced: Flow | None = None,
    ) -> Flow | DropReason:
        """A flow from one VM to another: watched, not translated."""
        if not self._has_room(replaced):
            return DropReason.FLOW_TABLE_FULL
        reply = original[4:8] + original[0:4] + original[10:12] + original[8:10] + original[12:]
        return self._enter(
            Flow(
                protocol,
                original,
                reply,
                machine,
                machine.address,
                Method.VIRTUAL_NETWORK,
                None,
                self.profile.idle_timeout,
                now,
                judgements=judgements,
            ),
            replaced,
        )

    def _has_room(self, *replaced: Flow | None) -> bool:
        """Whether a flow more can be; one that is replaced and holds no port leaves its place."""
        if not self.table.is_full:
            return True
        return any(flow is not None and flow.pool is None for flow in replaced)

    def _enter(self, flow: Flow, *replaced: Flow | None, reset: bool = False) -> Flow:
        """``reset``: both ends are to get an RST if it idles out."""
        if reset and flow.protocol == TCP:
            flow.acknowledged = Acknowledged()
        flow.machine.flows += 1  # first: its machine is not forgotten with what it replaces
        for other in {*replaced}:
            if other is not None:
                self.replace(other)
        self.table.add(flow)
        self.expiry.arm(flow, flow.created + flow.timeout)
        if flow.protocol == TCP and self.offload is not None:
            self.hand_over(flow)  # already: the answer to a SYN need not come here
        if flow.pool is not None:
            self.connections.opened(flow.machine.name, flow.public, flow.protocol)
        if self.log is not None:
            self.log.opened(flow)
        return flow

    def replace(self, flow: Flow) -> None:
        """Make way for a new connection from the same endpoint; a held port stays held."""
        if flow.pool is None:
            self.end(flow)
        else:
            self.take_back(flow)
            self.table.detach_original(flow)

    # -- advancing

    def advance(self, flow: Flow, side: Side, flags: int, now: float) -> None:
        """Account for a packet's effect on its flow's state; ``flags`` are TCP's, else 0."""
        state = flow.state
        if state is not State.RESET:
            flow.last_seen = now
        if flow.protocol != TCP:
            # A reply to an inbound datagram takes the short way, and is seen with the next one.
            answered = flow.inbound and flow.packets_out and flow.packets_in
            if (side is Side.REPLY) is not flow.inbound or answered:
                flow.state = State.ESTABLISHED
            return
        if is_opening(flags):
            self.table.traffic.syn(flow, side)
        if flow.inbound:
            side = Side.REPLY if side is Side.ORIGINAL else Side.ORIGINAL  # who sent first
        following = TRANSITIONS.get((state, side, SEGMENT_OF_FLAGS[flags & 7]))
        if following is None:
            return
        flow.state = following
        self.table.touch(flow)
        pool = flow.pool
        if isinstance(pool, NatShare):
            hold = self._nat_hold.get(following)
            if hold is None:
                flow.timeout = pool.idle_timeout  # it was half-open
                return
        else:
            hold = self._hold.get(following)
            if hold is None:
                return
        shorter = hold < flow.timeout
        flow.timeout = hold
        if shorter:
            self.expiry.arm(flow, now + hold)
        if following in ENDED and state not in ENDED:
            if pool is not None:
                pool.cooling += 1
            if self.log is not None:
                self.log.closed(flow, now)

    # -- flows whose packets pass elsewhere

    def hand_over(self, flow: Flow) -> None:
        """Let a flow's packets pass without the engine from now on, if somebody can take them.

        A hairpin is two flows for each packet: both stay here.
        """
        offload = self.offload
        if offload is None or flow.offloaded or flow.protocol not in (TCP, UDP):
            return
        if self.watched is not None and self.watched(flow):
            return
        if flow.acknowledged is not None:
            return  # its acknowledgements are to be seen
        if self.table.originals(flow.protocol).get(flow.original) is not flow:
            return  # what the VM sends is another flow's
        if flow.original[4:8] not in self.outbound.addresses and offload.install(flow):
            flow.offloaded = True
            self.table.touch(flow)

    def take_back(self, flow: Flow) -> None:
        """See a flow's packets again; its counters are up to date after this."""
        if flow.offloaded and self.offload is not None:
            self.fold(flow)
            self.offload.remove(flow)
            flow.offloaded = False

    def fold(self, flow: Flow) -> None:
        """Bring an offloaded flow's counters and times up to date."""
        if self.offload is not None:
            self.offload.fold(flow)

    def advance_elsewhere(
        self, slot: int, flow_id: int, side: Side, flags: int, now: float
    ) -> None:
        """A SYN-ACK, FIN or RST of an offloaded flow passed at ``now``."""
        flow = self.table.at(slot)
        if flow is not None and flow.id == flow_id and flow.offloaded:
            if self.log is not None:
                self.fold(flow)  # what a flow had when it closed is written down
            self.advance(flow, side, flags, now)

    def reopens(self, flow: Flow, side: Side, flags: int) -> bool:
        """Whether a SYN begins another connection between the endpoints of a flow that ended.

        From outside it can only where no port was translated.
        """
        if flow.protocol != TCP or SEGMENT_OF_FLAGS[flags & 7] is not Segment.SYN:
            return False
        if side is not Side.ORIGINAL and flow.pool is not None:
            return False
        if flow.offloaded:
            self._catch_up()  # what closed it may have passed elsewhere a moment ago
        return flow.state in ENDED or flow.state in CLOSING

    def _catch_up(self) -> None:
        if self.offload is not None:
            for _ in range(CATCH_UP):
                if not self.offload.report(self):
                    break

    # -- ending

    def expire(self, now: float, limit: int) -> int:
        """Reclaim flows whose time is over."""
        log = self.log
        if log is None:
            return self.expiry.expire(now, self._at_deadline, limit)
        log.now = now
        ended = self.expiry.expire(now, self._at_deadline, limit)
        log.look(now, limit)
        return ended

    def _time_out(self, flow: Flow) -> None:
        """A flow's time is over: it ends, and tells its ends so where its rule says so.

        A NAT gateway holds a UDP flow's port for longer.
        """
        if flow.acknowledged is not None and flow.state is State.ESTABLISHED:
            tell_remote = flow.original[4:8] not in self.outbound.addresses  # else it is a hairpin
            self.outbox.idled_out(flow, tell_remote=tell_remote)
        pool = flow.pool
        if flow.protocol != UDP or flow.state in ENDED or not isinstance(pool, NatShare):
            self.end(flow)
            return
        self.take_back(flow)
        self.table.detach_original(flow)
        self.table.detach_reply(flow)
        if self.log is not None:
            self.log.forgotten(flow)
        flow.state = State.FINISHED
        pool.cooling += 1
        flow.last_seen += flow.timeout
        flow.timeout = self._udp_hold
        self.expiry.arm(flow, flow.last_seen + flow.timeout)

    def end(self, flow: Flow) -> None:
        """Forget a flow and release its port."""
        self.take_back(flow)
        self.expiry.disarm(flow)
        self.table.remove(flow)
        if self.log is not None:
            self.log.forgotten(flow)
        pool = flow.pool
        if pool is not None:
            self.allocator.release(flow, pool)
        self._leave(flow.machine)

    def break_off(self, flow: Flow, pool: Ports) -> None:
        """A flow's port went to somebody else: it breaks silently, and is listed until it would
        have timed out (A6); one that ended goes at once."""
        self.take_back(flow)
        self.allocator.forget_port(flow, pool)
        flow.pool = flow.acknowledged = None  # the port, and a reset on it, may be another's now
        if flow.state in ENDED:
            self.expiry.disarm(flow)
            self.table.remove(flow)
            self._leave(flow.machine)
        else:
            self.table.reclaim(flow)

    def refusal_of_inbound(
        self,
        protocol: int,
        reply: bytes,
        machine: Machine,
        listener: Listener | None,
        replaced: Flow | None = None,
    ) -> DropReason | None:
        """Why ``open_inbound`` would refuse; None: it would not."""
        other = self.table.originals(protocol).get(_arriving_at(reply, machine, listener))
        live = other is not None and other is not replaced and other.state not in ENDED
        if live and protocol != UDP:
            return DropReason.PRIVATE_ENDPOINT_IN_USE
        return (
            None
            if self._has_room(replaced, None if live else other)
            else DropReason.FLOW_TABLE_FULL
        )

    # -- two UDP flows at one port of a VM, with one remote endpoint

    def answer_by(self, flow: Flow) -> None:
        """A remote sent by a UDP flow that another one had superseded: it is this one again that
        what the VM sends belongs to.

        Both are delivered. Which of them the VM means nobody can tell: the remote used this one
        last. A flow that stepped back is OPENING: its next packet in does not go the short way.
        """
        holder = self.table.udp_original.get(flow.original)
        if holder is flow:
            return
        if holder is not None:
            self._step_back(holder)
        self.table.attach_original(flow)

    def _step_back(self, flow: Flow) -> None:
        """Leave the VM's endpoint to another flow, and go on delivering."""
        self.take_back(flow)
        self.table.detach_original(flow)
        flow.state = State.OPENING

    def _leave(self, machine: Machine) -> None:
        """A machine has a flow less."""
        machine.flows -= 1
        if not machine.named:
            self.outbound.forget(machine)


def _arriving_at(reply: bytes, machine: Machine, listener: Listener | None) -> bytes:
    """The original key of a flow that a packet from outside opens."""
    port = reply[10:12] if listener is None else listener.backend_port
    return machine.address + reply[0:4] + port + reply[8:10] + reply[12:]
