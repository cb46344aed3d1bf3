"""How often a process that ended is started again, before the gateway continues without it.
Runs in the engine process.
"""

from __future__ import annotations

from collections import deque

LIMIT = 5
"""In ``WINDOW`` seconds."""
WINDOW = 600.0


class RestartLimiter:
    """A budget: ``LIMIT`` in any ``WINDOW`` seconds. ``count``: all there ever were."""

    def __init__(self) -> None:
        self.count = 0
        self._recent: deque[float] = deque(maxlen=LIMIT)

    def allow(self, now: float) -> bool:
        """Take one at the time ``now``; False: there were too many."""
        if sum(now - moment < WINDOW for moment in self._recent) >= LIMIT:
            return False
        self._recent.append(now)
        self.count += 1
        return True
