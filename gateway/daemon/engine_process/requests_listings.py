"""The engine process's answers to ``flows`` and ``ports``: listings of what changes all the time.
Runs in the engine process.

Each step is a slice of the flow table or of the port pools, so that a listing of everything holds
no packet up. It is no snapshot: a flow that ends meanwhile is missing or is there as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from gateway.daemon.channel.api_messages import Kind
from gateway.daemon.engine_process.requests import RequestHandler, Steps, in_slices, nothing
from gateway.schema.records import FlowRecord, PortRecord

FLOWS_PER_SLICE = 16
PORTS_PER_SLICE = 64


class Listable(Protocol):
    """What listings ask of the engine."""

    def flow_records(self, now: Callable[[], float], count: int) -> Iterator[list[FlowRecord]]:
        """The flow table, in slices of ``count``."""

    def port_records(self, now: float) -> Iterator[PortRecord | None]:
        """The SNAT ports of every VM; None where packets may come first."""


class ListingRequests:
    """Handlers about one engine. ``now`` gives the engine's time."""

    def __init__(self, engine: Listable, now: Callable[[], float]) -> None:
        self._engine = engine
        self._now = now
        self.handlers: Mapping[str, RequestHandler] = {
            "flows": in_slices(nothing, self._flows),
            "ports": in_slices(nothing, self._ports),
        }

    def _flows(self, _: None) -> Steps:
        for records in self._engine.flow_records(self._now, FLOWS_PER_SLICE):
            # marshal takes exact tuples only
            yield (Kind.PART, [tuple(record) for record in records]) if records else None
        yield Kind.END, None

    def _ports(self, _: None) -> Steps:
        part: list[tuple[Any, ...]] = []
        for record in self._engine.port_records(self._now()):
            if record is None:
                yield None
                continue
            part.append(tuple(record))
            if len(part) >= PORTS_PER_SLICE:
                yield Kind.PART, part
                part = []
        if part:
            yield Kind.PART, part
        yield Kind.END, None
