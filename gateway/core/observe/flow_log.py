"""What flow logs record of flows: begun, continued, ended, denied; as data, whatever their format.

Exists only while flow logs are on: otherwise a hook costs the question whether there is one. No
packet costs anything here. A flow has a ``_Watch`` from its opening to its end, with what was last
recorded of its counters; watches stand in the order in which they fall due, since each waits
equally long, so that a tick costs only as much as is due.

Everything is bounded: the entries that wait to be taken, and the denials recorded in an interval.
What is over the bound is counted (``lost``, ``denials_not_logged``).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

from gateway.core.flows.flow import Flow
from gateway.core.packet.view import PacketView
from gateway.core.policy.address_scope import Prefixes
from gateway.core.policy.nsg import RuleMatch
from gateway.model.profile import Method
from gateway.schema.protocols import TCP, UDP

CONTINUE_INTERVAL = 300.0
"""Azure seconds between two C entries of a flow (NSG and VNet flow logs overviews)."""
CLOSE_GRACE = 10.0
"""Azure seconds from a FIN of both sides, or an RST, to the E entry: its last packets count."""
DENIAL_INTERVAL = 60.0
"""Azure seconds in which a five-tuple is recorded as denied once."""
MAXIMUM_DENIALS = 4_096
"""Five-tuples recorded as denied in ``DENIAL_INTERVAL``."""
MAXIMUM_LOOKED_AT = 128
"""Flows recorded in one tick: half a millisecond."""
MAXIMUM_WAITING = 65_536
"""Entries that wait to be taken."""

BEGIN, CONTINUE, END, DENY = "B", "C", "E", "D"


class FlowLogEntry(NamedTuple):
    """One line of a flow log, seen from one VM's interface; ``source`` opened the flow.

    Counters are of IP packets and bytes since the last entry of the flow; "sent" is from the source
    to the destination. Ports are 0 where the protocol has none.
    """

    time: float
    state: str
    protocol: int
    inbound: bool
    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    group: str | None
    """None, and ``rule`` as well: no network security group stands there."""
    rule: str | None
    default: bool
    packets_sent: int
    bytes_sent: int
    packets_received: int
    bytes_received: int


_Seen = tuple[int, bool, bytes, int, bytes, int]
"""A flow from one interface: protocol, whether inbound, source and its port, destination's."""


class _Watch:
    """A flow's next entry, and its counters in the last one."""

    __slots__ = ("bytes_in", "bytes_out", "due", "ended", "packets_in", "packets_out")

    def __init__(self, due: float) -> None:
        self.due = due
        self.ended = 0.0
        self.packets_out = 0
        self.bytes_out = 0
        self.packets_in = 0
        self.bytes_in = 0


class FlowLog:
    """Collects entries until they are taken. ``everything``: also flows that no group evaluated."""

    def __init__(self, subnets: Prefixes, *, everything: bool, waiting: int = MAXIMUM_WAITING):
        self.subnets = subnets
        self.everything = everything
        self.lost = 0
        self.denials_not_logged = 0
        self.now = 0.0
        self.fold: Callable[[Flow], None] = lambda flow: None
        """What brings an offloaded flow's counters up to date."""
        self._maximum = waiting
        self._entries: deque[FlowLogEntry] = deque()
        self._live: OrderedDict[Flow, _Watch] = OrderedDict()
        self._closing: OrderedDict[Flow, _Watch] = OrderedDict()
        self._denied: set[_Seen] = set()
        self._denied_until = 0.0

    def __len__(self) -> int:
        """Entries that wait."""
        return len(self._entries)

    def take(self, limit: int) -> list[FlowLogEntry]:
        """At most ``limit`` entries, the oldest first."""
        entries = self._entries
        return [entries.popleft() for _ in range(min(limit, len(entries)))]

    # -- what happens to flows

    def opened(self, flow: Flow) -> None:
        """A flow began; it has no packets yet."""
        if not self.everything and not (flow.rule_matches and flow.protocol in (TCP, UDP)):
            return
        self._live[flow] = watch = _Watch(flow.created + CONTINUE_INTERVAL)
        self._tell(flow, watch, BEGIN, flow.created)

    def resumed(self, flow: Flow, now: float) -> None:
        """A flow of an earlier process continues; that one has logged its beginning."""
        if self.everything or (flow.rule_matches and flow.protocol in (TCP, UDP)):
            self._live[flow] = watch = _Watch(now + CONTINUE_INTERVAL)
            watch.packets_out, watch.bytes_out = flow.packets_out, flow.bytes_out
            watch.packets_in, watch.bytes_in = flow.packets_in, flow.bytes_in

    def closed(self, flow: Flow, now: float) -> None:
        """Both sides, or an RST, ended a flow; packets that are under way still belong to it."""
        watch = self._live.pop(flow, None)
        if watch is not None:
            watch.ended = now
            watch.due = now + CLOSE_GRACE
            self._closing[flow] = watch

    def reopened(self, flow: Flow, now: float) -> None:
        """A flow that an RST had ended continues."""
        watch = self._closing.pop(flow, None)
        if watch is None:  # its end was recorded
            self.resumed(flow, now)
        else:
            watch.due = now + CONTINUE_INTERVAL
            self._live[flow] = watch

    def forgotten(self, flow: Flow) -> None:
        """A flow left the table: its time was over, or it was ended."""
        watch = self._closing.pop(flow, None)
        if watch is not None:
            self._tell(flow, watch, END, watch.ended)
            return
        watch = self._live.pop(flow, None)
        if watch is not None:
            # What timed out did so then, though no tick may have come until now.
            ended = min(self.now, flow.last_seen + flow.timeout)
            self._tell(flow, watch, END, max(ended, flow.last_seen))

    def leave(self) -> None:
        """The process ends, and another may continue the flows: record what is new of them, which
        that one does not know of."""
        for flow, watch in self._closing.items():
            self._tell(flow, watch, END, watch.ended)
        self._closing.clear()
        for flow, watch in self._live.items():
            if flow.offloaded:
                self.fold(flow)
            if watch.packets_out != flow.packets_out or watch.packets_in != flow.packets_in:
                self._tell(flow, watch, CONTINUE, self.now)

    def denied(
        self,
        view: PacketView,
        destination: bytes,
        port: bytes | None,
        rule_match: RuleMatch,
        now: float,
    ) -> None:
        """A rule denied a packet that would have opened a flow to ``destination``, a private one
        where the packet came from outside, and to ``port`` there (None: the packet's own)."""
        ported = view.protocol in (TCP, UDP)
        if not self.everything and not ported:
            return
        own = view.ports if port is None else view.ports[0:2] + port
        ports = int.from_bytes(own, "big") if ported else 0
        inbound = rule_match.rule.direction == "Inbound"
        key: _Seen = (view.protocol, inbound, view.source, ports >> 16, destination, ports & 0xFFFF)
        if now >= self._denied_until:
            self._denied.clear()
            self._denied_until = now + DENIAL_INTERVAL
        if key in self._denied:
            return
        if len(self._denied) >= MAXIMUM_DENIALS:
            self.denials_not_logged += 1
            return
        self._denied.add(key)
        if len(self._entries) >= self._maximum:
            self.lost += 1
            return
        group, rule = rule_match.group, rule_match.rule
        self._entries.append(
            FlowLogEntry(now, DENY, *key, group, rule.name, rule.default, 0, 0, 0, 0)
        )

    def look(self, now: float, limit: int) -> None:
        """Record what has fallen due, of ``limit`` flows at most and ``MAXIMUM_LOOKED_AT``."""
        limit = min(limit, MAXIMUM_LOOKED_AT)
        while limit and self._closing:
            flow = next(iter(self._closing))
            if self._closing[flow].due > now:
                break
            watch = self._closing.pop(flow)
            self._tell(flow, watch, END, watch.ended)
            limit -= 1
        while limit and self._live:
            flow = next(iter(self._live))
            watch = self._live[flow]
            if watch.due > now:
                break
            watch.due += CONTINUE_INTERVAL
            if watch.due <= now:  # the clock jumped
                watch.due = now + CONTINUE_INTERVAL
            self._live.move_to_end(flow)
            if flow.offloaded:
                self.fold(flow)
            if flow.last_seen + flow.timeout > now:  # else it is about to end
                self._tell(flow, watch, CONTINUE, now)
            limit -= 1

    # -- entries

    def _tell(self, flow: Flow, watch: _Watch, state: str, time: float) -> None:
        """An entry for each interface that the flow passes, with what is new of its counters."""
        if len(self._entries) + 2 > self._maximum:
            self.lost += 1  # its counters go into the next entry
            return
        if flow.offloaded:
            self.fold(flow)
        sent = (flow.packets_out - watch.packets_out, flow.bytes_out - watch.bytes_out)
        received = (flow.packets_in - watch.packets_in, flow.bytes_in - watch.bytes_in)
        watch.packets_out, watch.bytes_out = flow.packets_out, flow.bytes_out
        watch.packets_in, watch.bytes_in = flow.packets_in, flow.bytes_in
        key, protocol = flow.original, flow.protocol
        ports = int.from_bytes(key[8:12], "big") if protocol in (TCP, UDP) else 0
        near, far = (key[0:4], ports >> 16), (key[4:8], ports & 0xFFFF)
        if flow.inbound:
            from_outside = (protocol, True, *far, *near)
            self._side(time, state, from_outside, flow.rule_matches, received + sent)
            return
        self._side(time, state, (protocol, False, *near, *far), flow.rule_matches, sent + received)
        if flow.method is Method.VIRTUAL_NETWORK and far[0] in self.subnets:
            inward = (protocol, True, *near, *far)
            self._side(time, state, inward, flow.rule_matches, sent + received)

    def _side(
        self,
        time: float,
        state: str,
        seen: _Seen,
        rule_matches: tuple[RuleMatch, ...],
        counters: tuple[int, int, int, int],
    ) -> None:
        """One interface's entry: the last group that evaluated it there logs it."""
        direction = "Inbound" if seen[1] else "Outbound"
        own = [each for each in rule_matches if each.rule.direction == direction]
        if own:
            group, rule = own[-1].group, own[-1].rule
            entry = FlowLogEntry(time, state, *seen, group, rule.name, rule.default, *counters)
        elif self.everything:
            entry = FlowLogEntry(time, state, *seen, None, None, False, *counters)
        else:
            return
        self._entries.append(entry)
