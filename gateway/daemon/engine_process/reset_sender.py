"""Sends the TCP resets that the engine queues for flows that idled out, a few a turn.
Runs in the engine process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.core.engine import Engine
from gateway.core.flows.resets import Reset
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.datapath.reset_socket import ResetSocket

RESETS_PER_TURN = 128
"""Between two chances to handle packets, so that none waits for them."""


class ResetSender:
    """Sends what one engine queues. ``on_send`` sees each reset first."""

    def __init__(
        self, engine: Engine, socket: ResetSocket, on_send: Callable[[Reset], None]
    ) -> None:
        self._profile = engine.profile
        self._queue = engine.lifecycle.reset_queue
        self._socket = socket
        self._on_send = on_send

    def register(self, loop: EventLoop) -> None:
        """Send from now on, if the profile has flows whose ends get an RST."""
        if self._profile.tcp_reset_on_idle or self._profile.nat_gateway is not None:
            loop.every_tick(self.tick)

    def tick(self) -> None:
        """Send some of what waits."""
        for _ in range(min(len(self._queue), RESETS_PER_TURN)):
            reset = self._queue.take()
            if reset is not None:
                self._on_send(reset)
                self._socket.send(reset.packet)

    def status(self) -> dict[str, Any]:
        """For the status."""
        return {
            "sent": self._socket.sent,
            "failed": self._socket.failed,
            "waiting": len(self._queue),
            "suppressed": self._queue.suppressed,
        }
