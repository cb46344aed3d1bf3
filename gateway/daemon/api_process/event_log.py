"""Events for people and programs: the contract's JSON, a bounded ring and a rotated file.
Runs in the API process.

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
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway.daemon.api_process.flow_logs.writer import DIRECTORY as FLOW_LOGS
from gateway.daemon.console import warn

DIRECTORY = "events"
"""Under the state directory; the API process's own."""
FILE = "events.jsonl"
RING = 10_000
MAXIMUM_BYTES = 8 << 20
KEPT_FILES = 4
_TAIL_BYTES = 8 << 20
_TEXTS = ("time", "category", "operationName", "level", "resource")


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
        complain: Callable[[str], None] = warn,
    ) -> None:
        """``path`` None: no file. ``maximum_bytes``: of one file; ``kept_files``: all of them.

        ``directory``: a descriptor of the path's directory, for a process that may write there,
        but may not walk there (a state directory below a home directory).
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
