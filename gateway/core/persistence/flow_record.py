"""A flow as bytes: what is written down of it, so that another process can continue with it.

One record of fixed size for each slot of the flow table. A record is right or it is nothing: its
first field is a checksum of the others, so that one that was being written when the process was
killed is not taken for a flow. Times are the engine's.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from gateway.core.flows.flow import Flow
from gateway.core.flows.table import FlowTable
from gateway.core.flows.tcp import ENDED, State
from gateway.model.profile import Method
from gateway.schema.protocols import TCP, UDP

_RECORD = Struct("<IQ4B13s13s2xIddd10Q")
SIZE = _RECORD.size
EMPTY = bytes(SIZE)
"""The record of a slot without a flow."""
_INBOUND, _ORIGINAL, _REPLY, _RECLAIMED, _OFFLOADED, _TO_BE_RESET, _HOLDS_PORT = (
    1 << bit for bit in range(7)
)
# What a flow that was reclaimed, which is kept for the listing alone, no longer has.
_LIVE = _ORIGINAL | _REPLY | _OFFLOADED | _TO_BE_RESET | _HOLDS_PORT
_METHODS = tuple(Method)
_NUMBERS = {method: number for number, method in enumerate(_METHODS)}
_LATEST = float(1 << 53)  # seconds; beyond it clocks have no fractions
MOST = 1 << 63
"""A flow's number and its counters are less: they grow for ages until a record has no room."""

Seen = tuple[int, int, int, int]
"""What ``FastPathOffload`` has already added to a flow of the kernel's packets and bytes."""


class SavedFlow(NamedTuple):
    """A record, checked as far as it can be alone. Keys are a flow's own."""

    id: int
    protocol: int
    state: State
    method: Method
    original: bytes
    reply: bytes
    timeout: float
    created: float
    last_seen: float
    counters: Seen
    """Packets and bytes out, then in."""
    seen: Seen
    inbound: bool
    has_original: bool
    """It is what its original key leads to; else it only holds its port."""
    has_reply: bool
    reclaimed: bool
    offloaded: bool
    to_be_reset: bool
    holds_port: bool
    opening: int
    """The sequence number of a TCP flow's SYN; 0: not known."""
    acknowledged: tuple[int, int]
    """By the VM's side and by the remote's; 0: not known."""


def pack(flow: Flow, table: FlowTable, seen: Callable[[Flow], Seen]) -> bytes:
    """The record of a flow that is in ``table``."""
    protocol = flow.protocol
    index = table.index_of(flow.method)
    flags = (
        (_INBOUND if flow.inbound else 0)
        | (_ORIGINAL if index.originals(protocol).get(flow.original) is flow else 0)
        | (_REPLY if index.replies(protocol).get(flow.reply) is flow else 0)
        | (_RECLAIMED if flow.awaiting_removal else 0)
        | (_OFFLOADED if flow.offloaded else 0)
        | (_TO_BE_RESET if flow in table.to_be_reset else 0)
        | (_HOLDS_PORT if flow.pool is not None else 0)
    )
    record = _RECORD.pack(
        0,
        flow.id,
        protocol,
        flow.state,
        _NUMBERS[flow.method],
        flags,
        flow.original,
        flow.reply,
        table.numbers.opening[flow.slot],
        flow.timeout,
        flow.created,
        flow.last_seen,
        flow.packets_out,
        flow.bytes_out,
        flow.packets_in,
        flow.bytes_in,
        *(seen(flow) if flow.offloaded else (0, 0, 0, 0)),
        *_acknowledged(flow, table),
    )
    return crc32(record[4:]).to_bytes(4, "little") + record[4:]


def unpack(record: bytes) -> SavedFlow | None:
    """What ``pack`` made; None for anything else. Never raises."""
    if len(record) != SIZE or crc32(record[4:]).to_bytes(4, "little") != record[:4]:
        return None
    (_, number, protocol, state, method, flags, original, reply, *rest) = _RECORD.unpack(record)
    opening, timeout, created, last_seen, *counters = rest
    if not 0 < number < MOST or state not in _STATES or method >= len(_METHODS):
        return None
    if max(counters) >= MOST:
        return None
    if not all(isfinite(time) and abs(time) < _LATEST for time in (timeout, created, last_seen)):
        return None
    if timeout < 0.0 or (flags & _RECLAIMED and (flags & _LIVE or state in ENDED)):
        return None
    size = 12 if protocol in (TCP, UDP) else 13
    if size == 12 and (original[12] or reply[12]):
        return None
    return SavedFlow(
        number,
        protocol,
        State(state),
        _METHODS[method],
        original[:size],
        reply[:size],
        timeout,
        created,
        last_seen,
        (counters[0], counters[1], counters[2], counters[3]),
        (counters[4], counters[5], counters[6], counters[7]),
        bool(flags & _INBOUND),
        bool(flags & _ORIGINAL),
        bool(flags & _REPLY),
        bool(flags & _RECLAIMED),
        bool(flags & _OFFLOADED),
        bool(flags & _TO_BE_RESET),
        bool(flags & _HOLDS_PORT),
        opening,
        (_number(counters[8]), _number(counters[9])),
    )


def _acknowledged(flow: Flow, table: FlowTable) -> list[int]:
    """One more than the numbers, as ever; 0 stays 0."""
    return [number[flow.slot] and number[flow.slot] + 1 for number in table.numbers.acknowledged]


def _number(saved: int) -> int:
    return saved - 1 if 0 < saved <= 1 << 32 else 0


_STATES = frozenset(State)
