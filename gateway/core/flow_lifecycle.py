"""The life of a flow: opened with a SNAT port, tracked (``flow_tracking.py``), ended by time.

This is the one place that joins the flow table, the timers and the port allocator. It does not read
packets: it is told keys, flags and times. What it does not open it answers with a ``DropReason``.
"""

from __future__ import annotations

from gateway.core.flow_tracking import Tracking
from gateway.core.flows.counters import Connections
from gateway.core.flows.flow import PORTS, Flow
from gateway.core.flows.resets import ResetQueue
from gateway.core.flows.table import FlowTable
from gateway.core.flows.tcp import ENDED, State
from gateway.core.inbound.load_balancer import Listener
from gateway.core.observe.exhaustion import ExhaustionMonitor
from gateway.core.policy.nsg import RuleMatch
from gateway.core.port_selection import PortAllocator
from gateway.core.snat.allocation_manager import AllocationManager
from gateway.core.snat.allocations import Vm
from gateway.core.snat.nat_gateway_pool import VmNatUsage
from gateway.core.snat.port_pool import Ports
from gateway.model.profile import Method, Profile
from gateway.schema.drop_reasons import DropReason
from gateway.schema.protocols import TCP, UDP


class FlowLifecycle(Tracking):
    """Flows and the ports they hold. ``watch`` is told of every pool that has no port, or few."""

    def __init__(
        self,
        profile: Profile,
        outbound: AllocationManager,
        maximum: int,
        seed: int | None,
        watch: ExhaustionMonitor,
    ) -> None:
        super().__init__(profile, FlowTable(maximum), outbound)
        self.expiry.fold = self.table.traffic.fold = self.fold
        self.connections = Connections()
        self.allocator = PortAllocator(profile, outbound, seed, watch, self.connections)
        self._at_deadline = self._time_out if profile.tcp_reset_on_idle else self.end
        self.reset_queue = ResetQueue()
        if profile.nat_gateway is not None:
            self._udp_hold = profile.nat_gateway.udp_hold
            self._at_deadline = self._time_out

    # -- opening

    def open(
        self,
        protocol: int,
        original: bytes,
        machine: Vm,
        rule_matches: tuple[RuleMatch, ...],
        now: float,
        *,
        superseded: Flow | None = None,
    ) -> Flow | DropReason:
        """A flow for a VM's packet to outside; ``original`` has no live flow.

        ``superseded``, here and below: the flow that makes way for it. Where none can be opened,
        that one stays as it is.
        """
        if not self.has_room(superseded):
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
            allocation, number = held
            pool = allocation.pools[protocol]
            public, port = pool.address, PORTS[number]
            method, timeout = allocation.flow_policy.method, allocation.flow_policy.idle_timeout
            reset = allocation.flow_policy.tcp_reset
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
                rule_matches=rule_matches,
            ),
            superseded,
            reset=reset,
        )

    def open_inbound(
        self,
        protocol: int,
        reply: bytes,
        machine: Vm,
        rule_matches: tuple[RuleMatch, ...],
        listener: Listener | None,
        now: float,
        *,
        superseded: Flow | None = None,
    ) -> Flow | DropReason:
        """A flow for a packet from outside: to a VM's own public IP, one to one, or by a rule."""
        reason = self.reason_against_inbound(protocol, reply, machine, listener, superseded)
        if reason is not None:
            return reason
        original = _arriving_at(reply, machine, listener)
        other = self.table.originals(protocol).get(original)
        if other is not None and other is not superseded and other.state not in ENDED:
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
                rule_matches=rule_matches,
            ),
            superseded,
            other,
            reset=listener is not None and listener.tcp_reset,
        )

    def open_lateral(
        self,
        protocol: int,
        original: bytes,
        machine: Vm,
        rule_matches: tuple[RuleMatch, ...],
        now: float,
        *,
        superseded: Flow | None = None,
    ) -> Flow | DropReason:
        """A flow from one VM to another: watched, not translated."""
        if not self.has_room(superseded):
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
                rule_matches=rule_matches,
            ),
            superseded,
        )

    def has_room(self, *superseded: Flow | None, flows: int = 1) -> bool:
        """Whether flows more can be; one that is superseded and holds no port leaves its place."""
        room = self.table.maximum - len(self.table)
        if room >= flows:
            return True
        left = {flow for flow in superseded if flow is not None and flow.pool is None}
        return room + len(left) >= flows

    def _enter(
        self,
        flow: Flow,
        superseded: Flow | None,
        other: Flow | None = None,
        *,
        reset: bool = False,
    ) -> Flow:
        """``other`` makes way, too. ``reset``: both ends are to get an RST if it idles out."""
        if reset and flow.protocol == TCP:
            self.table.to_be_reset.add(flow)
        flow.machine.flows += 1  # first: its machine is not forgotten with what it replaces
        if superseded is not None:
            self.supersede(superseded)
        if other is not None and other is not superseded:
            self.supersede(other)
        self.table.add(flow)
        self.expiry.arm(flow, flow.created + flow.timeout)
        if flow.pool is not None:
            self.connections.opened(flow.machine.name, flow.public, flow.protocol)
        if self.log is not None:
            self.log.opened(flow)
        return flow

    def supersede(self, flow: Flow) -> None:
        """Make way for a new connection from the same endpoint; a held port stays held."""
        if flow.pool is None:
            self.end(flow)
        else:
            self.take_back(flow)
            self.table.detach_original(flow)

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
        if flow in self.table.to_be_reset and flow.state is State.ESTABLISHED:
            tell_remote = flow.original[4:8] not in self.outbound.addresses  # else it is a hairpin
            self.reset_queue.idled_out(flow, self.table.numbers, tell_remote=tell_remote)
        pool = flow.pool
        if flow.protocol != UDP or flow.state in ENDED or not isinstance(pool, VmNatUsage):
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
        flow.pool = None  # the port, and a reset on it, may be another's now
        self.table.to_be_reset.discard(flow)
        if flow.state in ENDED:
            self.expiry.disarm(flow)
            self.table.remove(flow)
            self._leave(flow.machine)
        else:
            self.table.reclaim(flow)

    def reason_against_inbound(
        self,
        protocol: int,
        reply: bytes,
        machine: Vm,
        listener: Listener | None,
        *superseded: Flow | None,
        flows: int = 1,
    ) -> DropReason | None:
        """Why ``open_inbound`` would not open; None: it would. ``flows``: to be opened."""
        other = self.table.originals(protocol).get(_arriving_at(reply, machine, listener))
        live = other is not None and other not in superseded and other.state not in ENDED
        if live and protocol != UDP:
            return DropReason.PRIVATE_ENDPOINT_IN_USE
        ended = None if live else other
        room = self.has_room(*superseded, ended, flows=flows)
        return None if room else DropReason.FLOW_TABLE_FULL

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

    def _leave(self, machine: Vm) -> None:
        """A machine has a flow less."""
        machine.flows -= 1
        if not machine.named:
            self.outbound.forget(machine)


def _arriving_at(reply: bytes, machine: Vm, listener: Listener | None) -> bytes:
    """The original key of a flow that a packet from outside opens."""
    port = reply[10:12] if listener is None else listener.backend_port
    return machine.address + reply[0:4] + port + reply[8:10] + reply[12:]
