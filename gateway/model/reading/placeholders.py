"""What stands in for required keys that a file lacks, so that the rest of it can be checked.

No two substitutes are alike and none is like anything in the file: addresses of the reserved
240.0.0.0/4, names that no resource has, ports and priorities that are not in it. What a check says
about one is dropped; about what is around it, it says what it would say if the key were there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

from gateway.model.problems import Location

_NAME = "substitute-8c1f7a25-"
_FIRST_ADDRESS = int(IPv4Address("255.0.0.0"))
_ADDRESSES = 1 << 23


class Substitutes:
    """Makes them, for one file's data."""

    def __init__(self, data: object = None) -> None:
        self._data = data
        self._taken: set[int] | None = None
        self._made = 0

    def of(self, location: Location) -> dict[str, object]:
        """The required key at ``location`` with its substitute, and what must go with it."""
        key = str(location[-1])
        if key in _PARTS:
            return {key: {name: self._value(name) for name in _PARTS[key]}}
        keys = [key]
        # Two rules that differ in the key may have the same of these.
        if key == "protocol" and location[-3] in ("loadBalancingRules", "inboundNatRules"):
            keys += ["frontendPort", "backendPort"]
        elif key == "direction":
            keys.append("priority")
        return {name: self._value(name) for name in keys}

    def _value(self, key: str) -> object:
        self._made += 1
        value = _VALUES[key]
        if isinstance(value, range):
            if self._taken is None:
                self._taken = set(_numbers(self._data))
            free = next((n for n in value if n not in self._taken), value[0])
            self._taken.add(free)
            return free
        return value(self._made)

    def taken_out(self, message: str) -> str:
        """A sentence for the user, who knows of no substitutes."""
        return re.sub(rf"{_NAME}\d+", "one without a name", message)


def _name(number: int) -> str:
    return f"{_NAME}{number}"


def _address(number: int) -> str:
    return str(IPv4Address(_FIRST_ADDRESS + number % _ADDRESSES))


def _prefix(number: int) -> str:
    return f"{IPv4Address(_FIRST_ADDRESS + _ADDRESSES + number * 8 % _ADDRESSES)}/29"


def _numbers(data: object) -> Iterator[int]:
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    for value in inner:
        if isinstance(value, int):
            yield value
        elif isinstance(value, str):
            if value.isascii() and value.isdigit():
                yield int(value[:6])
        else:
            yield from _numbers(value)


_PORTS = range(1, 1024)  # never SNAT ports
_PARTS = {"gateway": ("inside", "outside"), "virtualNetwork": ("addressPrefixes", "subnets")}
_VALUES: dict[str, Callable[[int], object] | range] = {
    "name": _name,
    "publicIPAddress": _name,
    "frontendIPConfiguration": _name,
    "backendAddressPool": _name,
    "virtualMachine": _name,
    "frontendIPConfigurations": lambda number: [_name(number)],
    "publicIPAddresses": lambda number: [_name(number)],
    "inside": lambda number: [f"inside.{number}"[:15]],
    "outside": lambda number: f"outside.{number}"[:15],
    "addressPrefixes": lambda number: ["255.255.255.255/32"],
    "subnets": lambda number: [{"name": _name(number), "addressPrefix": _prefix(number)}],
    "addressPrefix": _prefix,
    "ipAddress": _address,
    "privateIPAddress": _address,
    "protocol": lambda number: "Tcp",
    "port": _PORTS,
    "frontendPort": _PORTS,
    "backendPort": _PORTS,
    "direction": lambda number: "Inbound",
    "access": lambda number: "Allow",
    "priority": range(100, 4097),
}
