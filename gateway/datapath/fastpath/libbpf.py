"""What the fast path needs of libbpf (``libbpf.so.1``), through cffi's ABI mode.

Errors are OSError with libbpf's errno; what the kernel's verifier or libbpf itself has to say is
kept and added to them. Maps are known by descriptors of this process, which are its own to close.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from struct import Struct
from types import MappingProxyType
from typing import Any, NamedTuple

import cffi

LIBRARY = "libbpf.so.1"
BPF_ANY, BPF_NOEXIST = 0, 1
BATCH = 4096  # entries; more than any bucket of a hash map has
# Of struct bpf_prog_info: nr_map_ids and map_ids; and the first members of struct bpf_map_info.
_program_maps, _PROGRAM_MAPS_AT, _PROGRAM_INFO = Struct("=I Q"), 52, 104
_map_info, _MAP_INFO = Struct("=6I16s"), 40
_MOST_MAPS = 16

_DECLARATIONS = """
struct bpf_object; struct bpf_program; struct bpf_map;
typedef int (*libbpf_print_fn_t)(int level, const char *, void *);
libbpf_print_fn_t libbpf_set_print(libbpf_print_fn_t fn);
struct bpf_object *bpf_object__open_file(const char *path, const void *opts);
int bpf_object__load(struct bpf_object *obj);
void bpf_object__close(struct bpf_object *object);
struct bpf_program *bpf_object__find_program_by_name(const struct bpf_object *obj,
    const char *name);
int bpf_program__fd(const struct bpf_program *prog);
struct bpf_map *bpf_object__find_map_by_name(const struct bpf_object *obj, const char *name);
int bpf_map__fd(const struct bpf_map *map);
int bpf_map__set_max_entries(struct bpf_map *map, uint32_t max_entries);
int bpf_map__set_initial_value(struct bpf_map *map, const void *data, size_t size);
int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags);
int bpf_map_delete_elem(int fd, const void *key);
int bpf_map_lookup_elem(int fd, const void *key, void *value);
int bpf_map_lookup_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values,
    uint32_t *count, const void *opts);
int bpf_map__reuse_fd(struct bpf_map *map, int fd);
int bpf_prog_get_fd_by_id(uint32_t id);
int bpf_map_get_fd_by_id(uint32_t id);
int bpf_obj_get_info_by_fd(int bpf_fd, void *info, uint32_t *info_len);
int bpf_obj_pin(int fd, const char *pathname);
int bpf_obj_get(const char *pathname);
"""


class MapInfo(NamedTuple):
    """What the kernel reports of a map; the start of ``struct bpf_map_info``."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    padded_name: bytes

    @property
    def name(self) -> str:
        """At most 15 characters."""
        return self.padded_name.rstrip(b"\0").decode("ascii", "replace")


def open_library() -> tuple[cffi.FFI, Any]:
    """libbpf, silenced on standard error. Raises OSError where it is not there."""
    ffi = cffi.FFI()
    ffi.cdef(_DECLARATIONS)
    library = ffi.dlopen(LIBRARY)
    library.libbpf_set_print(ffi.NULL)
    return ffi, library


def maps_of_program(program: int) -> list[tuple[int, MapInfo]]:
    """Descriptors of the maps that a program (its id) uses, the caller's to close.

    Raises OSError; EPERM: this takes CAP_SYS_ADMIN.
    """
    ffi, library = open_library()
    descriptor = _opened(library.bpf_prog_get_fd_by_id(program))
    found: list[tuple[int, MapInfo]] = []
    try:
        ids = ffi.new("uint32_t[]", _MOST_MAPS)
        info = bytearray(_PROGRAM_INFO)
        address = int(ffi.cast("uintptr_t", ids))
        _program_maps.pack_into(info, _PROGRAM_MAPS_AT, len(ids), address)
        _tell(ffi, library, descriptor, info)
        count = min(_program_maps.unpack_from(info, _PROGRAM_MAPS_AT)[0], _MOST_MAPS)
        for number in ids[0:count]:
            one = _opened(library.bpf_map_get_fd_by_id(number))
            found.append((one, map_info(one)))
    except OSError:
        for one, _ in found:
            os.close(one)
        raise
    finally:
        os.close(descriptor)
    return found


def map_info(descriptor: int) -> MapInfo:
    """What the kernel reports of a map. Raises OSError."""
    ffi, library = open_library()
    info = bytearray(_MAP_INFO)
    _tell(ffi, library, descriptor, info)
    return MapInfo._make(_map_info.unpack_from(info))


def _opened(descriptor: int) -> int:
    if descriptor < 0:
        raise OSError(-descriptor, os.strerror(-descriptor))
    return descriptor


def _tell(ffi: cffi.FFI, library: Any, descriptor: int, info: bytearray) -> None:
    length = ffi.new("uint32_t *", len(info))
    _opened(library.bpf_obj_get_info_by_fd(descriptor, ffi.from_buffer(info), length))


class BpfObject:
    """A compiled object, loaded: its maps and programs by name."""

    def __init__(
        self,
        path: str,
        *,
        entries: dict[str, int],
        variables: bytes,
        reused: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """``entries``: the size of maps; ``variables``: the bytes of ``.bss``; ``reused``: maps
        that are there already (descriptors, which stay the caller's), in place of new ones.

        Raises OSError: no library, no such file, or the kernel rejects it.
        """
        self._ffi, self._library = open_library()
        library = self._library
        self._object = library.bpf_object__open_file(os.fsencode(path), self._ffi.NULL)
        if not self._object:
            raise OSError(self._ffi.errno, os.strerror(self._ffi.errno), path)
        try:
            for name, count in entries.items():
                self._check(library.bpf_map__set_max_entries(self._map(name), count), name)
            for name, descriptor in reused.items():
                self._check(library.bpf_map__reuse_fd(self._map(name), descriptor), name)
            section = self._map(".bss")
            self._check(
                library.bpf_map__set_initial_value(section, variables, len(variables)), ".bss"
            )
            self._check(library.bpf_object__load(self._object), "the kernel rejects the program")
        except OSError:
            self.close()
            raise

    def program(self, name: str) -> int:
        """The descriptor of a program; it is this object's."""
        found = self._library.bpf_object__find_program_by_name(self._object, name.encode())
        if not found:
            raise OSError(errno.ENOENT, f"no program {name}")
        return int(self._library.bpf_program__fd(found))

    def map(self, name: str) -> int:
        """The descriptor of a map; it is this object's."""
        return int(self._library.bpf_map__fd(self._map(name)))

    def insert(self, descriptor: int, key: bytes, value: bytes) -> int:
        """Put a key that is not there yet; 0, or an errno (EEXIST, E2BIG: full)."""
        return -int(self._library.bpf_map_update_elem(descriptor, key, value, BPF_NOEXIST))

    def set_variables(self, value: bytes) -> None:
        """Change the bytes of ``.bss`` while programs run. Raises OSError."""
        section, key = self.map(".bss"), bytes(4)
        result = self._library.bpf_map_update_elem(section, key, value, BPF_ANY)
        self._check(result, ".bss")

    def delete(self, descriptor: int, key: bytes) -> int:
        """Remove a key; 0, or an errno (ENOENT)."""
        return -int(self._library.bpf_map_delete_elem(descriptor, key))

    def lookup(self, descriptor: int, key: bytes, size: int) -> bytes | None:
        """The value (of ``size`` bytes) of a key, or None."""
        value = bytearray(size)
        found = self._library.bpf_map_lookup_elem(descriptor, key, self._ffi.from_buffer(value))
        return None if found else bytes(value)

    def keys(self, descriptor: int, key_size: int, value_size: int) -> Iterator[bytes]:
        """Every key of a hash map, read by the thousand; one may come twice. Raises OSError."""
        ffi = self._ffi
        keys, values = bytearray(BATCH * key_size), bytearray(BATCH * value_size)
        at, following = ffi.NULL, ffi.new("uint32_t[4]")
        while True:
            count = ffi.new("uint32_t *", BATCH)
            result = self._library.bpf_map_lookup_batch(
                descriptor,
                at,
                following,
                ffi.from_buffer(keys),
                ffi.from_buffer(values),
                count,
                ffi.NULL,
            )
            if result not in (0, -errno.ENOENT):
                raise OSError(-result, os.strerror(-result))
            for start in range(0, count[0] * key_size, key_size):
                yield bytes(keys[start : start + key_size])
            if result:
                return
            at = ffi.new("uint32_t[4]", list(following))

    def close(self) -> None:
        """Close every descriptor. What is attached or pinned lives on."""
        if self._object:
            self._library.bpf_object__close(self._object)
            self._object = None

    def _map(self, name: str) -> Any:
        found = self._library.bpf_object__find_map_by_name(self._object, name.encode())
        if not found:
            raise OSError(errno.ENOENT, f"no map {name}")
        return found

    @staticmethod
    def _check(result: int, what: str) -> None:
        if result < 0:
            raise OSError(-result, f"{what}: {os.strerror(-result)}")
