"""What the kernel drops is counted among the engine's drops, once."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.events import Event, PacketsDropped
from gateway.core.observe.drop_counters import EVENT_INTERVAL, DropCounters
from gateway.daemon.engine_process.drop_monitor import DropMonitor
from gateway.datapath.queue import QueueStatistics
from gateway.schema.drop_reasons import DropReason

SPOOFED, PACKET = DropReason.SOURCE_NOT_OUTSIDE, b"\x45" + bytes(8) + b"\x11" + bytes(10)


class Kernel:
    """Rules, a fast path and a queue, as far as their counters go."""

    def __init__(self) -> None:
        self.rules: dict[DropReason, int] = {}
        self.held_back = 7  # of an earlier daemon's
        self.lost = self.errors = 0

    def dropped_by_rules(self) -> Mapping[DropReason, int]:
        return self.rules

    def statistics(self) -> QueueStatistics:
        return QueueStatistics(0, 0, self.errors, 0, self.lost, 0, 0)


def monitor(kernel: Kernel) -> tuple[DropMonitor, DropCounters, list[Event]]:
    events: list[Event] = []
    drops = DropCounters(16, events.append)
    watching = DropMonitor(kernel, kernel, kernel, drops)  # type: ignore[arg-type]
    return watching, drops, events


def test_each_counter_counts_from_the_start_on_by_its_reason() -> None:
    kernel = Kernel()
    watching, drops, events = monitor(kernel)
    watching.tick()
    assert (drops.counts, events) == ({}, [])
    kernel.rules = {SPOOFED: 3, DropReason.IPV6_NOT_SUPPORTED: 1}
    kernel.held_back, kernel.lost, kernel.errors = 9, 100, 2
    watching.tick()
    watching.tick()
    assert (
        drops.counts
        == drops.unseen
        == {
            "SourceNotOutside": 3,
            "Ipv6NotSupported": 1,
            "HeldBack": 2,
            "QueueOverflow": 100,
            "InternalError": 2,
        }
    )
    # The queue's have events of their own.
    dropped = [e for e in events if isinstance(e, PacketsDropped)]
    assert {(e.reason.value, e.count) for e in dropped} == {
        ("SourceNotOutside", 3),
        ("Ipv6NotSupported", 1),
        ("HeldBack", 2),
    }
    assert {(e.protocol, e.vm, e.source, e.remote) for e in dropped} == {(None, None, "", "")}


def test_what_the_engine_sees_and_what_it_does_not_make_one_count_and_two_events() -> None:
    kernel = Kernel()
    watching, drops, events = monitor(kernel)
    drops.drop(SPOOFED, PACKET)
    for total in (5, 6, 9):
        kernel.rules = {SPOOFED: total}
        watching.tick()
    assert drops.counts == {"SourceNotOutside": 10}
    assert drops.unseen == {"SourceNotOutside": 9}
    drops.look(EVENT_INTERVAL + 1)
    drops.look(3 * EVENT_INTERVAL)
    seen = [(e.protocol, e.count) for e in events if isinstance(e, PacketsDropped)]
    assert seen == [(17, 1), (None, 5), (None, 4)]
    assert drops.counts == {"SourceNotOutside": 10}
