"""The engine process's answer to ``status``: the state of daemon and engine, ready for JSON.
Runs in the engine process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.core.engine import Engine
from gateway.daemon.channel.json_views import iso
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.requests import RequestHandler, at_once, nothing


class StatusRequests:
    """The handler. ``sections``: what else there is, each by a part of the gateway."""

    def __init__(
        self,
        engine: Engine,
        file: Path | None,
        scale: float,
        loop: EventLoop,
        sections: Mapping[str, Callable[[], Any]],
    ) -> None:
        self._engine = engine
        self._file = file
        self._scale = scale
        self._loop = loop
        self._sections = sections
        self._began = time.monotonic()
        self._started_at = time.time()
        self.handlers: Mapping[str, RequestHandler] = {"status": at_once(nothing, self.status)}

    def status(self, _: None = None) -> dict[str, Any]:
        """All of it."""
        configuration = self._engine.configuration
        gateway = configuration.gateway
        return {
            "version": __version__,
            "pid": os.getpid(),
            "configuration": None if self._file is None else str(self._file),
            "startedAt": iso(self._started_at),
            "uptimeSeconds": round(time.monotonic() - self._began, 3),
            "timeScale": self._scale,
            "inside": list(gateway.inside),
            "outside": gateway.outside,
            "publicIps": [str(p.ip_address) for p in configuration.public_ip_addresses],
            "http": gateway.http,
            **self._engine.status(self._loop.now),
            "packets": self._loop.packets,
            **{name: section() for name, section in self._sections.items()},
        }
