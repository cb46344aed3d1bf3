"""What the engine process sends the API process for the flow logs: plain values.
Runs in the engine process and the API process.
"""

from __future__ import annotations

from typing import Any

from gateway.core.observe.flow_log import FlowLogEntry


def message(mode: str, now: float, wall: float, scale: float, entries: list[FlowLogEntry]) -> Any:
    """Entries as they go to the API process, plain values. ``now`` (Azure's time) is ``wall``."""
    return mode, now, wall, scale, [tuple(entry) for entry in entries]
