"""Finds the maps that an earlier daemon left in the kernel, to go on with them.

A filter on an interface holds its program and the program its maps, whoever has died. So the filter
is where the next daemon looks: what it finds there belongs to these interfaces of this network
namespace and to nobody else, goes with them, and needs no file system. It takes CAP_SYS_ADMIN;
without it, or where anything about the maps is not as this program has it, there is nothing to
inherit, and why is said.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from pyroute2.netlink.exceptions import NetlinkError

from gateway.datapath.fastpath.filters import attached
from gateway.datapath.fastpath.libbpf import maps_of_program

Shape = tuple[int, int, int]
"""Of a map: size of a key, of a value, and how many there may be."""


class Inheritance:
    """``maps``: descriptors by name, until ``close``; empty: ``reason`` says why, or there is no
    reason since nothing was left."""

    def __init__(self, interfaces: Iterable[str], shapes: dict[str, Shape]) -> None:
        self.maps: dict[str, int] = {}
        self.reason = ""
        try:
            programs = [attached(name) for name in interfaces]
            if None in programs:
                return
            ids: dict[str, int] = {}
            for program in programs:
                for descriptor, info in maps_of_program(program or 0):
                    shape = (info.key_size, info.value_size, info.max_entries)
                    known = ids.setdefault(info.name, info.id)
                    if info.name not in shapes or info.name in self.maps:
                        os.close(descriptor)
                    else:
                        self.maps[info.name] = descriptor
                    if info.name in shapes and (known != info.id or shape != shapes[info.name]):
                        self.reason = "they have another size (gateway.maximumFlows)"
            if not self.reason and self.maps.keys() != shapes.keys():
                self.reason = "maps are missing"
        except (OSError, NetlinkError) as error:
            self.reason = getattr(error, "strerror", None) or str(error)
        if self.reason:
            self.close()

    def close(self) -> None:
        """Close the descriptors. The maps stay as long as anything else holds them."""
        for descriptor in self.maps.values():
            os.close(descriptor)
        self.maps.clear()
