"""Python and eBPF mean the same bytes: the layouts of ``map_layout.py`` beside the program's own."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from gateway.datapath.fastpath.fast_path import OBJECT
from gateway.datapath.fastpath.map_layout import (
    ACKNOWLEDGED_AT,
    ANY,
    COUNTER,
    COUNTERS,
    ENTRY_SIZE,
    FROM_OUTSIDE,
    KEY,
    UP_AT,
    USED_AT,
    Direction,
)

pytestmark = pytest.mark.skipif(not OBJECT.exists(), reason="fastpath.o is not compiled")

_SECTION_HEADERS_AT, _SECTION_HEADER_SIZE = 40, 64  # of 64-bit ELF
_STRUCT = 4
# Bytes that follow a type, by its kind: once, and for each member (linux/btf.h).
_MORE = {1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0)}
_MORE |= {15: (0, 12), 17: (4, 0), 19: (0, 12)}


def btf() -> bytes:
    """The program's own description of its types: the section named so."""
    elf = OBJECT.read_bytes()
    (start,) = struct.unpack_from("<Q", elf, _SECTION_HEADERS_AT)
    count, names = struct.unpack_from("<HH", elf, 60)
    headers = [
        struct.unpack_from("<II16xQQ", elf, start + n * _SECTION_HEADER_SIZE) for n in range(count)
    ]
    for name, _, at, size in headers:
        if elf[headers[names][2] + name :].startswith(b".BTF\0"):
            return elf[at : at + size]
    raise AssertionError("compiled without -g")


def structs() -> Iterator[tuple[str, int, dict[str, int]]]:
    """Each one's name, size, and where its members are."""
    found = btf()
    header, types, length, strings = struct.unpack_from("<4xIIII", found)
    at, end, strings = header + types, header + types + length, header + strings

    def name(offset: int) -> str:
        return found[strings + offset : found.index(0, strings + offset)].decode()

    while at < end:
        called, info, size = struct.unpack_from("<III", found, at)
        kind, members = info >> 24 & 0x1F, info & 0xFFFF
        once, each = _MORE.get(kind, (0, 0))
        at += 12
        if kind == _STRUCT:
            fields = [struct.unpack_from("<III", found, at + n * each) for n in range(members)]
            yield name(called), size, {name(word): bits // 8 for word, _, bits in fields}
        at += once + members * each


@pytest.fixture(scope="module")
def layouts() -> dict[str, tuple[int, dict[str, int]]]:
    return {name: (size, fields) for name, size, fields in structs()}


@pytest.mark.parametrize("awaited", [True, False])
def test_an_entry_is_what_the_program_reads(
    layouts: dict[str, tuple[int, dict[str, int]]], awaited: bool
) -> None:
    size, at = layouts["entry"]
    direction = Direction(
        bytes(range(12)), 17, FROM_OUTSIDE, b"\1\2\3\4", b"\5\6", True, 0xFEDCBA98, awaited
    )
    value = direction.entry(1 << 63 | 5, 0x01020304, reverse=True)
    assert len(value) == ENTRY_SIZE == size
    known = {
        "flow": (1 << 63 | 5).to_bytes(8, "little"),
        "counter": (0x01020304).to_bytes(4, "little"),
        "address": b"\1\2\3\4",
        "port": b"\5\6",
        "seen": bytes([0 if awaited else ANY]),
        "to_outside": b"\1",
        "reverse": b"\1",
        "idle": (0xFEDCBA98).to_bytes(4, "little"),
    }
    again = bytearray(size)
    for name, field in known.items():
        again[at[name] : at[name] + len(field)] = field
    assert bytes(again) == value  # and all others are 0

    def kernel_writes(*names: str) -> bytes:
        changed = bytearray(value)
        for name in names:
            changed[at[name]] ^= 0xFF
        return bytes(changed)

    its_own = ("way", "seen", "tos", "from", "looked", "mtu", "mark", "waiting", "marked", "last")
    assert direction.is_carried(kernel_writes(*its_own), 1 << 63 | 5, 0x01020304)
    for name in ("flow", "counter", "address", "port", "to_outside"):
        assert not direction.is_carried(kernel_writes(name), 1 << 63 | 5, 0x01020304)


def test_an_entry_and_what_the_map_puts_around_it_fit_into_two_cache_lines(
    layouts: dict[str, tuple[int, dict[str, int]]],
) -> None:
    around = 8 + 48  # of the allocator, of the hash map: linux/kernel/bpf, since 6.1
    assert around + layouts["key"][0] + layouts["entry"][0] <= 128


def test_keys_and_counters_are_what_the_program_has(
    layouts: dict[str, tuple[int, dict[str, int]]],
) -> None:
    size, at = layouts["key"]
    assert (KEY.size, at["source"], at["protocol"], at["side"]) == (size, 0, 12, 13)
    size, at = layouts["counter"]
    assert (COUNTER.size, COUNTERS.size) == (size, 2 * size)
    assert (at["packets"], at["bytes"], at["used"]) == (0, 8, USED_AT)
    assert (at["acknowledged"], at["up"], at["handled"]) == (ACKNOWLEDGED_AT, UP_AT, UP_AT + 2)
