"""Counts among the engine's drops what is dropped where the engine does not see it.
Runs in the engine process.

The gateway's own netfilter rules, the fast path and the packet queue drop
packets and keep a number of them: it is asked for about once a second, and at once when a capture
begins or ends. ``guard_monitor.py`` does the same for the guard. Numbers count from the start of
the gateway on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from gateway.core.observe.drop_counters import DropCounters
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.datapath.fastpath import FastPath
from gateway.datapath.queue import QueueStatistics
from gateway.schema.drop_reasons import DropReason


class _Diverted(Protocol):
    def dropped_by_rules(self) -> Mapping[DropReason, int]: ...


class _Queue(Protocol):
    def statistics(self) -> QueueStatistics: ...


class DropMonitor:
    """The kernel's drops of one gateway. ``fast_path``: it, or why there is none."""

    def __init__(
        self,
        diverted: _Diverted,
        queue: _Queue,
        fast_path: FastPath | str,
        drops: DropCounters,
    ) -> None:
        self._diverted = diverted
        self._fast_path = None if isinstance(fast_path, str) else fast_path
        self._drops = drops
        self._queue = queue
        self._before: dict[tuple[str, DropReason], int] = {}
        if self._fast_path is not None:  # maps may be an earlier daemon's
            self._before["fast path", DropReason.HELD_BACK] = self._fast_path.held_back

    def register(self, loop: EventLoop) -> None:
        """Count about once a second."""
        loop.every(1.0, lambda real: self.tick())

    def tick(self) -> None:
        """Count what has been dropped since the last look."""
        for where, reason, total, report in self._totals():
            before = self._before.get((where, reason), 0)
            self._before[where, reason] = total
            if total > before:
                self._drops.count_unseen(reason, total - before, report=report)

    def count_quietly(self, reason: DropReason, packets: int) -> None:
        """Count what another event reports."""
        self._drops.count_unseen(reason, packets, report=False)

    def _totals(self) -> Iterator[tuple[str, DropReason, int, bool]]:
        """Where, why, how many, and whether no other event reports it."""
        for reason, total in self._diverted.dropped_by_rules().items():
            yield "rules", reason, total, True
        if self._fast_path is not None:
            yield "fast path", DropReason.HELD_BACK, self._fast_path.held_back, True
        statistics = self._queue.statistics()
        yield "queue", DropReason.QUEUE_OVERFLOW, statistics.lost, False  # QueueOverflow
        errors = statistics.handler_errors
        yield "queue", DropReason.INTERNAL_ERROR, errors, False  # HandlerError
