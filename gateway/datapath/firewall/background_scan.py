"""Asks for the host's obstacles in a process of its own, and never waits for it.

Reading all rules of a host can take seconds, in which no packet would pass the engine. So
``python -m gateway.datapath.firewall`` does it, at most once an interval while rules change, and
``news`` is polled for its result. What the sentences mean, it does not know.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from gateway.datapath.firewall.packet_paths import Crossing

INTERVAL = 10.0
"""Seconds (real) between two, while the host's rules change again and again."""
PATIENCE = 60.0


class FirewallLook:
    """What the host's firewall drops, looked up again when it may have changed."""

    def __init__(self, crossing: Crossing) -> None:
        self.crossing = crossing
        self._due = True
        self._not_before = 0.0
        self._running: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._began = 0.0

    def again(self) -> None:
        """The host's rules have changed."""
        self._due = True

    def news(self) -> list[str] | None:
        """Sentences, once after each look; None: nothing new to say. To be called now and then."""
        now = time.monotonic()
        if self._running is not None:
            return self._answer(now)
        if self._due and now >= self._not_before:
            self._due = False
            self._not_before = now + INTERVAL
            self._ask(now)
        return None

    def close(self) -> None:
        """Stop scanning."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._forget()

    def _ask(self, now: float) -> None:
        crossing = {
            "inside": self.crossing.inside,
            "outside": self.crossing.outside,
            "publicIps": [str(address) for address in self.crossing.public_ips],
            "privatePrefixes": [str(prefix) for prefix in self.crossing.private_prefixes],
            "subnets": [str(subnet) for subnet in self.crossing.subnets],
            "hairpin": self.crossing.hairpin,
        }
        try:
            output = os.fdopen(os.memfd_create("firewall"), "w+b")
        except OSError:
            self._due = True
            return
        try:
            self._running = subprocess.Popen(
                [sys.executable, "-m", "gateway.datapath.firewall", json.dumps(crossing)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            )
        except OSError:
            output.close()
            self._due = True
            return
        self._output, self._began = output, now

    def _answer(self, now: float) -> list[str] | None:
        assert self._running is not None
        assert self._output is not None
        status = self._running.poll()
        if status is None:
            if now > self._began + PATIENCE:
                self.close()
            return None
        self._output.seek(0)
        text = self._output.read()
        self._forget()
        try:
            return [obstacle["sentence"] for obstacle in json.loads(text)] if status == 0 else None
        except ValueError:
            return None

    def _forget(self) -> None:
        if self._output is not None:
            self._output.close()
        self._running = self._output = None
