"""Finds the maps that an earlier daemon left in the kernel, to reuse them.

They are looked for where that one pinned them (``pins.py``). Where it could not, the filters on the
interfaces lead to them: a filter holds its program and the program its maps, whatever process has
died. That takes CAP_SYS_ADMIN. Either way they belong to these interfaces of this network namespace
and to no other. Where anything about them is not as this program has it, there is nothing to
inherit, and the reason is reported.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from pyroute2.netlink.exceptions import NetlinkError

from gateway.datapath.fastpath.libbpf import MapInfo, map_info, maps_of_program
from gateway.datapath.fastpath.map_layout import LAYOUT
from gateway.datapath.fastpath.pins import Pins
from gateway.datapath.fastpath.tc_filters import attached

Shape = tuple[int, int, int]
"""Of a map: size of a key, of a value, and how many there may be."""


class Inheritance:
    """``maps``: descriptors by name, until ``close``; empty: ``reason`` says why, or there is no
    reason since nothing was left. ``pinned``: it is pins that led to them."""

    def __init__(self, interfaces: Iterable[str], shapes: dict[str, Shape], pins: Pins) -> None:
        self.maps: dict[str, int] = {}
        self.reason = ""
        self.pinned = False
        try:
            found = self._pinned(pins, shapes)
            self.pinned = bool(found)
            found = found or self._attached(interfaces)
            ids: dict[str, int] = {}
            for descriptor, info in found:
                shape = (info.key_size, info.value_size, info.max_entries)
                known = ids.setdefault(info.name, info.id)
                if info.name not in shapes or info.name in self.maps:
                    os.close(descriptor)
                else:
                    self.maps[info.name] = descriptor
                if info.name in shapes and (known != info.id or shape != shapes[info.name]):
                    self.reason = "they have another size (gateway.maximumFlows)"
            if found and not self.reason and self.maps.keys() != shapes.keys():
                self.reason = "maps are missing"
        except (OSError, NetlinkError) as error:
            self.reason = getattr(error, "strerror", None) or str(error)
            if getattr(error, "errno", None) == errno.EPERM:
                self.reason += " (without bpffs on /sys/fs/bpf it takes CAP_SYS_ADMIN)"
        if self.reason:
            self.close()

    def close(self) -> None:
        """Close the descriptors. The maps stay as long as anything else holds them."""
        for descriptor in self.maps.values():
            os.close(descriptor)
        self.maps.clear()

    @staticmethod
    def _pinned(pins: Pins, shapes: Iterable[str]) -> list[tuple[int, MapInfo]]:
        opened = pins.open([layout_name(name) for name in shapes])
        return [(descriptor, map_info(descriptor)) for descriptor in opened.values()]

    @staticmethod
    def _attached(interfaces: Iterable[str]) -> list[tuple[int, MapInfo]]:
        programs = [attached(name) for name in interfaces]
        if None in programs:
            return []
        return [found for program in programs for found in maps_of_program(program or 0)]


def layout_name(name: str) -> str:
    """What a map is pinned as: those of another layout cannot be reused."""
    return f"{name}-{LAYOUT}"
