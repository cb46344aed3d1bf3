"""A dry run: what would become of a packet, with nothing opened, counted or taken.

A packet's path (``pipeline.py``) is walked over a ``DryRun`` instead of the flows' lifecycle. Its
flows are opened by the same code (``flow_opening.py``), on the ports that the allocator would give,
and known to nothing else: the second half of a hairpin finds what the first half would have left.
"""

from __future__ import annotations

from gateway.core.flow_lifecycle import FlowLifecycle
from gateway.core.flow_opening import Opening
from gateway.core.flows.flow import Flow
from gateway.core.flows.table import FlowTable, Lookup
from gateway.core.flows.tcp import Side
from gateway.core.port_selection import PortAllocator
from gateway.core.snat.allocations import PortAllocation, Vm
from gateway.schema.drop_reasons import DropReason

_Changes = dict[tuple[int, bytes], Flow | None]


class DryTable:
    """A flow table as it would be."""

    def __init__(self, table: FlowTable) -> None:
        self._table = table
        self._originals: _Changes = {}
        self._replies: _Changes = {}
        self._more = 0
        self.lateral = table.lateral  # one flow a packet: nothing looks there again
        self.maximum = table.maximum

    def __len__(self) -> int:
        return len(self._table) + self._more

    def originals(self, protocol: int) -> Lookup:
        """The flows of ``protocol`` by original key."""
        return _Changed(self._table.originals(protocol), self._originals, protocol)

    def replies(self, protocol: int) -> Lookup:
        """The flows of ``protocol`` by reply key."""
        return _Changed(self._table.replies(protocol), self._replies, protocol)

    def add(self, flow: Flow) -> None:
        """Enter a flow under both keys."""
        self._originals[flow.protocol, flow.original] = flow
        self._replies[flow.protocol, flow.reply] = flow
        self._more += 1

    def supersede(self, flow: Flow) -> None:
        """A flow makes way for another; one that holds a port goes on holding it."""
        self.detach_original(flow)
        if flow.pool is None and self.replies(flow.protocol).get(flow.reply) is flow:
            self._replies[flow.protocol, flow.reply] = None
            self._more -= 1

    def detach_original(self, flow: Flow) -> None:
        """Let another flow have the original key."""
        if self.originals(flow.protocol).get(flow.original) is flow:
            self._originals[flow.protocol, flow.original] = None


class _Changed:
    """Flows by one key, with changes."""

    def __init__(self, flows: Lookup, changes: _Changes, protocol: int) -> None:
        self._flows = flows
        self._changes = changes
        self._protocol = protocol

    def get(self, key: bytes, /) -> Flow | None:
        """The flow with this key."""
        if (self._protocol, key) in self._changes:
            return self._changes[self._protocol, key]
        return self._flows.get(key)


class _DryAllocator:
    """Says which port a flow would get."""

    def __init__(self, allocator: PortAllocator) -> None:
        self._allocator = allocator

    def take(
        self, machine: Vm, protocol: int, original: bytes, _now: float, /
    ) -> tuple[PortAllocation, int] | DropReason:
        """The port that would be held."""
        return self._allocator.foreseen(machine, protocol, original)


class DryRun(Opening[DryTable]):
    """Stands for a ``FlowLifecycle``, which it does not change.

    ``counts``: security rules count their hits all the same. ``to_come``: a SYN is that of a
    connection to come, whatever its number.
    """

    opens = False

    def __init__(
        self, lifecycle: FlowLifecycle, *, counts: bool = False, to_come: bool = False
    ) -> None:
        self.profile = lifecycle.profile
        self.half_open_timeout = lifecycle.half_open_timeout
        self.counts = counts
        self.table = DryTable(lifecycle.table)
        self.allocator = _DryAllocator(lifecycle.allocator)
        self._to_come = to_come
        self._lifecycle = lifecycle

    def enter(
        self,
        flow: Flow,
        superseded: Flow | None,
        other: Flow | None = None,
        *,
        reset: bool = False,  # noqa: ARG002
    ) -> Flow:
        """Know the flow in this run alone."""
        for ended in (superseded, other):
            if ended is not None:
                self.table.supersede(ended)
        self.table.add(flow)
        return flow

    def step_back(self, flow: Flow) -> None:
        """It would leave the VM's endpoint to another flow."""
        self.table.detach_original(flow)

    def is_tuple_reuse(self, flow: Flow, side: Side, flags: int, sequence: int, now: float) -> bool:
        """As the lifecycle has it, which first learns what passed elsewhere."""
        number = None if self._to_come else sequence
        return self._lifecycle.is_tuple_reuse(flow, side, flags, number, now)

    def track(
        self, flow: Flow, side: Side, flags: int, now: float, numbers: tuple[int, int]
    ) -> None:
        """Nothing changes."""

    def answer_by(self, flow: Flow) -> None:
        """Nothing changes."""
