"""Between the engine and the fast path: flows become map entries, counters and times come back.
Runs in the engine process.

It turns the kernel's clock into Azure's and remembers, for each slot, what it has already added to
a flow: the kernel's counters only ever grow, and only the kernel writes to them.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from struct import Struct
from typing import Any

from gateway.core.flow_lifecycle import FlowLifecycle
from gateway.core.flows.flow import Flow
from gateway.core.flows.offload import Carried, Reported
from gateway.core.flows.tcp import ACK_FLAG, SYN_FLAG, Side, State
from gateway.core.snat.nat_gateway_pool import VmNatUsage
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.datapath.fastpath import Direction, FastPath
from gateway.datapath.fastpath.map_layout import ANY, FROM_INSIDE, FROM_OUTSIDE
from gateway.model.profile import Method
from gateway.schema.protocols import TCP

_LONGEST = 0xFFFFFFFF  # milliseconds that an entry can have
_seen = Struct("=QQQQ")  # packets and bytes of the original direction, then of the reply's


class FastPathOffload:
    """The engine's ``Offload``.

    ``azure_time`` turns CLOCK_MONOTONIC seconds into the engine's, of which ``scale`` pass in one.
    """

    def __init__(self, path: FastPath, azure_time: Callable[[float], float], scale: float) -> None:
        self.path = path
        self.flows = 0  # offloaded now
        self._azure_time = azure_time
        self._milliseconds = 1000.0 / scale
        # Anonymous memory costs nothing until a slot is used.
        self._seen = mmap.mmap(-1, path.capacity * _seen.size)
        self._adopted: set[bytes] = set()  # keys, until ``settle``

    def install(self, flow: Flow, acknowledged: tuple[int, int], *, waits: bool) -> bool:
        """Take a flow over, if there is room."""
        if flow.slot >= self.path.capacity:
            self.path.refused += 1
            return False
        packets_out, bytes_out, _, packets_in, bytes_in, _ = self.path.totals(flow.slot)
        _seen.pack_into(
            self._seen, flow.slot * _seen.size, packets_out, bytes_out, packets_in, bytes_in
        )
        directions = self._directions(flow)
        if not self.path.install(flow.id, flow.slot, *directions, acknowledged, waits=waits):
            return False
        self.flows += 1
        return True

    def adopt(self, flow: Flow, seen: tuple[int, int, int, int]) -> bool:
        """Continue with a flow that the kernel carries since an earlier daemon installed it.

        ``seen``: what that one had already added to it of the kernel's packets and bytes, of the
        original direction and of the reply's. False: the kernel does not have it so.
        """
        if not self.path.inherits or flow.slot >= self.path.capacity:
            return False
        directions = self._directions(flow)
        if not self.path.carries(flow.id, flow.slot, *directions):
            return False
        _seen.pack_into(self._seen, flow.slot * _seen.size, *seen)
        self._adopted.update(direction.key() for direction in directions)
        self.flows += 1
        return True

    def seen(self, flow: Flow) -> tuple[int, int, int, int]:
        """What was added to a flow so far, for ``adopt``."""
        return _seen.unpack_from(self._seen, flow.slot * _seen.size)

    def settle(self, translation: FlowLifecycle) -> int:
        """Once, when every flow that can be is adopted: the others leave the kernel.

        Returns how many entries these were. What was reported while no daemon ran is acted upon,
        before there is any other flow that it could be mistaken for.
        """
        if not self.path.inherits:
            return 0
        removed = self.path.keep_only(self._adopted)
        self._adopted.clear()
        while self.report(translation):
            pass
        return removed

    def remove(self, flow: Flow) -> None:
        """Give a flow back."""
        self.path.remove(*self._directions(flow))
        self.flows -= 1

    def carried(self, flow: Flow) -> Carried | None:
        """What the kernel has counted since the last call."""
        at = flow.slot * _seen.size
        seen_out, seen_bytes_out, seen_in, seen_bytes_in = _seen.unpack_from(self._seen, at)
        packets_out, bytes_out, used_out, packets_in, bytes_in, used_in = self.path.totals(
            flow.slot
        )
        if packets_out == seen_out and packets_in == seen_in:
            return None
        _seen.pack_into(self._seen, at, packets_out, bytes_out, packets_in, bytes_in)
        return Carried(
            packets_out - seen_out,
            bytes_out - seen_bytes_out,
            packets_in - seen_in,
            bytes_in - seen_bytes_in,
            self._azure_time(max(used_out, used_in) * 1e-9),
        )

    def acknowledged(self, flow: Flow) -> tuple[int, int]:
        """What the VM's side and the remote's acknowledged last."""
        return self.path.acknowledged(flow.slot)

    def report(self, to: Reported) -> int:
        """Report to the engine the answers, FINs and RSTs that passed; how many."""
        reports = self.path.reports()
        for report in reports:
            side = Side.REPLY if report.reverse else Side.ORIGINAL
            when = self._azure_time(report.when * 1e-9)
            slot, flags = report.counter // 2, report.flags & ~ANY
            if flags & SYN_FLAG:
                flags |= ACK_FLAG  # one that opens never passes there
            to.on_offloaded_segment(slot, report.flow, side, flags, when)
        return len(reports)

    def leave(self) -> None:
        """Have the kernel carry what it carries for a while, until the next daemon is there."""
        if self.flows:
            self.path.leave()

    def close(self) -> None:
        """Forget what was counted. The path is its owner's to close."""
        self._seen.close()

    def _directions(self, flow: Flow) -> tuple[Direction, Direction]:
        """The packets of a flow in both directions, and what replaces what."""
        timeout = flow.timeout
        if isinstance(flow.pool, VmNatUsage):
            timeout = max(timeout, flow.pool.idle_timeout)  # half-open now, and not for long
        idle = min(int(timeout * self._milliseconds) + 1, _LONGEST)
        original, reply, protocol = flow.original[:12], flow.reply[:12], flow.protocol
        opening = protocol == TCP and flow.state is State.OPENING
        # Whatever the other side sends answers it; an inbound flow is the VM's to answer.
        asks, answers = (idle, False), (idle, opening)
        if flow.inbound:
            asks, answers = answers, asks
        if flow.method is Method.VIRTUAL_NETWORK:  # between VMs: nothing is replaced
            return (
                Direction(
                    original, protocol, FROM_INSIDE, original[0:4], original[8:10], False, *asks
                ),
                Direction(reply, protocol, FROM_INSIDE, reply[0:4], reply[8:10], False, *answers),
            )
        public, public_port = flow.public, flow.public_port
        private, private_port = flow.private, flow.private_port
        return (
            Direction(original, protocol, FROM_INSIDE, public, public_port, True, *asks),
            Direction(reply, protocol, FROM_OUTSIDE, private, private_port, False, *answers),
        )


class OffloadReports:
    """Tells the engine once a turn of what passed in the kernel."""

    def __init__(self, offload: FastPathOffload, to: Reported) -> None:
        self._offload = offload
        self._to = to

    def register(self, loop: EventLoop) -> None:
        """Tell of it from now on."""
        loop.every_tick(lambda: self._offload.report(self._to))


def fast_path_status(offload: FastPathOffload | None, fast_path: FastPath | str) -> dict[str, Any]:
    """The fast path, or why there is none, for the status."""
    if offload is None:
        return {"active": False, "reason": fast_path}
    return {
        "active": True,
        "flows": offload.flows,
        "capacity": offload.path.capacity,
        "refused": offload.path.refused,
        "heldBack": offload.path.held_back,
    }
