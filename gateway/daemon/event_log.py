"""Events for people and machines: the contract's JSON, a bounded ring and a rotated file.

``event_document`` gives a core event the shape of Azure's logs (exhaustion: docs/fidelity.md,
category LoadBalancerAlertEvent); what Azure has no event for is a GatewayEvent of ours.
``EventLog`` belongs to the API process: it appends JSON Lines, rotates by size, keeps the latest
events for listings, and fills its ring from the file's tail at the start, so that ``--since``
reaches over a restart. A full disk costs lines in the file, which are counted, and never more.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.core.events import (
    AllotmentReclaimed,
    Event,
    FlowsEnded,
    FlowTableFull,
    HighSnatPortUsage,
    NoHealthyBackends,
    PacketsDropped,
    PortsExhausted,
    ProbeHealthChanged,
)
from gateway.daemon.documents import iso, protocol_name
from gateway.daemon.flow_log import DIRECTORY as FLOW_LOGS
from gateway.model.profile import ExhaustionEvent

DIRECTORY = "events"
"""Under the state directory; the API process's own."""
FILE = "events.jsonl"
RING = 10_000
MAXIMUM_BYTES = 8 << 20
KEPT_FILES = 4
_TAIL_BYTES = 8 << 20
_TEXTS = ("time", "category", "operationName", "level", "resource")


def document(
    wall: float,
    category: str,
    operation: str,
    level: str,
    resource: str,
    properties: dict[str, Any],
) -> dict[str, Any]:
    """An event as the contract has it. ``level``: Informational, Warning or Error."""
    return {
        "time": iso(wall),
        "category": category,
        "operationName": operation,
        "level": level,
        "resource": resource,
        "properties": properties,
    }


def gateway_event(
    wall: float, operation: str, level: str, properties: dict[str, Any]
) -> dict[str, Any]:
    """An event of this program itself."""
    return document(wall, "GatewayEvent", operation, level, "gateway", properties)


def event_document(event: Event, wall: float) -> dict[str, Any]:
    """A core event that happened at the Unix time ``wall``."""
    if isinstance(event, PortsExhausted):
        return _exhausted(event, wall)
    if isinstance(event, HighSnatPortUsage):
        return _high_usage(event, wall)
    if isinstance(event, PacketsDropped):
        resource = "gateway" if event.vm is None else f"virtualMachines/{event.vm}"
        return document(
            wall,
            "GatewayEvent",
            "PacketsDropped",
            "Informational",
            resource,
            {
                "reason": event.reason.value,
                "description": event.reason.sentence,
                "vm": event.vm,
                "protocol": protocol_name(event.protocol),
                "source": event.source,
                "destination": event.remote,
                "count": event.count,
                "rule": event.rule,
            },
        )
    if isinstance(event, AllotmentReclaimed):
        return document(
            wall,
            "GatewayEvent",
            "AllotmentReclaimed",
            "Warning",
            f"virtualMachines/{event.vm}",
            {
                "vm": event.vm,
                "publicIp": event.public_ip,
                "ports": event.ports,
                "flowsBroken": event.flows,
            },
        )
    if isinstance(event, FlowsEnded):
        properties = {"flows": event.flows, "reason": event.reason}
        return gateway_event(wall, "FlowsEnded", "Warning", properties)
    if isinstance(event, ProbeHealthChanged):
        return _probe_health(event, wall)
    if isinstance(event, NoHealthyBackends):
        return _no_healthy_backends(event, wall)
    assert isinstance(event, FlowTableFull)
    return gateway_event(wall, "FlowTableFull", "Error", {"count": event.count})


def _is_event(found: Any) -> bool:
    """Whether what a file has is an event: readers of the ring rely on its fields."""
    if not isinstance(found, dict) or not isinstance(found.get("properties"), dict):
        return False
    if not all(isinstance(found.get(name), str) for name in _TEXTS):
        return False
    try:
        datetime.fromisoformat(found["time"])
    except ValueError:
        return False
    return True


def _exhausted(event: PortsExhausted, wall: float) -> dict[str, Any]:
    """Port exhaustion, as the alert or the health event that Azure would write, or as our own.

    The alert's properties are in all of them.
    """
    properties = {
        "eventName": "Resource Limits Hit",
        "eventDescription": "Ports exhausted",
        "eventProperties": {"public ip address": event.public_ip},
        "vm": event.vm,
        "protocol": event.protocol,
        "remote": {"ip": event.remote_ip, "port": event.remote_port},
        "count": event.count,
    }
    if event.shape is ExhaustionEvent.ALERT:
        operation = "LoadBalancerProbeHealthStatus"  # as Azure has it
        resource = f"publicIPAddresses/{event.public_ip}"
        return document(wall, "LoadBalancerAlertEvent", operation, "Warning", resource, properties)
    kind, level = "SnatPortExhaustion", "Error"
    if event.shape is None:
        return document(wall, "GatewayEvent", kind, level, event.owner, properties)
    description = (
        f"Backend IP {event.private_ip} has exhausted all SNAT ports allocated to it. New outbound "
        f"connections through frontend IP {event.public_ip} fail until ports are released."
    )
    health = _health(kind, "Critical", description, event.public_ip)
    return document(wall, *_health_event(kind), level, event.owner, health | properties)


def _high_usage(event: HighSnatPortUsage, wall: float) -> dict[str, Any]:
    kind, level = "HighSnatPortUsage", "Warning"
    description = (
        f"Backend IP {event.private_ip} is utilizing more than 75% of SNAT ports allocated from "
        f"frontend IP {event.public_ip}"
    )
    properties = _health(kind, level, description, event.public_ip) | {
        "vm": event.vm,
        "protocol": event.protocol,
        "used": event.used,
        "allocated": event.allocated,
    }
    return document(wall, *_health_event(kind), level, event.owner, properties)


def _health_event(kind: str) -> tuple[str, str]:
    """Category and operation of a Standard load balancer's event ("Health event logs")."""
    return "LoadBalancerHealthEvent", f"Microsoft.Network/loadBalancers/healthEvents/{kind}"


def _health(kind: str, severity: str, description: str, public_ip: str) -> dict[str, Any]:
    """The properties that each of these has."""
    return {
        "HealthEventType": kind,
        "Severity": severity,
        "Description": description,
        "Frontend Ip": public_ip,
    }


def _probe_health(event: ProbeHealthChanged, wall: float) -> dict[str, Any]:
    """Azure's probe event ("Azure Monitor logs for public Basic Load Balancer"), and which VM."""
    return document(
        wall,
        "LoadBalancerProbeHealthStatus",
        "LoadBalancerProbeHealthStatus",
        "Informational" if event.up else "Warning",
        f"loadBalancers/{event.balancer}",
        {
            "publicIpAddress": event.public_ip,
            "port": str(event.port),
            "totalDipCount": event.total,
            "dipDownCount": event.down,
            "healthPercentage": round(100 * (event.total - event.down) / event.total, 6),
            "rule": event.rule,
            "probe": event.probe,
            "vm": event.vm,
            "status": "Up" if event.up else "Down",
        },
    )


def _no_healthy_backends(event: NoHealthyBackends, wall: float) -> dict[str, Any]:
    kind = "NoHealthyBackends"
    description = (
        f"the frontend IP {event.public_ip} is completely unreachable because all backend "
        "instances configured to the following protocol:port "
        f"{event.protocol}:{event.port} are unhealthy"
    )
    properties = _health(kind, "Critical", description, event.public_ip) | {"rule": event.rule}
    resource = f"loadBalancers/{event.balancer}"
    return document(wall, *_health_event(kind), "Error", resource, properties)


def prepare_directory(state_directory: Path, user: int, group: int) -> Path:
    """Make the logs' directory the API user's own; returns the log's path. Raises OSError.

    ``<stateDirectory>/events.jsonl`` leads to the file and ``flow-logs`` to the flow logs: rotation
    takes a directory that the API process may write to, and the state directory stays root's.
    """
    state_directory.mkdir(parents=True, exist_ok=True)
    directory = state_directory / DIRECTORY
    directory.mkdir(mode=0o750, exist_ok=True)
    # as a service it may change owners, but not write where it owns nothing (no CAP_DAC_OVERRIDE)
    os.chown(directory, os.geteuid(), -1, follow_symlinks=False)
    (directory / FLOW_LOGS).mkdir(mode=0o750, exist_ok=True)
    # the user may have changed since the last run; links are not followed, their owner may be him
    for path in (directory, *directory.glob(f"{FILE}*")):
        os.chown(path, user, group, follow_symlinks=False)
    for _, directories, files, inner in os.fwalk(directory / FLOW_LOGS):
        for name in (".", *directories, *files):
            os.chown(name, user, group, dir_fd=inner, follow_symlinks=False)
    for name in (FILE, FLOW_LOGS):
        shortcut = state_directory / name
        if not os.path.lexists(shortcut):
            shortcut.symlink_to(Path(DIRECTORY) / name)
    return directory / FILE


class EventLog:
    """The latest events, numbered from 0 in the order in which they were added."""

    def __init__(
        self,
        path: Path | None,
        *,
        directory: int | None = None,
        ring: int = RING,
        maximum_bytes: int = MAXIMUM_BYTES,
        kept_files: int = KEPT_FILES,
        complain: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        """``path`` None: no file. ``maximum_bytes``: of one file; ``kept_files``: all of them.

        ``directory``: a descriptor of the path's directory, for a process that may write there,
        but may not walk there (a state directory below somebody's home).
        """
        self._path = path
        if path is not None and directory is None:
            directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._directory = directory
        self._maximum_bytes = maximum_bytes
        self._kept_files = kept_files
        self._complain = complain
        self._size = 0
        self._descriptor = -1
        self._failing = False
        self.unwritten = 0
        self._ring: deque[dict[str, Any]] = deque(self._tail(ring), maxlen=ring)
        self.next_number = len(self._ring)

    def add(self, events: Iterable[dict[str, Any]]) -> None:
        """Keep events, in the ring and in the file."""
        for event in events:
            self._ring.append(event)
            self.next_number += 1
            self._write(json.dumps(event, ensure_ascii=False).encode() + b"\n")

    def after(self, number: int, limit: int) -> tuple[list[dict[str, Any]], int]:
        """At most ``limit`` events from ``number`` on that the ring has, and the next number."""
        first = self.next_number - len(self._ring)
        start = max(number - first, 0)
        count = min(limit, len(self._ring) - start)
        return [self._ring[start + i] for i in range(count)], first + start + max(count, 0)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, line: bytes) -> None:
        if self._path is None:
            return
        try:
            if self._descriptor >= 0 and self._size + len(line) > self._maximum_bytes:
                self._rotate(self._path.name)
            if self._descriptor < 0:
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
                self._descriptor = os.open(self._path.name, flags, 0o640, dir_fd=self._directory)
                self._size = os.fstat(self._descriptor).st_size
                self._end_torn_line()
            written = os.write(self._descriptor, line)
            self._size += written
            if written < len(line):
                os.ftruncate(self._descriptor, self._size - written)
                self._size -= written
                raise OSError(0, "disk full")
            self._failing = False
        except OSError as error:
            self.unwritten += 1
            if not self._failing:
                self._failing = True
                why = error.strerror or str(error)
                self._complain(f"{self._path}: events are not being written: {why}")

    def _rotate(self, name: str) -> None:
        self.close()
        for number in range(self._kept_files - 1, 0, -1):
            newer = name if number == 1 else f"{name}.{number - 1}"
            with contextlib.suppress(FileNotFoundError):
                os.replace(
                    newer,
                    f"{name}.{number}",
                    src_dir_fd=self._directory,
                    dst_dir_fd=self._directory,
                )

    def _end_torn_line(self) -> None:
        """A crash may have left half a line: the next one must not continue it."""
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            self._size += os.write(self._descriptor, b"\n")

    def _tail(self, count: int) -> list[dict[str, Any]]:
        """The last ``count`` events of the file and the one before it."""
        events: deque[dict[str, Any]] = deque(maxlen=count)
        if self._path is None:
            return []
        for name in (f"{self._path.name}.1", self._path.name):
            try:
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                with open(os.open(name, flags, dir_fd=self._directory), "rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    file.seek(max(0, size - _TAIL_BYTES))
                    lines = file.read(_TAIL_BYTES).splitlines()
            except FileNotFoundError:
                continue
            except OSError as error:
                self._complain(
                    f"{self._path.with_name(name)}: earlier events cannot be read: {error.strerror}"
                )
                continue
            for line in lines[-count:]:
                try:
                    event = json.loads(line)
                except (ValueError, RecursionError):
                    continue  # torn by a crash or by the cut
                if _is_event(event):
                    events.append(event)
        return list(events)
