"""Flow logs on disk, in the API process: files as Azure's blobs are, rotated and bounded.
Runs in the API process.

A file holds one JSON document, ``{"records": [...]}``, and holds it after each write: new records
go in place of the last two bytes, with these behind them, as Azure appends blocks to PT1H.json.
There is a file for each hour (UTC) and format, or several where an hour has many entries. The
oldest go when there are more than ``kept_files``. A disk that is full or read-only costs entries,
which are counted, and one line on standard error; never more.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.core.observe.flow_log import FlowLogEntry
from gateway.daemon.api_process.flow_logs.azure_formats import Timed, nsg_records, vnet_records
from gateway.daemon.console import warn

DIRECTORY = "flow-logs"
"""In the API process's directory; has ``nsg`` and ``vnet``."""
MAXIMUM_BYTES = 8 << 20
KEPT_FILES = 32
INTERVAL = 60.0
"""Azure seconds between writes: Azure collects flow logs by the minute."""
SHORTEST_INTERVAL = 1.0
"""Seconds (real) between writes, however fast Azure's time passes."""
MAXIMUM_PENDING = 8_192
"""Entries that wait for the next write; that many are written at once."""

_HEAD, _TAIL = b'{"records":[', b"]}"
_NAME = re.compile(r"PT1H-\d{4}-\d\d-\d\dT\d\d-(\d{4,})\.json")


class FlowLogWriter:
    """Takes ``message``s and writes them down in both formats, or the one that is asked for."""

    def __init__(
        self,
        path: Path,
        *,
        directory: int | None = None,
        maximum_bytes: int = MAXIMUM_BYTES,
        kept_files: int = KEPT_FILES,
        complain: Callable[[str], None] = warn,
    ) -> None:
        """``path``: where ``flow-logs`` goes; ``directory``: a descriptor of it, as for EventLog.

        ``maximum_bytes``: of one file; ``kept_files``: of one format.
        """
        if directory is None:
            directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.unwritten = 0
        self._complain = complain
        self._pending: list[Timed] = []
        self._mode = "off"
        self._interval = INTERVAL
        self._written_at = 0.0
        self._failing: set[str] = set()
        self._files = {
            name: _Files(path / DIRECTORY / name, directory, maximum_bytes, kept_files)
            for name in ("nsg", "vnet")
        }

    def add(self, received: Any, wall: float) -> None:
        """Keep a message's entries, at the Unix time ``wall``, for the next write."""
        mode, now, at, scale, entries = received
        if mode != self._mode:
            self.flush(wall)
            self._mode = mode
        if not self._pending:
            self._written_at = wall
        self._interval = max(INTERVAL / scale, SHORTEST_INTERVAL)
        made = map(FlowLogEntry._make, entries)
        self._pending.extend((at - (now - entry.time) / scale, entry) for entry in made)
        if len(self._pending) >= MAXIMUM_PENDING:
            self.flush(wall)

    def look(self, wall: float) -> None:
        """Write, if it is time."""
        if self._pending and not 0 <= wall - self._written_at < self._interval:
            self.flush(wall)

    def flush(self, wall: float) -> None:
        """Write what waits. Raises nothing."""
        pending, self._pending = self._pending, []
        self._written_at = wall
        if not pending:
            return
        if self._mode in ("nsg", "both"):
            self._write("nsg", nsg_records(pending, wall), len(pending), wall)
        if self._mode in ("vnet", "both"):
            self._write("vnet", vnet_records(pending, wall), len(pending), wall)

    def _write(self, name: str, records: list[dict[str, Any]], entries: int, wall: float) -> None:
        if not records:
            return
        try:
            self._files[name].append(records, wall)
            self._failing.discard(name)
        except OSError as error:
            self.unwritten += entries
            if name not in self._failing:
                self._failing.add(name)
                why = error.strerror or str(error)
                path = self._files[name].path
                self._complain(f"{path}: flow logs are not being written: {why}")


class _Files:
    """The files of one format. Links are not followed: another process may have put them there."""

    def __init__(self, path: Path, directory: int, maximum_bytes: int, kept_files: int) -> None:
        self.path = path
        self._top = directory
        self._maximum_bytes = maximum_bytes
        self._kept_files = kept_files
        self._hour = ""
        self._name = ""  # empty: not known yet

    def append(self, records: list[dict[str, Any]], wall: float) -> None:
        """Add records to the file of their hour, or to a new one. Raises OSError."""
        text = b",\n".join(json.dumps(r, separators=(",", ":")).encode() for r in records)
        directory = self._open_directory()
        try:
            hour = datetime.fromtimestamp(wall, UTC).strftime("PT1H-%Y-%m-%dT%H-")
            if hour != self._hour or not self._name:
                self._hour, self._name = hour, self._latest(directory, hour)
            if not self._fits(directory, len(text)):
                self._name = self._following(directory)
                self._create(directory, text)
                self._prune(directory)
                return
            self._extend(directory, text)
        except OSError:
            self._name = ""  # look again: the disk may be another one
            raise
        finally:
            os.close(directory)

    def _open_directory(self) -> int:
        """``flow-logs/NAME``, made if it is not there."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        opened = self._top
        for name in (DIRECTORY, self.path.name):
            try:
                try:
                    inner = os.open(name, flags, dir_fd=opened)
                except FileNotFoundError:
                    os.mkdir(name, 0o750, dir_fd=opened)
                    inner = os.open(name, flags, dir_fd=opened)
            finally:
                if opened != self._top:
                    os.close(opened)
            opened = inner
        return opened

    def _names(self, directory: int) -> list[str]:
        """Of the files, the oldest first."""
        return sorted(name for name in os.listdir(directory) if _NAME.fullmatch(name))

    def _latest(self, directory: int, hour: str) -> str:
        """The hour's last file; one that is to be made, if there is none."""
        names = [name for name in self._names(directory) if name.startswith(hour)]
        return names[-1] if names else f"{hour}0000.json"

    def _following(self, directory: int) -> str:
        """The file after the hour's last one."""
        match = _NAME.fullmatch(self._latest(directory, self._hour))
        assert match is not None
        return f"{self._hour}{int(match[1]) + 1:04}.json"

    def _fits(self, directory: int, size: int) -> bool:
        """Whether the current file is there, is whole, and has room."""
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._name, flags, dir_fd=directory)
        except FileNotFoundError:
            return False
        try:
            length = os.fstat(descriptor).st_size
            whole = os.pread(descriptor, 2, max(length - 2, 0)) == _TAIL
        finally:
            os.close(descriptor)
        return whole and length + size + 2 <= self._maximum_bytes

    def _create(self, directory: int, text: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._name, flags, 0o640, dir_fd=directory)
        try:
            _write_whole(descriptor, _HEAD + text + _TAIL, 0)
        except OSError:
            os.unlink(self._name, dir_fd=directory)
            raise
        finally:
            os.close(descriptor)

    def _extend(self, directory: int, text: bytes) -> None:
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._name, flags, dir_fd=directory)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write_whole(descriptor, b",\n" + text + _TAIL, size - len(_TAIL))
            except OSError:
                os.ftruncate(descriptor, size)
                os.pwrite(descriptor, _TAIL, size - len(_TAIL))  # takes no room on the disk
                raise
        finally:
            os.close(descriptor)

    def _prune(self, directory: int) -> None:
        for name in self._names(directory)[: -self._kept_files]:
            os.unlink(name, dir_fd=directory)


def _write_whole(descriptor: int, data: bytes, offset: int) -> None:
    if os.pwrite(descriptor, data, offset) < len(data):
        raise OSError(0, "disk full")
