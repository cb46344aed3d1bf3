"""Expiry: cost grows with what expires, not with what lives.

Flows wait in buckets of one tick (a quarter of an Azure second). A packet does not move its flow:
it writes ``last_seen``. When a bucket falls due, each of its flows either expires or moves on to
the bucket of its real deadline, so a live flow is checked once per timeout, however many packets
it carries. A bucket is a set, so that a flow that ends early leaves nothing behind: memory stays
bounded by the flows that live.
"""

from collections.abc import Callable
from heapq import heappop, heappush

from gateway.core.flows.flow import Bucket, Flow

TICK = 0.25  # seconds; a flow is reclaimed at most this much after its deadline


class Expiry:
    """Deadlines of all flows: ``arm``, ``disarm``, and ``expire`` when time has passed."""

    def __init__(self) -> None:
        self.fold: Callable[[Flow], None] = lambda flow: None
        """What knows when an offloaded flow was last seen."""
        self._buckets: dict[int, Bucket] = {}
        self._heap: list[Bucket] = []

    def arm(self, flow: Flow, deadline: float) -> None:
        """Check ``flow`` at ``deadline`` or within a tick after it, and not before."""
        due = int(deadline / TICK) + 1
        bucket = self._buckets.get(due)
        if bucket is None:
            bucket = self._buckets[due] = Bucket(due)
            heappush(self._heap, bucket)
        previous = flow.bucket
        if previous is not bucket:
            if previous is not None:
                previous.discard(flow)
            bucket.add(flow)
            flow.bucket = bucket

    def disarm(self, flow: Flow) -> None:
        """Forget ``flow``."""
        if flow.bucket is not None:
            flow.bucket.discard(flow)
            flow.bucket = None

    def lag(self, now: float) -> float:
        """By how many seconds the oldest bucket to check is overdue."""
        return max(0.0, now - self._heap[0].due * TICK) if self._heap else 0.0

    def expire(self, now: float, end: Callable[[Flow], None], limit: int) -> int:
        """Call ``end`` for each flow whose deadline has passed, visiting ``limit`` at most.

        Returns how many flows were ended. What the limit leaves over is taken up by the next
        call.
        """
        tick = int(now / TICK)
        heap = self._heap
        ended = 0
        while heap and heap[0].due <= tick:
            bucket = heap[0]
            while bucket:
                if not limit:
                    return ended
                limit -= 1
                flow = bucket.pop()
                flow.bucket = None
                if flow.offloaded:
                    self.fold(flow)
                deadline = flow.last_seen + flow.timeout
                if deadline > now:
                    self.arm(flow, deadline)
                else:
                    end(flow)
                    ended += 1
            heappop(heap)
            del self._buckets[bucket.due]
        return ended
