"""The life of a flow: opened (``flow_opening.py``), tracked (``flow_tracking.py``), ended by time.

This is the one place that joins the flow table, the timers and the port allocator. It does not read
packets: it is given keys, flags and times.
"""

from __future__ import annotations

from gateway.core.flow_opening import Opening
from gateway.core.flow_tracking import Tracking
from gateway.core.flows.counters import Connections
from gateway.core.flows.flow import Flow
from gateway.core.flows.resets import ResetQueue
from gateway.core.flows.table import FlowTable
from gateway.core.flows.tcp import ENDED, State
from gateway.core.observe.exhaustion import ExhaustionMonitor
from gateway.core.port_selection import PortAllocator
from gateway.core.snat.allocation_manager import AllocationManager
from gateway.core.snat.allocations import Vm
from gateway.core.snat.nat_gateway_pool import VmNatUsage
from gateway.core.snat.port_pool import Ports
from gateway.model.profile import Profile
from gateway.schema.protocols import TCP, UDP


class FlowLifecycle(Tracking, Opening[FlowTable]):
    """Flows and the ports they hold. ``watch`` is notified of every pool that has no port, or
    few."""

    allocator: PortAllocator
    opens = counts = True
    """Packets change it: flows open, hits are counted (``dry_run.py`` does neither)."""

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
        self.opened: list[Flow] | None = None
        """Flows opened since an eviction began to watch for them; None: none is under way."""
        if profile.nat_gateway is not None:
            self._udp_hold = profile.nat_gateway.udp_hold
            self._at_deadline = self._time_out

    # -- opening (``flow_opening.py``)

    def enter(
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
        flow.machine.flows += 1  # first: its VM is not forgotten with what it replaces
        if superseded is not None:
            self.supersede(superseded)
        if other is not None and other is not superseded:
            self.supersede(other)
        self.table.add(flow)
        if self.opened is not None:
            self.opened.append(flow)
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
        """A flow has timed out: it ends, with an RST to both ends where its rule has
        ``enableTcpReset``.

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
        flow.finish()
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
        """A flow's port went to another VM: it breaks silently, and is listed until it would
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

    # -- two UDP flows at one port of a VM, with one remote endpoint

    def answer_by(self, flow: Flow) -> None:
        """A remote sent by a UDP flow that another one had superseded: it is this one again that
        what the VM sends belongs to.

        Both are delivered. Which of them the VM means cannot be known: the remote used this one
        last. A flow that stepped back is OPENING: its next packet in does not go the short way.
        """
        holder = self.table.udp_original.get(flow.original)
        if holder is flow:
            return
        if holder is not None:
            self.step_back(holder)
        self.table.attach_original(flow)

    def step_back(self, flow: Flow) -> None:
        """Leave the VM's endpoint to another flow, and continue delivering."""
        self.take_back(flow)
        self.table.detach_original(flow)
        flow.reopen()

    def _leave(self, machine: Vm) -> None:
        """A VM has one flow less."""
        machine.flows -= 1
        if not machine.named:
            self.outbound.forget(machine)
