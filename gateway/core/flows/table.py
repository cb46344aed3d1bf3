"""All live flows: found by their two keys, walked by slots, at most so many.

Each protocol has one dict of original keys and one of reply keys, as conntrack has one table of
both directions' tuples: a packet is one look-up in one of them. A flow keeps its slot (a number)
for life, so that listings, counters and records on disk can name it. It decides nothing: which
flow may be opened, and when one ends, is ``flow_opening.py``'s and ``expiry.py``'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from gateway.core.flows.counters import Traffic
from gateway.core.flows.flow import Flow
from gateway.core.flows.sequence import Numbers
from gateway.model.profile import Method
from gateway.schema.protocols import TCP, UDP


class Lookup(Protocol):
    """Flows by one key."""

    def get(self, key: bytes, /) -> Flow | None:
        """The flow with this key."""


class FlowLookup(Protocol):
    """Flows by both keys; of them there may be more than one index."""

    def originals(self, protocol: int) -> Lookup:
        """By original key."""

    def replies(self, protocol: int) -> Lookup:
        """By reply key."""


class FlowIndex:
    """Flows by original key and by reply key."""

    def __init__(self) -> None:
        self.tcp_original: dict[bytes, Flow] = {}
        self.tcp_reply: dict[bytes, Flow] = {}
        self.udp_original: dict[bytes, Flow] = {}
        self.udp_reply: dict[bytes, Flow] = {}
        self.other_original: dict[bytes, Flow] = {}
        self.other_reply: dict[bytes, Flow] = {}

    def originals(self, protocol: int) -> dict[bytes, Flow]:
        """The flows of ``protocol`` by original key."""
        if protocol == TCP:
            return self.tcp_original
        return self.udp_original if protocol == UDP else self.other_original

    def replies(self, protocol: int) -> dict[bytes, Flow]:
        """The flows of ``protocol`` by reply key."""
        if protocol == TCP:
            return self.tcp_reply
        return self.udp_reply if protocol == UDP else self.other_reply


class FlowTable(FlowIndex):
    """All flows, by original key, by reply key and by slot; at most ``maximum`` of them.

    Its own index is of the flows that are translated. Those between VMs, which are not, have
    another, ``lateral``: no packet that leaves or arrives by the outside interface finds one.
    """

    def __init__(self, maximum: int) -> None:
        super().__init__()
        self.lateral = FlowIndex()
        self.maximum = maximum
        self.traffic = Traffic()
        self.numbers = Numbers()
        self.to_be_reset: set[Flow] = set()
        """Whose ends get an RST when they idle out."""
        # Flows whose port was taken back, by original key and protocol: kept for the listing only.
        self.reclaimed: dict[tuple[int, bytes], Flow] = {}
        self.touched: set[int] | None = None
        """Slots whose flow is another one or has changed, for who writes flows down and takes them
        out again; None: none does."""
        # Slots let ``walk`` go through the table in slices while it changes.
        self._slots: list[Flow | None] = []
        self._free_slots: list[int] = []
        self._opened = 0

    def __len__(self) -> int:
        return len(self._slots) - len(self._free_slots)

    def __iter__(self) -> Iterator[Flow]:
        return (flow for flow in self._slots if flow is not None)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for a new flow."""
        return len(self) >= self.maximum

    @property
    def opened(self) -> int:
        """Flows ever opened."""
        return self._opened

    def index_of(self, method: Method) -> FlowIndex:
        """Where flows with this method are found."""
        return self.lateral if method is Method.VIRTUAL_NETWORK else self

    def add(self, flow: Flow) -> None:
        """Enter a flow under both keys, the reply first: two flows never share a public 5-tuple.

        The caller has made sure of room (``is_full``) and of an original key
        that no flow has.
        """
        index = self.index_of(flow.method)
        holder = index.replies(flow.protocol).setdefault(flow.reply, flow)
        if holder is not flow:
            raise AssertionError(f"two flows on one public tuple: {flow.reply.hex()}")
        index.originals(flow.protocol)[flow.original] = flow
        self._opened += 1
        flow.id = self._opened
        if self._free_slots:
            flow.slot = self._free_slots.pop()
            self._slots[flow.slot] = flow
            self.numbers.forget(flow.slot)
        else:
            flow.slot = len(self._slots)
            self._slots.append(flow)
            if flow.slot >= len(self.numbers.opening):
                self.numbers.make_room(flow.slot + 1)
        self.touch(flow)

    def touch(self, flow: Flow) -> None:
        """Note that a flow has changed."""
        if self.touched is not None:
            self.touched.add(flow.slot)

    def put_back(self, flow: Flow, slot: int, *, original: bool, reply: bool) -> None:
        """Enter a flow of an earlier process into its slot; slots come in ascending order.

        ``original``, ``reply``: under which keys, which no flow has, packets find it.
        """
        index = self.index_of(flow.method)
        if original:
            index.originals(flow.protocol)[flow.original] = flow
        if reply:
            index.replies(flow.protocol)[flow.reply] = flow
        if flow.awaiting_removal:
            self.reclaimed[flow.protocol, flow.original] = flow
        skipped = range(len(self._slots), slot)
        self._free_slots.extend(skipped)
        self._slots.extend([None] * len(skipped))
        self.numbers.make_room(slot + 1)
        self._slots.append(flow)
        flow.slot = slot

    def go_on_from(self, opened: int) -> None:
        """Number flows from here on."""
        self._opened = max(self._opened, opened)

    def detach_original(self, flow: Flow) -> None:
        """Let another flow have the original key; this one only holds its port from now on."""
        originals = self.index_of(flow.method).originals(flow.protocol)
        if originals.get(flow.original) is flow:
            del originals[flow.original]
            self.touch(flow)

    def attach_original(self, flow: Flow) -> None:
        """Give a detached flow its original key back; no other may have it."""
        self.originals(flow.protocol)[flow.original] = flow
        self.touch(flow)

    def detach_reply(self, flow: Flow) -> None:
        """Let another flow have the public 5-tuple."""
        replies = self.index_of(flow.method).replies(flow.protocol)
        if replies.get(flow.reply) is flow:
            del replies[flow.reply]
            self.touch(flow)

    def reclaim(self, flow: Flow) -> None:
        """Keep a flow for the listing alone: no packet finds it any more."""
        self.detach_original(flow)
        self.detach_reply(flow)
        flow.awaiting_removal = True
        self.reclaimed[flow.protocol, flow.original] = flow

    def remove(self, flow: Flow) -> None:
        """Forget a flow."""
        self.detach_original(flow)
        self.detach_reply(flow)
        if flow.awaiting_removal and self.reclaimed.get((flow.protocol, flow.original)) is flow:
            del self.reclaimed[flow.protocol, flow.original]
        self.traffic.ended(flow)
        if self.to_be_reset:
            self.to_be_reset.discard(flow)
        self.touch(flow)
        self._slots[flow.slot] = None
        self._free_slots.append(flow.slot)
        flow.slot = -1

    def at(self, slot: int) -> Flow | None:
        """The flow in a slot."""
        return self._slots[slot] if slot < len(self._slots) else None

    def walk(self, count: int) -> Iterator[tuple[int, list[Flow]]]:
        """All flows, those of ``count`` slots at a time, while the table changes between slices.

        Yields the slice's first slot and its flows. A flow that is there from the beginning of the
        walk to its end is met exactly once; one that comes or goes meanwhile once or not at all.
        An empty table is one empty slice, so that each walk pauses at least once.
        """
        first = 0
        while True:
            yield first, [flow for flow in self._slots[first : first + count] if flow is not None]
            first += count
            if first >= len(self._slots):
                return
