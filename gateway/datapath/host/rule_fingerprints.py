"""Whether rules in the kernel are still the same ones: a look that costs a millisecond.

``iptables-save`` prints what stands, and takes many milliseconds, in which no packet passes the
engine. This asks the kernel itself and understands as little as it can: of nf_tables the handles
and expressions of the rules in chains of ours, and of those that jump there; of the legacy tables,
of whose changes the kernel notifies no process, everything. Counters do not matter. What comes out
is only good for comparing: what differs is then read in full.
"""

from __future__ import annotations

import ctypes
import hashlib
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from gateway.datapath.host import netlink
from gateway.datapath.host.netlink import attribute, attributes, each_attribute

Place = tuple[int, str, str]
"""A chain: address family, table, name; or the name is ``WHOLE_TABLE``."""
WHOLE_TABLE = ""
"""Every rule of the table, of any program."""

_NETFILTER = 12  # linux/netlink.h
_NFTABLES_GETRULE = 10 << 8 | 7  # linux/netfilter: NFNL_SUBSYS_NFTABLES, NFT_MSG_GETRULE
_TABLE, _CHAIN, _HANDLE, _EXPRESSIONS = 1, 2, 3, 4  # NFTA_RULE_…
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_nfgenmsg = Struct("=BBH")

# linux/netfilter_ipv4/ip_tables.h; ip6_tables.h has the same numbers.
_GET_INFO, _GET_ENTRIES = 64, 65
_getinfo, _get_entries = Struct("=32s13I"), Struct("=32sI4x")  # ..., entries, size; name, size


class _Family(NamedTuple):
    """Of an entry's head (struct ipt_entry): its size, and where the next entry's offset stands."""

    names: Path
    level: int
    head: int
    following: int


_LEGACY: dict[int, _Family] = {
    socket.AF_INET: _Family(Path("/proc/net/ip_tables_names"), socket.IPPROTO_IP, 112, 90),
    socket.AF_INET6: _Family(Path("/proc/net/ip6_tables_names"), socket.IPPROTO_IPV6, 168, 142),
}
_COUNTERS = 16  # bytes at the end of a head
_libc = ctypes.CDLL(None)


def mark(places: Iterable[Place], prefix: str, legacy: bytes) -> bytes:
    """A digest of the rules in these chains, as far as they stand in a chain or table whose name
    begins with ``prefix``, or jump to one, or in a whole table; and of every legacy table, of which
    ``legacy`` is the mark. Never raises."""
    digest = hashlib.sha256()
    for place in places:
        for rule in _rules(place, prefix):
            digest.update(rule)
    digest.update(legacy)
    return digest.digest()


def legacy_mark() -> bytes:
    """A digest of the legacy tables; empty where there are none. Reads every rule: 85 ms for 20,000
    of them. May raise OSError."""
    digest = None
    for number, family, table in _legacy_tables():
        digest = hashlib.sha256() if digest is None else digest
        digest.update(table.encode())
        digest.update(_legacy_table(number, family, table))
    return b"" if digest is None else digest.digest()


def legacy_sizes() -> list[bytes]:
    """What the kernel reports of each legacy table without its rules: how many and how long they
    are, and where each chain begins and ends. A few microseconds, however many; what stays is what
    puts a rule in place of one as long. May raise OSError."""
    sizes = []
    for number, family, table in _legacy_tables():
        with socket.socket(number, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            sizes.append(_info(raw, family, table.encode()))
    return sizes


def _legacy_tables() -> Iterator[tuple[int, _Family, str]]:
    for number, family in _LEGACY.items():
        try:
            tables = family.names.read_text().split()
        except OSError:
            continue
        for table in sorted(tables):
            yield number, family, table


def _rules(place: Place, prefix: str) -> Iterator[bytes]:
    family, table, chain = place
    in_table, in_chain = table.encode() + b"\0", chain.encode() + b"\0"
    body = _nfgenmsg.pack(family, 0, 0) + attribute(_TABLE, in_table)
    if chain != WHOLE_TABLE:
        body += attribute(_CHAIN, in_chain)
    try:
        for message in netlink.dump(_NFTABLES_GETRULE, body, _NETFILTER):
            found = attributes(message[_nfgenmsg.size :])
            # Names are bytes: others' may be no text.
            if found.get(_TABLE) != in_table:
                continue
            if chain != WHOLE_TABLE and found.get(_CHAIN) != in_chain:
                continue
            rule = b"".join(_expressions(found.get(_EXPRESSIONS, b"")))
            ours = chain == WHOLE_TABLE or chain.startswith(prefix) or f"{table}-" == prefix
            if ours or prefix.encode() in rule:
                yield found[_CHAIN] + found.get(_HANDLE, b"") + rule
    except OSError:
        return  # no such table or chain, or no nf_tables


def _expressions(data: bytes) -> Iterator[bytes]:
    for _, element in each_attribute(data):
        expression = attributes(element)
        name = expression.get(_EXPRESSION_NAME, b"")
        yield name if name == b"counter\0" else name + expression.get(_EXPRESSION_DATA, b"")


def legacy_entries(number: int, table: str) -> bytearray:
    """A legacy table of a family as the kernel has it, counters and all; empty: there is none. May
    raise OSError."""
    family = _LEGACY[number]
    if table not in family.names.read_text().split():  # to ask for it would make it
        return bytearray()
    with socket.socket(number, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        info = _info(raw, family, table.encode())
        if not info:
            return bytearray()
        size = _getinfo.unpack(info)[-1]
        asked = _get_entries.pack(table.encode(), size)
        answer = _ask(raw, family, _GET_ENTRIES, asked, len(asked) + size)
    return bytearray(answer[_get_entries.size :])


def legacy_head(number: int) -> int:
    """The size of an entry's head in a family's tables; it ends with packets and bytes."""
    return _LEGACY[number].head


def _legacy_table(number: int, family: _Family, table: str) -> bytes:
    """A table's entries without their counters."""
    entries = legacy_entries(number, table)
    place = 0
    while place + family.head <= len(entries):
        end = place + family.head
        entries[end - _COUNTERS : end] = bytes(_COUNTERS)
        where = place + family.following
        following = int.from_bytes(entries[where : where + 2], sys.byteorder)
        if not following:
            break
        place += following
    return bytes(entries)


def _info(raw: socket.socket, family: _Family, name: bytes) -> bytes:
    return _ask(raw, family, _GET_INFO, _getinfo.pack(name, *(0,) * 13), _getinfo.size)


def _ask(raw: socket.socket, family: _Family, option: int, asked: bytes, room: int) -> bytes:
    """``getsockopt`` with a question in its buffer, as Python's has none; empty: no answer."""
    buffer = ctypes.create_string_buffer(asked, room)
    size = ctypes.c_uint32(room)
    failed = _libc.getsockopt(raw.fileno(), family.level, option, buffer, ctypes.byref(size))
    return b"" if failed else buffer.raw
