"""Packets that are dropped: counted by reason, and sampled into events.

``drop`` is called for each dropped packet and is the verdict as well. The first of a kind (reason,
VM, rule) makes an event at once, those after it one an interval, with their count; kinds are
bounded. What was dropped outside the engine, by the datapath's rules, is only a number here. It
does not know why a packet is dropped, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Protocol

from gateway.core.events import Event, EventThrottle, FlowTableFull, PacketsDropped
from gateway.schema.drop_reasons import DropReason

EVENT_INTERVAL = 60.0  # seconds; drops of one kind make at most one event in it

_Kind = tuple[DropReason, str | None, str | None]  # VM, "group/rule"
_Detail = tuple[int, bytes, bytes]  # protocol, source, remote
Told = Callable[[DropReason, str | None, str | None], None]
"""Takes reason, VM and rule."""


class _Drop(Protocol):
    def __call__(
        self, reason: DropReason, packet: bytes, vm: str | None = None, rule: str | None = None
    ) -> bytes | None: ...


class DropCounters:
    """``drop`` is the verdict on a packet. ``maximum`` bounds the kinds distinguished at a time."""

    def __init__(self, maximum: int, report: Callable[[Event], None]) -> None:
        self.now = 0.0
        """The time of the packet that is being handled."""
        self.drop: _Drop = self._drop  # an observer wraps it
        self._report = report
        self._counts = dict.fromkeys(DropReason, 0)
        self._sampler = EventThrottle[_Kind, _Detail](EVENT_INTERVAL, maximum)
        self._unseen = dict.fromkeys(DropReason, 0)
        self._unseen_sampler = EventThrottle[DropReason, None](EVENT_INTERVAL, len(DropReason))

    @property
    def counts(self) -> dict[str, int]:
        """Packets by reason, of reasons that there were."""
        return {reason.value: count for reason, count in self._counts.items() if count}

    @property
    def unsampled(self) -> int:
        """Packets that found no room among the kinds."""
        return self._sampler.unsampled

    @property
    def unseen(self) -> dict[str, int]:
        """Of ``counts``, the packets that were dropped elsewhere: no event, no capture has them."""
        return {reason.value: count for reason, count in self._unseen.items() if count}

    def count_unseen(self, reason: DropReason, packets: int, *, report: bool = True) -> None:
        """Count packets that were dropped elsewhere, of which there is only their number.

        ``report``: as a ``PacketsDropped`` without addresses; not where another event reports it.
        """
        self._counts[reason] += packets
        self._unseen[reason] += packets
        if report and self._unseen_sampler.note(reason, None, self.now, packets):
            self._report(PacketsDropped(self.now, reason, None, None, "", "", packets))

    def tell(self, told: Told | None) -> None:
        """Call ``told`` for every drop; None: no observer any more."""
        count = self._drop
        if told is None:
            self.drop = count
            return

        def drop(
            reason: DropReason, packet: bytes, vm: str | None = None, rule: str | None = None
        ) -> bytes | None:
            told(reason, vm, rule)
            return count(reason, packet, vm, rule)

        self.drop = drop

    def look(self, now: float) -> None:
        """Report what came together in intervals that are over."""
        for kind, count, detail in self._sampler.due(now):
            self._report_drops(kind, detail, count, now)
        for reason, count, _ in self._unseen_sampler.due(now):
            self._report(PacketsDropped(now, reason, None, None, "", "", count))

    def _drop(
        self, reason: DropReason, packet: bytes, vm: str | None = None, rule: str | None = None
    ) -> bytes | None:
        """The verdict on a packet that is dropped."""
        self._counts[reason] += 1
        if reason is DropReason.PORTS_EXHAUSTED:
            return None  # has an event of its own, for each public IP
        kind = reason, vm, rule
        detail = packet[9] if len(packet) > 9 else 0, packet[12:16], packet[16:20]
        if self._sampler.note(kind, detail, self.now):
            self._report_drops(kind, detail, 1, self.now)
        return None

    def _report_drops(self, kind: _Kind, detail: _Detail, count: int, now: float) -> None:
        reason, vm, rule = kind
        protocol, source, remote = detail
        if reason is DropReason.FLOW_TABLE_FULL:
            self._report(FlowTableFull(now, count))
            return
        self._report(
            PacketsDropped(now, reason, vm, protocol, _dotted(source), _dotted(remote), count, rule)
        )


def _dotted(address: bytes) -> str:
    return str(IPv4Address(address)) if len(address) == 4 else ""
