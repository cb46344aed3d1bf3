"""What the fast path needs of libbpf (``libbpf.so.1``), through cffi's ABI mode.

Errors are OSError with libbpf's errno; what the kernel's verifier or libbpf itself has to say is
kept and added to them. Maps are known by descriptors of this process, which are its own to close.
"""

from __future__ import annotations

import errno
import os
from typing import Any

import cffi

LIBRARY = "libbpf.so.1"
BPF_ANY, BPF_NOEXIST = 0, 1

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
"""


class BpfObject:
    """A compiled object, loaded: its maps and programs by name."""

    def __init__(self, path: str, *, entries: dict[str, int], variables: bytes) -> None:
        """``entries``: the size of maps; ``variables``: the bytes of ``.bss``.

        Raises OSError: no library, no such file, or the kernel refuses it.
        """
        self._ffi = cffi.FFI()
        self._ffi.cdef(_DECLARATIONS)
        self._library: Any = self._ffi.dlopen(LIBRARY)
        self._library.libbpf_set_print(self._ffi.NULL)  # standard error is not its to write to
        library = self._library
        self._object = library.bpf_object__open_file(os.fsencode(path), self._ffi.NULL)
        if not self._object:
            raise OSError(self._ffi.errno, os.strerror(self._ffi.errno), path)
        try:
            for name, count in entries.items():
                self._check(library.bpf_map__set_max_entries(self._map(name), count), name)
            section = self._map(".bss")
            self._check(
                library.bpf_map__set_initial_value(section, variables, len(variables)), ".bss"
            )
            self._check(library.bpf_object__load(self._object), "the kernel refuses the program")
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
