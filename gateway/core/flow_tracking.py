"""Connection tracking of a live flow: what its packets do to its state, here and when offloaded.

``tcp.py`` has the state table, ``sequence.py`` checks a segment's numbers. A retransmitted SYN
passes with its flow, whatever its state; only the SYN of another connection of the same tuple
(tuple reuse) ends it for a new flow.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.flows.expiry import Expiry
from gateway.core.flows.flow import Flow
from gateway.core.flows.offload import Offload
from gateway.core.flows.table import FlowTable
from gateway.core.flows.tcp import (
    ACK_FLAG,
    CLOSING,
    ENDED,
    RST_FLAG,
    SYN_FLAG,
    Side,
    State,
    is_opening,
)
from gateway.core.observe.flow_log import FlowLog
from gateway.core.snat.allocation_manager import AllocationManager
from gateway.core.snat.nat_gateway_pool import VmNatUsage
from gateway.core.snat.port_pool import Ports
from gateway.model.profile import Profile
from gateway.schema.protocols import TCP, UDP

_ORIGINAL, _REPLY, _OPENING = Side.ORIGINAL, Side.REPLY, State.OPENING

MAXIMUM_SEGMENT_LIFETIME = 120.0
"""Seconds that a segment can be under way (RFC 9293, 3.4.2). Linux' initial sequence numbers take
137 s for half a round, after which a newer one looks older."""
CATCH_UP = 64
"""Times that one packet has the offload report what passed: more than it can have to report."""


class Tracking:
    """Flows and their states."""

    def __init__(self, profile: Profile, table: FlowTable, outbound: AllocationManager) -> None:
        self.profile = profile
        self.table = table
        self.outbound = outbound
        self.expiry = Expiry()
        self.log: FlowLog | None = None
        self.offload: Offload | None = None
        self.watched: Callable[[Flow], bool] | None = None
        """Flows whose every packet a capture wants: they are not offloaded."""
        self._hold = {
            State.FIN_FROM_ORIGINAL: profile.fin_hold,
            State.FIN_FROM_REPLY: profile.fin_hold,
            State.FINISHED: profile.fin_hold,
            State.RESET: profile.rst_hold,
        }
        self._nat_hold: dict[State, float] = {}
        self.half_open_timeout = profile.idle_timeout
        if profile.nat_gateway is not None:
            terms = profile.nat_gateway
            self._nat_hold = {State.FINISHED: terms.fin_hold, State.RESET: terms.rst_hold}
            self.half_open_timeout = terms.half_open_timeout

    def track(
        self, flow: Flow, side: Side, flags: int, now: float, numbers: tuple[int, int] = (0, 0)
    ) -> None:
        """Account for a packet's effect on its flow's state.

        ``flags`` are TCP's, else 0; ``numbers`` its sequence and acknowledgement.
        """
        state = flow.state
        if state is not State.RESET:
            flow.last_seen = now
        if flow.protocol != TCP:
            # A reply to an inbound datagram takes the short way, and is seen with the next one.
            answered = flow.inbound and flow.packets_out and flow.packets_in
            if (side is Side.REPLY) is not flow.inbound or answered:
                flow.answer()
            return
        opener = _REPLY if flow.inbound else _ORIGINAL
        if is_opening(flags):
            self.table.traffic.syn(flow, side)
            if side is opener:
                self._open_again(flow, side, numbers[0], now)
        elif self._counts(flow, side, flags, numbers, opener):
            self._move(flow, side, flags, now)

    def _counts(
        self, flow: Flow, side: Side, flags: int, numbers: tuple[int, int], opener: Side
    ) -> bool:
        """Whether a segment may change its flow's state: not where its numbers are of another
        connection, or to none."""
        known = self.table.numbers
        if flow.offloaded and flags & RST_FLAG:
            self._catch_up()
            self._learn(flow)
        if flow.state is not State.OPENING:
            return known.counts(flow.slot, side, flags, numbers)
        if side is not opener:
            return known.answers(flow.slot, side, flags, numbers)
        # It has taken an answer that did not seem one: it knows which of its SYNs it was to.
        answered = flow.packets_out if flow.inbound else flow.packets_in
        if answered and flags & (SYN_FLAG | RST_FLAG | ACK_FLAG) == ACK_FLAG:
            known.settle(flow.slot, side, numbers)
            self._move(flow, Side(side ^ 1), ACK_FLAG, flow.last_seen)
        return known.counts(flow.slot, side, flags, numbers)

    def _move(self, flow: Flow, side: Side, flags: int, now: float) -> None:
        """Change the flow's state as the table has it."""
        state = flow.state
        following = flow.follow_segment(side, flags)
        if following is None:
            return
        self.table.touch(flow)
        pool = flow.pool
        if isinstance(pool, VmNatUsage):
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

    # -- SYNs

    def is_tuple_reuse(
        self, flow: Flow, side: Side, flags: int, sequence: int | None, now: float = 0.0
    ) -> bool:
        """Whether a segment begins another connection between the endpoints of a flow that ended.

        A SYN with the number of the flow's own is that one repeated, however late. From outside one
        can begin only where no port was translated. ``sequence`` None: of a connection to come.
        """
        if flow.protocol != TCP or not is_opening(flags):
            return False
        if side is not Side.ORIGINAL and flow.pool is not None:
            return False
        if flow.offloaded:
            self._catch_up()  # what closed it may have passed elsewhere a moment ago
        state = flow.state
        if (side is Side.REPLY) is not flow.inbound:
            return state in ENDED  # by the side that had answered
        known = self.table.numbers.opening[flow.slot]
        if known and sequence == known:
            return state is State.RESET and flow.pool is None
        if state not in CLOSING:
            return state in ENDED
        # One side has not closed. A SYN from before this connection must not cost it its flow; but
        # none is under way for so long, and by then the numbers may have come half round.
        if not known or sequence is None or now - flow.created > MAXIMUM_SEGMENT_LIFETIME:
            return True
        return self.table.numbers.is_newer(flow.slot, sequence)

    def _open_again(self, flow: Flow, side: Side, sequence: int, now: float) -> None:
        """A SYN of the flow: its first, the same again, or another that takes its place."""
        numbers = self.table.numbers
        known = numbers.opening[flow.slot]
        if not known and flow.state is _OPENING and not flow.offloaded:
            numbers.open(flow.slot, side, sequence)
            if self.offload is not None:
                # Already: the answer to a SYN need not come here, and nothing else is under way.
                self.hand_over(flow, waits=False)
            return
        if flow.state is State.ESTABLISHED:
            if sequence != known:
                # Its sender has forgotten the connection, and what it expected. The remote resets
                # it, or has forgotten, too, and answers or resets.
                self.take_back(flow)
                numbers.open_again(flow.slot, side, sequence)
                self.hand_over(flow)
            return
        if flow.state is State.RESET and flow.pool is not None:
            self._revive(flow, flow.pool, now)
        elif flow.state is not State.OPENING or (known and sequence == known):
            return
        self.take_back(flow)
        numbers.open(flow.slot, side, sequence)
        self.hand_over(flow)

    def _revive(self, flow: Flow, pool: Ports, now: float) -> None:
        """The SYN of a flow that was reset comes again: the RST was of an older connection, or it
        was lost. The flow begins again on its port."""
        pool.cooling -= 1
        flow.reopen()
        flow.timeout = self._idle_timeout(flow, pool)
        flow.last_seen = now
        self.expiry.arm(flow, now + flow.timeout)
        self.table.touch(flow)
        if self.log is not None:
            self.log.reopened(flow, now)

    def _idle_timeout(self, flow: Flow, pool: Ports) -> float:
        """What a flow has that opens on a port of the pool."""
        if isinstance(pool, VmNatUsage):
            return min(pool.idle_timeout, self.half_open_timeout)
        for allocation in flow.machine.allocations:
            if allocation.pools.get(flow.protocol) is pool:
                return allocation.flow_policy.idle_timeout
        return self.profile.idle_timeout

    # -- flows whose packets pass elsewhere

    def hand_over(self, flow: Flow, *, waits: bool = True) -> None:
        """Offload a flow: its packets bypass the engine from now on, where the fast path can take
        it.

        ``waits``: once those that are on their way here have passed.
        A hairpin is two flows for each packet: both stay here.
        """
        offload = self.offload
        if offload is None or flow.offloaded or flow.protocol not in (TCP, UDP):
            return
        if self.watched is not None and self.watched(flow):
            return
        if flow in self.table.to_be_reset:
            return  # its acknowledgements are to be seen
        index = self.table.index_of(flow.method)
        if index.originals(flow.protocol).get(flow.original) is not flow:
            return  # what the VM sends is another flow's
        if flow.original[4:8] in self.outbound.addresses:
            return
        if offload.install(flow, self.table.numbers.of(flow.slot), waits=waits):
            flow.offloaded = True
            self.table.touch(flow)

    def take_back(self, flow: Flow) -> None:
        """See a flow's packets again; its counters are up to date after this."""
        if flow.offloaded and self.offload is not None:
            self.fold(flow)
            self._learn(flow)
            self.offload.remove(flow)
            flow.offloaded = False

    def fold(self, flow: Flow) -> None:
        """Bring an offloaded flow's counters and times up to date."""
        carried = None if self.offload is None else self.offload.carried(flow)
        if carried is None:
            return
        flow.packets_out += carried.packets_out
        flow.bytes_out += carried.bytes_out
        flow.packets_in += carried.packets_in
        flow.bytes_in += carried.bytes_in
        if flow.protocol != TCP and (carried.packets_out if flow.inbound else carried.packets_in):
            flow.answer()
        if flow.state is not State.RESET:  # what follows an RST extends nothing
            flow.last_seen = max(flow.last_seen, carried.last_seen)

    def _learn(self, flow: Flow) -> None:
        """Know what an offloaded flow's sides have acknowledged."""
        if self.offload is not None and flow.protocol == TCP:
            self.table.numbers.learn(flow.slot, self.offload.acknowledged(flow))

    def on_offloaded_segment(
        self, slot: int, flow_id: int, side: Side, flags: int, now: float
    ) -> None:
        """A SYN-ACK, FIN or RST of an offloaded flow passed at ``now``."""
        flow = self.table.at(slot)
        if flow is not None and flow.id == flow_id and flow.offloaded:
            if self.log is not None:
                self.fold(flow)  # what a flow had when it closed is written down
            if flow.state is not State.RESET:
                flow.last_seen = now
            self._move(flow, side, flags, now)

    def _catch_up(self) -> None:
        if self.offload is not None:
            for _ in range(CATCH_UP):
                if not self.offload.report(self):
                    break
