"""The life of a flow: opened with a SNAT port, advanced by packets, ended by time.

This is the one place that joins the flow table, the timers and the port pools, and the one that
decides which public address and port a new flow gets. It does not read packets: it is told keys,
flags and times. What it refuses it answers with a ``DropReason``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from random import Random

from gateway.core.accounting import Connections
from gateway.core.allotment import Allotment, Machine
from gateway.core.balancer import INBOUND_RULES, Listener
from gateway.core.drops import DropReason
from gateway.core.flow import ICMP, PORTS, TCP, UDP, Flow, FlowTable
from gateway.core.flow_log import FlowLog
from gateway.core.nat_ports import NatShare, choose
from gateway.core.nsg import Judgement
from gateway.core.offload import Offload
from gateway.core.outbound import Outbound, Resized
from gateway.core.ports import PortPool, Ports
from gateway.core.resets import Acknowledged, Outbox
from gateway.core.scope import AddressScope
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
from gateway.model.profile import DestinationScope, FrontendChoice, Method, Profile

CATCH_UP = 64
"""Times that one packet has the offload tell what passed: more than it can have to tell."""


class _Endpoint:
    """The SNAT port that a private UDP endpoint holds, and toward how many remotes."""

    __slots__ = ("flows", "pool", "port")

    def __init__(self, pool: Ports, port: int) -> None:
        self.pool = pool
        self.port = port
        self.flows = 0


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
        self._random = Random(seed)
        self._watch = watch
        self._high = profile.high_usage
        self._endpoints: dict[bytes, _Endpoint] = {}
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
    ) -> Flow | DropReason:
        """A flow for a VM's packet to outside; ``original`` has no live flow."""
        if self.table.is_full:
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
            held = self._take_port(machine, protocol, original, now)
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
    ) -> Flow | DropReason:
        """A flow for a packet from outside: to a VM's own public IP, one to one, or by a rule."""
        if self.table.is_full:
            return DropReason.FLOW_TABLE_FULL
        original = _arriving_at(reply, machine, listener)
        other = self.table.originals(protocol).get(original)
        if other is not None:
            if other.state not in ENDED:
                return DropReason.PRIVATE_ENDPOINT_IN_USE
            self.replace(other)
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
            reset=listener is not None and listener.tcp_reset,
        )

    def open_lateral(
        self,
        protocol: int,
        original: bytes,
        machine: Machine,
        judgements: tuple[Judgement, ...],
        now: float,
    ) -> Flow | DropReason:
        """A flow from one VM to another: watched, not translated."""
        if self.table.is_full:
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
            )
        )

    def _enter(self, flow: Flow, *, reset: bool = False) -> Flow:
        """``reset``: both ends are to get an RST if it idles out."""
        if reset and flow.protocol == TCP:
            flow.acknowledged = Acknowledged()
        self.table.add(flow)
        self.expiry.arm(flow, flow.created + flow.timeout)
        if flow.protocol == TCP and self.offload is not None:
            self.hand_over(flow)  # already: the answer to a SYN need not come here
        flow.machine.flows += 1
        if flow.pool is not None:
            self.connections.opened(flow.machine.name, flow.public, flow.protocol)
        if self.log is not None:
            self.log.opened(flow)
        return flow

    def hold_again(self, flow: Flow, pool: Ports) -> bool:
        """Hold the port that a flow of an earlier process held; False: it is not free."""
        port = flow.snat_port
        if not pool.take_again(self.destination(flow.protocol, flow.original), port):
            return False
        if flow.state in ENDED:
            pool.cooling += 1
        if flow.protocol == UDP and isinstance(pool, PortPool):
            key = flow.original[0:4] + flow.original[8:10]
            endpoint = self._endpoints.setdefault(key, _Endpoint(pool, port))
            if endpoint.pool is pool and endpoint.port == port:
                endpoint.flows += 1
        return True

    def replace(self, flow: Flow) -> None:
        """Make way for a new connection from the same endpoint; a held port stays held."""
        if flow.pool is None:
            self.end(flow)
        else:
            self.take_back(flow)
            self.table.detach_original(flow)

    def destination(self, protocol: int, original: bytes) -> bytes:
        """What makes a SNAT port reusable: the remote address, or address and port (A1)."""
        profile = self.profile
        scope = profile.tcp_destination if protocol == TCP else profile.udp_destination
        if scope is DestinationScope.ADDRESS or protocol == ICMP:
            return original[4:8]
        return original[4:8] + original[10:12]

    def _take_port(
        self, machine: Machine, protocol: int, original: bytes, now: float
    ) -> tuple[Allotment, int] | DropReason:
        destination = self.destination(protocol, original)
        allotments = [a for a in machine.allotments if protocol in a.pools]
        if machine.nat_gateway is not None:
            return self._take_shared(machine, protocol, original, now)
        if not allotments:
            return DropReason.DEFAULT_OUTBOUND_CAPACITY
        endpoint_key = original[0:4] + original[8:10]
        endpoint = self._endpoints.get(endpoint_key) if protocol == UDP else None
        if endpoint is not None:
            for allotment in allotments:
                pool = allotment.pools[protocol]
                if endpoint.pool is pool and pool.take_exactly(destination, endpoint.port):
                    endpoint.flows += 1
                    return allotment, endpoint.port
        if len(allotments) > 1 and self.profile.frontend_choice is FrontendChoice.RANDOM:
            self._random.shuffle(allotments)
        for allotment in allotments:
            pool = allotment.pools[protocol]
            if isinstance(pool, PortPool) and (port := pool.take(destination)):
                if protocol == UDP and endpoint is None:
                    endpoint = self._endpoints[endpoint_key] = _Endpoint(pool, port)
                    endpoint.flows = 1
                if self._high is not None and pool.used > self._high * pool.count:
                    self._watch.high(allotment, protocol, now)
                return allotment, port
        return self._no_port(allotments, protocol, original, now)

    def _take_shared(
        self, machine: Machine, protocol: int, original: bytes, now: float
    ) -> tuple[Allotment, int] | DropReason:
        """A port of a NAT gateway, on any of its public IPs."""
        if not machine.allotments:
            self.outbound.share(machine)
        allotments = [a for a in machine.allotments if protocol in a.pools]
        shares = [pool for a in allotments if isinstance(pool := a.pools[protocol], NatShare)]
        destination = self.destination(protocol, original)
        number = choose(shares, destination, self._random)
        if number < 0:
            refusal = self._no_port(allotments, protocol, original, now)
            self.outbound.forget(machine)
            return refusal
        return allotments[number], shares[number].take(destination, self._random)

    def _no_port(
        self, allotments: list[Allotment], protocol: int, original: bytes, now: float
    ) -> DropReason:
        for allotment in allotments:
            pool = allotment.pools[protocol]
            pool.failed += 1
            self.connections.failed(allotment.machine.name, pool.address, protocol)
            self._watch.exhausted(allotment, protocol, original, now)
        return DropReason.PORTS_EXHAUSTED

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
            port = flow.snat_port
            pool.release(self.destination(flow.protocol, flow.original), port)
            self._forget_port(flow, pool, port)
        self._leave(flow.machine)

    def _leave(self, machine: Machine) -> None:
        """A machine has a flow less."""
        machine.flows -= 1
        if not machine.named:
            self.outbound.forget(machine)

    def _forget_port(self, flow: Flow, pool: Ports, port: int) -> None:
        if flow.state in ENDED:
            pool.cooling -= 1
        if flow.protocol == UDP:
            key = flow.original[0:4] + flow.original[8:10]
            endpoint = self._endpoints.get(key)
            if endpoint is not None and endpoint.pool is pool and endpoint.port == port:
                endpoint.flows -= 1
                if not endpoint.flows:
                    del self._endpoints[key]

    # -- changes of the configuration

    def resize(self, resized: list[Resized], now: float) -> dict[int, int]:
        """Move pools to their new ports. Flows on ports that are gone break, silently (A6).

        Returns how many live flows broke, by position in ``resized``. The cost grows with all
        flows: it happens on reloads that move ports, and then only.
        """
        if not resized:
            return {}
        holders: dict[Ports, list[Flow]] = defaultdict(list)
        for flow in self.table:
            if flow.pool is not None:
                holders[flow.pool].append(flow)
        broken: dict[int, int] = defaultdict(int)
        for position, change in enumerate(resized):
            change.allotment.relocate(change.ranges)
            for pool in change.allotment.pools.values():
                for flow in holders.get(pool, ()):
                    destination = self.destination(flow.protocol, flow.original)
                    if pool.take_exactly(destination, flow.snat_port):
                        continue
                    broken[position] += flow.state not in ENDED
                    self._break(flow, pool)
        return broken

    def end_misplaced(self, gone: Collection[tuple[int, bytes]]) -> int:
        """End the flows whose instance-level public IP is no longer their VM's, or whose inbound
        rule is ``gone`` (keys of listeners), or the VM behind it; returns how many.

        Another VM may have the address now, or the port: two flows must not share a public tuple.
        """
        misplaced = [flow for flow in self.table if not self.is_in_place(flow, gone)]
        for flow in misplaced:
            self.end(flow)
        return len(misplaced)

    def end_outside(self, scope: AddressScope) -> int:
        """End the flows of private addresses that are in no subnet, and those between VMs of which
        one is out of the virtual network; returns how many.

        Nothing can be sent to such an address any more: they would go on in one direction only.
        """
        outside = [flow for flow in self.table if not _inside(flow, scope)]
        for flow in outside:
            self.end(flow)
        return sum(flow.state not in ENDED for flow in outside)

    def is_in_place(self, flow: Flow, gone: Collection[tuple[int, bytes]] = ()) -> bool:
        """Whether a flow's public IP, or its inbound rule, is still its VM's."""
        if flow.awaiting_removal or flow.method is Method.VIRTUAL_NETWORK:
            return True
        if flow.method in INBOUND_RULES:
            if (flow.protocol, flow.reply[4:8] + flow.reply[10:12]) in gone:
                return False
            return self.outbound.machines.get(flow.machine.address) is flow.machine
        public = self.outbound.addresses.get(flow.reply[4:8])
        if public is None:
            return False
        if flow.pool is not None:
            return public.instance_of is None
        return public.instance_of is flow.machine

    def endpoint_in_use(
        self, protocol: int, reply: bytes, machine: Machine, listener: Listener | None
    ) -> bool:
        """Whether ``open_inbound`` would refuse for a live flow at the same port of the VM."""
        other = self.table.originals(protocol).get(_arriving_at(reply, machine, listener))
        return other is not None and other.state not in ENDED

    def _break(self, flow: Flow, pool: Ports) -> None:
        self.take_back(flow)
        self._forget_port(flow, pool, flow.snat_port)
        flow.pool = flow.acknowledged = None  # the port, and a reset on it, may be another's now
        if flow.state in ENDED:
            self.expiry.disarm(flow)
            self.table.remove(flow)
            self._leave(flow.machine)
        else:
            self.table.reclaim(flow)


def _arriving_at(reply: bytes, machine: Machine, listener: Listener | None) -> bytes:
    """The original key of a flow that a packet from outside opens."""
    port = reply[10:12] if listener is None else listener.backend_port
    return machine.address + reply[0:4] + port + reply[8:10] + reply[12:]


def _inside(flow: Flow, scope: AddressScope) -> bool:
    if flow.original[0:4] not in scope.subnets:
        return False
    return flow.method is not Method.VIRTUAL_NETWORK or flow.original[4:8] in scope.virtual_network
