"""Names for the fast path's maps in bpffs, by which the next daemon finds them.

Without them that would take CAP_SYS_ADMIN. A gateway's are in
``/sys/fs/bpf/snatgw/<network namespace>-<outside interface>``, for their owner only. Where bpffs is
not mounted or not to be written to (containers, ``ip netns exec``), nothing is pinned and nothing
else changes. A pin keeps its map in memory, so that what no gateway will ask for any more is
removed: at a clean end, and at the next start of any.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

from gateway.datapath.fastpath.libbpf import open_library
from gateway.datapath.host.addresses_and_routes import find_link
from gateway.datapath.host.interface_lock import is_claimed

ROOT = Path("/sys/fs/bpf/snatgw")
MOST_LOOKED_AT = 256
"""Gateways whose pins a start checks, for what is stale."""
_MOST_PROCESSES = 65536
_ALL_PROCESSES = 0xEFFFFFFC  # PROC_PID_INIT_INO: the pid namespace that has every process
_NAMED_NAMESPACES = (Path("/run/netns"), Path("/run/docker/netns"))


class Pins:
    """The pins of the gateway with this outside interface, in this network namespace."""

    def __init__(self, outside: str) -> None:
        # bpffs keeps names with dots for itself, and VLAN interfaces have one.
        name = outside.replace("%", "%25").replace(".", "%2E")
        self._root = ROOT
        self._directory = ROOT / f"{_namespace()}-{name}"

    def open(self, names: Iterable[str]) -> dict[str, int]:
        """Descriptors of those that are there, the caller's to close; empty: nothing is pinned.

        Raises OSError where they are not to be opened, or are writable by another user.
        """
        found: dict[str, int] = {}
        if not _is_ours(self._root) or not _is_ours(self._directory):
            return found
        _, library = open_library()
        try:
            for name in names:
                descriptor = library.bpf_obj_get(os.fsencode(self._directory / name))
                if descriptor >= 0:
                    found[name] = descriptor
                elif -descriptor != errno.ENOENT:
                    raise OSError(-descriptor, os.strerror(-descriptor))
        except OSError:
            for descriptor in found.values():
                os.close(descriptor)
            raise
        return found

    def renew(self, maps: Mapping[str, int]) -> bool:
        """Pin these in place of what was pinned. False: this is no place for pins."""
        self.remove()
        _, library = open_library()
        try:
            for directory in (self._root, self._directory):
                with contextlib.suppress(FileExistsError):
                    directory.mkdir(mode=0o700)
                if not _is_ours(directory):
                    return False
            for name, descriptor in maps.items():
                result = library.bpf_obj_pin(descriptor, os.fsencode(self._directory / name))
                if result < 0:
                    raise OSError(-result, os.strerror(-result))
        except OSError:
            self.remove()
            return False
        return True

    def remove(self) -> None:
        """Remove them, as far as they are there."""
        _remove(self._directory)


def remove_stale() -> None:
    """Remove pins of gateways that are gone with their interface or their network namespace.

    Namespaces of others are checked only where all processes are visible.
    """
    try:
        if not _is_ours(ROOT):
            return
        found = sorted(entry.name for entry in os.scandir(ROOT))[:MOST_LOOKED_AT]
    except OSError:
        return
    here, alive = _namespace(), None
    for name in found:
        namespace, _, quoted = name.partition("-")
        if not namespace.isdecimal() or not quoted:
            continue
        if int(namespace) == here:
            outside = unquote(quoted)
            gone = find_link(outside) is None and not is_claimed(outside)
        else:
            alive = _namespaces() if alive is None else alive
            gone = bool(alive) and int(namespace) not in alive
        if gone:
            _remove(ROOT / name)


def _remove(directory: Path) -> None:
    with contextlib.suppress(OSError):
        if _is_ours(directory):
            for entry in list(os.scandir(directory)):
                os.unlink(entry.path)
            os.rmdir(directory)
            os.rmdir(directory.parent)  # the last one's


def _is_ours(directory: Path) -> bool:
    """Whether it is there. Raises OSError where others may have put something into it."""
    try:
        found = directory.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EACCES, f"{directory} is not this user's alone")
    return True


def _namespace() -> int:
    return os.stat("/proc/self/ns/net").st_ino


def _namespaces() -> set[int]:
    """Network namespaces that a process or a name keeps; empty where they cannot all be seen."""
    try:
        if os.stat("/proc/self/ns/pid").st_ino != _ALL_PROCESSES:
            return set()
        found = {os.stat("/proc/1/ns/net").st_ino}
        processes = [entry.name for entry in os.scandir("/proc") if entry.name.isdecimal()]
        if len(processes) > _MOST_PROCESSES:
            return set()
        for process in processes:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found.add(os.stat(f"/proc/{process}/ns/net").st_ino)
        for folder in _NAMED_NAMESPACES:
            if folder.is_dir():
                found.update(entry.stat().st_ino for entry in folder.iterdir())
    except OSError:
        return set()
    return found
