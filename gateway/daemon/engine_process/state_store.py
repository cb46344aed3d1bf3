"""What survives a restart, in files of ``<stateDirectory>/state``: read once, written all the time.
Runs in the engine process.

``state.json`` lists what there is and names the two others: the configuration that it was made
with, and the flows, a record for each slot. It is replaced whole and each configuration is a new
file, so that these two fit together whenever the process is killed; the flows are written in place,
record by record. Nothing is forced to the disk: the page cache outlives a process that is killed,
and what is of an earlier boot is of no use.

What cannot be used is quarantined under ``refused``, logged in a line, and the gateway starts
empty. Nothing that a file holds makes the start fail.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from struct import Struct
from zlib import crc32

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gateway.core.persistence.flow_record import EMPTY, SIZE
from gateway.core.persistence.snapshot import SavedAllocation, SavedState
from gateway.model.configuration import Configuration
from gateway.model.reading.load import Loaded

ALLOCATIONS_IN_PART = 128
_ALLOCATIONS = TypeAdapter(tuple[SavedAllocation, ...])

DIRECTORY, INDEX, REFUSED = "state", "state.json", "refused"
VERSION = 1
_MAXIMUM_TEXT = 256 << 20
_RECORDS_PER_READ = 4096
_MOST_RECORDS = 100_000_000  # as many as ``maximumFlows`` can be
_NOTHING = EMPTY * _RECORDS_PER_READ
_HEADER_SIZE = 4096
_HEADER = Struct("<8sII16sI")  # magic, version, record size, session, CRC of these
_MAGIC = b"snatgwFL"


class StateRefusedError(Exception):
    """Why an existing state is not used, in a sentence without its end."""


class Index(BaseModel):
    """``state.json``. ``base``: the CLOCK_MONOTONIC at which the engine's clock was 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: int
    session: str = Field(pattern=r"^[0-9a-f]{32}$")
    reloads: int = Field(default=0, ge=0)
    boot: str
    namespace: int
    base: float
    time_scale: float = Field(gt=0.0)
    seed: int
    written: float  # Unix time
    state: SavedState


@dataclass(frozen=True)
class SavedRun:
    """What an earlier daemon left. ``flows`` reads the records, slot by slot, EMPTY ones too."""

    index: Index
    configuration: Configuration
    flows: _FlowFile


class StateStore:
    """The files of one gateway. Raises OSError where nothing can be kept in that directory."""

    def __init__(self, state_directory: Path) -> None:
        """Raises BlockingIOError if another gateway keeps its state there, PermissionError if
        others than this user may change what is in it."""
        directory = state_directory / DIRECTORY
        directory.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._path = directory
        self._directory = os.open(directory, flags)
        try:
            problem = _not_ours(os.fstat(self._directory))
            if problem is not None:
                raise PermissionError(errno.EPERM, problem, str(directory))
            fcntl.flock(self._directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._directory)
            raise
        self._session = b""
        self._reloads = 0
        self._flows = -1

    def close(self) -> None:
        """Let another have the directory."""
        if self._flows >= 0:
            os.close(self._flows)
            self._flows = -1
        os.close(self._directory)

    # -- reading

    def read(self) -> SavedRun | None:
        """What an earlier daemon left; None: nothing. Raises StateRefusedError."""
        try:
            text = self._text(INDEX)
        except FileNotFoundError:
            return None
        try:
            index = Index.model_validate_json(text)
        except ValidationError as error:
            raise StateRefusedError(f"{INDEX} is damaged: {_first(error)}") from None
        if index.version != VERSION:
            raise StateRefusedError(f"it is of version {index.version}, not {VERSION}")
        if index.boot != boot_id():
            raise StateRefusedError("it is of an earlier boot of this host: its flows are over")
        if index.namespace != network_namespace():
            raise StateRefusedError("it is of another network namespace: its flows are over there")
        names = _Names(index.session, index.reloads)
        try:
            loaded = Loaded.model_validate_json(self._text(names.configuration))
            configuration = loaded.configuration
        except FileNotFoundError:
            raise StateRefusedError(f"{names.configuration} is missing") from None
        except ValidationError as error:
            raise StateRefusedError(f"{names.configuration} is damaged: {_first(error)}") from None
        if configuration is None:
            raise StateRefusedError(f"{names.configuration} has no configuration")
        try:
            descriptor = self._open(names.flows)
        except FileNotFoundError:
            raise StateRefusedError(f"{names.flows} is missing") from None
        flows = _FlowFile(descriptor)
        if flows.header() != _header(bytes.fromhex(index.session)):
            flows.close()
            raise StateRefusedError(f"{names.flows} is damaged or of another state")
        return SavedRun(index, configuration, flows)

    def quarantine(self) -> Path:
        """Quarantine what is rejected, the latest only; where."""
        refused = self._path / REFUSED
        shutil.rmtree(refused, ignore_errors=True)
        with contextlib.suppress(OSError):
            refused.mkdir(mode=0o700)
            for name in self._ours():
                os.replace(self._path / name, refused / name)
        return refused

    def _text(self, name: str) -> str:
        with os.fdopen(self._open(name), "rb") as file:
            data = file.read(_MAXIMUM_TEXT + 1)
        if len(data) > _MAXIMUM_TEXT:
            raise StateRefusedError(f"{name} is larger than {_MAXIMUM_TEXT} bytes")
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise StateRefusedError(f"{name} is no text") from None

    def _open(self, name: str) -> int:
        """Raises FileNotFoundError and StateRefusedError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=self._directory)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StateRefusedError(f"{name} cannot be read: {error.strerror}") from None
        found = os.fstat(descriptor)
        problem = _not_ours(found) if stat.S_ISREG(found.st_mode) else "is no file"
        if problem is not None:
            os.close(descriptor)
            raise StateRefusedError(f"{name} {problem}")
        return descriptor

    # -- writing; all of it raises OSError

    def begin(self, configuration: Configuration) -> None:
        """Write a state of its own from now on; it counts with the first ``write_index``."""
        self._session, self._reloads = secrets.token_bytes(16), 0
        names = self._names
        if self._flows >= 0:
            os.close(self._flows)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._flows = os.open(names.flows, flags, 0o600, dir_fd=self._directory)
        os.pwrite(self._flows, _header(self._session), 0)
        self._replace(names.configuration, Loaded(configuration=configuration).to_json())

    def write_configuration(self, text: str) -> None:
        """The configuration that the engine carries out now, as JSON; it counts with the next
        ``write_index``."""
        self._reloads += 1
        self._replace(self._names.configuration, text)

    def write_index(
        self,
        state: SavedState,
        *,
        base: float,
        time_scale: float,
        seed: int,
        written: float,
        allocations: str | None = None,
    ) -> None:
        """All but the flows. The first one makes what an earlier daemon left void.

        ``allocations``: those of the state as JSON, by ``allocations_in_parts``, if they are known.
        """
        index = Index(
            version=VERSION,
            session=self._session.hex(),
            reloads=self._reloads,
            boot=boot_id(),
            namespace=network_namespace(),
            base=base,
            time_scale=time_scale,
            seed=seed,
            written=written,
            state=state if allocations is None else replace(state, allocations=()),
        )
        text = index.model_dump_json()
        if allocations is not None:
            text = text.replace('"allocations":[]', f'"allocations":[{allocations}]', 1)
        self._replace(INDEX, text)

    def remove_others(self) -> None:
        """Files of earlier states."""
        names = self._names
        for name in self._ours():
            if name not in (INDEX, names.flows, names.configuration):
                os.unlink(name, dir_fd=self._directory)

    def invalidate(self) -> None:
        """Remove what is written so far, as far as that can be: no start is to continue with it."""
        with contextlib.suppress(OSError):
            for name in sorted(self._ours(), reverse=True):  # that which makes it count first
                os.unlink(name, dir_fd=self._directory)

    def write_flows(self, slot: int, records: bytes | bytearray) -> None:
        """The record of a slot, and those of the slots that follow."""
        if os.pwrite(self._flows, records, _HEADER_SIZE + slot * SIZE) != len(records):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @property
    def _names(self) -> _Names:
        return _Names(self._session.hex(), self._reloads)

    def _replace(self, name: str, text: str) -> None:
        draft = f"{name}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(draft, flags, 0o600, dir_fd=self._directory)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
        os.replace(draft, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def _ours(self) -> list[str]:
        return [
            name
            for name in os.listdir(self._directory)
            if name.startswith(("state.json", "flows-", "configuration-"))
        ]


def allocations_in_parts(allocations: tuple[SavedAllocation, ...]) -> Iterator[str]:
    """As JSON in parts that are each made quickly; joined by commas they are the list's content."""
    for start in range(0, len(allocations), ALLOCATIONS_IN_PART):
        some = allocations[start : start + ALLOCATIONS_IN_PART]
        yield _ALLOCATIONS.dump_json(some)[1:-1].decode()


class _Names:
    """The files of a session, after so many reloads."""

    def __init__(self, session: str, reloads: int) -> None:
        self.flows = f"flows-{session}"
        self.configuration = f"configuration-{session}{f'-{reloads}' if reloads else ''}.json"


class _FlowFile:
    """The records that an earlier daemon left."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def header(self) -> bytes:
        try:
            return os.pread(self._descriptor, _HEADER.size, 0)
        except OSError:
            return b""

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Slots and records, without the empty ones. What cannot be read ends it."""
        for slot in range(0, _MOST_RECORDS, _RECORDS_PER_READ):
            offset = _HEADER_SIZE + slot * SIZE
            try:
                block = os.pread(self._descriptor, _RECORDS_PER_READ * SIZE, offset)
            except OSError:
                return
            if not block:
                return
            if block == _NOTHING[: len(block)]:
                continue
            for start in range(0, len(block), SIZE):
                record = block[start : start + SIZE]
                if record != EMPTY:
                    yield slot + start // SIZE, record

    def close(self) -> None:
        os.close(self._descriptor)


def _not_ours(found: os.stat_result) -> str | None:
    """Why others than this user may have written to a file; None: no other may."""
    if found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}"
    return "can be written by others" if found.st_mode & 0o022 else None


def boot_id() -> str:
    """This boot of the host: CLOCK_MONOTONIC is one within it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def network_namespace() -> int:
    """The namespace whose connections these are."""
    return os.stat("/proc/self/ns/net").st_ino


def _header(session: bytes) -> bytes:
    start = _HEADER.pack(_MAGIC, VERSION, SIZE, session, 0)[:-4]
    return start + crc32(start).to_bytes(4, "little")


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else str(problem["msg"])
