"""Azure's time in the engine process, which may pass faster than real time (``timeScale``).
Runs in the engine process.
"""

from __future__ import annotations

import time


class Clock:
    """The engine's clock is 0 at ``base`` (CLOCK_MONOTONIC), and ``scale`` of its seconds pass in
    a real one."""

    def __init__(self, base: float, scale: float) -> None:
        self.base = base
        self.scale = scale

    def azure(self, real: float) -> float:
        """The engine's time at a time of CLOCK_MONOTONIC."""
        return (real - self.base) * self.scale

    def unix(self, azure: float) -> float:
        """The Unix time at which the engine's time was this."""
        return time.time() - (self.azure(time.monotonic()) - azure) / self.scale
