"""The scalar types of a configuration, each with the sentence that a user reads when it is wrong.

pydantic converts generously (true is 1, an integer is an address): these types do not, and every
error says what is allowed. They accept what a YAML or JSON file holds and what Python code
passes, so that a configuration survives the way through JSON unchanged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

RESOURCE_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?")
SERVICE_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
LONGEST_DESCRIPTION = 140
_OCTETS = frozenset(map(str, range(256)))
PREFIX = re.compile(r"(?P<address>[0-9.]+)/(?P<length>[0-9]{1,2})")


def refused(message: str) -> PydanticCustomError:
    """An error whose message reaches the user word for word."""
    return PydanticCustomError("refused", "{reason}", {"reason": message})


def whole(low: int, high: int, note: str = "") -> BeforeValidator:
    """Whole numbers from ``low`` to ``high``, also as text."""
    allowed = f"allowed: {low} to {high}{note}"

    def check(value: object) -> object:
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise refused(f"must be a whole number; {allowed}")
        if not low <= value <= high:
            raise refused(f"out of range; {allowed}")
        return value

    return BeforeValidator(check)


def number(above: float, high: float, allowed: str) -> BeforeValidator:
    """Numbers more than ``above``, at most ``high``; ``allowed`` puts that in words."""

    def check(value: object) -> object:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise refused(f"must be a number; allowed: {allowed}") from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise refused(f"must be a number; allowed: {allowed}")
        if math.isnan(value) or not above < value <= high:
            raise refused(f"out of range; allowed: {allowed}")
        return float(value)

    return BeforeValidator(check)


def _text(value: object, what: str) -> str:
    if isinstance(value, bool | int | float):
        raise refused(f"must be text: {what}; put it in quotes")
    if not isinstance(value, str):
        raise refused(f"must be text: {what}")
    return value


def _name(value: object) -> str:
    text = _text(value, "a name")
    if not RESOURCE_NAME.fullmatch(text):
        raise refused(
            "not a resource name; allowed: 1 to 80 of letters, digits, '_', '-', '.', "
            "beginning with a letter, digit or '_', ending with one of these"
        )
    return text


def _interface(value: object) -> str:
    text = _text(value, "an interface name")
    if not 0 < len(text.encode()) <= 127 or text in (".", "..") or re.search(r"[\s/:%]", text):
        raise refused(
            "not an interface name; allowed: 1 to 127 characters, no space, '/', ':', '%'"
        )
    if text.endswith("+") or text[0] in "-!" or re.search(r"[\"'\\]", text):
        raise refused(
            "netfilter's rules cannot name this interface; allowed: no '+' at the end, which would "
            "stand for all that begin so, no '-' or '!' at the beginning, no quotes or backslash"
        )
    return text


def _is_ipv6(text: str, kind: Callable[[str], object]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _address(value: object) -> IPv4Address:
    if isinstance(value, IPv4Address):
        return value
    text = _text(value, "an IPv4 address, as in 203.0.113.10")
    try:
        return IPv4Address(text)
    except AddressValueError:
        if _is_ipv6(text, IPv6Address):
            raise refused("IPv6 is not supported; allowed: an IPv4 address") from None
        raise refused("not an IPv4 address; allowed: four numbers, as in 203.0.113.10") from None


def _network(value: object) -> IPv4Network:
    if isinstance(value, IPv4Network):
        return value
    text = _text(value, "an IPv4 prefix, as in 10.0.1.0/24")
    match = PREFIX.fullmatch(text)
    if match is None:
        if _is_ipv6(text, IPv6Network):
            raise refused("IPv6 is not supported; allowed: an IPv4 prefix")
        raise refused("not an IPv4 prefix; allowed: address/length, as in 10.0.1.0/24")
    try:
        around = IPv4Network(text, strict=False)
    except ValueError:
        raise refused("not an IPv4 prefix; allowed: address/length, as in 10.0.1.0/24") from None
    if str(around.network_address) != match["address"]:
        raise refused(f"has bits set to the right of its length; did you mean {around}?")
    return around


def _directory(value: object) -> str:
    path = str(value) if isinstance(value, Path) else _text(value, "a directory")
    if not Path(path).is_absolute() or "\0" in path:
        raise refused("must be an absolute path, as in /var/lib/snatgw")
    return path


def _port_range(value: object) -> str:
    """``*``, ``80`` or ``8000-8100``; a bare number is accepted, as ARM does."""
    allowed = "allowed: *, a port, or a range as in 8000-8100, from 0 to 65535"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise refused(f"not a port range; {allowed}")
    text = str(value)
    if text == "*":
        return text
    ends = text.split("-")
    if len(ends) > 2 or not all(re.fullmatch(r"[0-9]{1,5}", end) for end in ends):
        raise refused(f"not a port range; {allowed}")
    first, last = int(ends[0]), int(ends[-1])
    if max(first, last) > 65535:
        raise refused(f"out of range; {allowed}")
    if first > last:
        raise refused(f"ports out of order; did you mean {last}-{first}?")
    return text


def _address_prefix(value: object) -> str:
    """``*``, an address, a prefix or a service tag, as written; the tag may not exist."""
    text = _text(value, "*, an IPv4 address, a prefix or a service tag")
    if text == "*" or SERVICE_TAG.fullmatch(text):
        return text
    if ":" in text and (_is_ipv6(text, IPv6Address) or _is_ipv6(text.split("/")[0], IPv6Address)):
        raise refused("IPv6 is not supported; allowed: *, an IPv4 address or prefix, a service tag")
    if not re.match(r"[0-9]", text):
        raise refused(
            "neither an address nor a service tag; allowed: *, an IPv4 address as in 10.0.1.4, "
            "a prefix as in 10.0.1.0/24, a service tag as in Internet"
        )
    return _prefix(text) if "/" in text else str(_address(text))


def _prefix(value: object) -> str:
    """A network as text: where there are thousands, and objects would take their time."""
    if isinstance(value, str) and (match := PREFIX.fullmatch(value)):
        parts = match["address"].split(".")
        length = int(match["length"])
        if len(parts) == 4 and length <= 32 and all(part in _OCTETS for part in parts):
            a, b, c, d = map(int, parts)
            if not (a << 24 | b << 16 | c << 8 | d) & (1 << 32 - length) - 1:
                return value
    return str(_network(value))


def _description(value: object) -> str:
    text = _text(value, "a description")
    if len(text) > LONGEST_DESCRIPTION:
        raise refused(f"has {len(text)} characters; allowed: at most {LONGEST_DESCRIPTION}")
    return text


def spelled(*choices: str) -> BeforeValidator:
    """Takes any capitals for the choices' own."""
    spelling = {choice.casefold(): choice for choice in choices}

    def check(value: object) -> object:
        return spelling.get(value.casefold(), value) if isinstance(value, str) else value

    return BeforeValidator(check)


Name = Annotated[str, BeforeValidator(_name)]
Text = Annotated[str, BeforeValidator(lambda value: _text(value, "a word"))]
Interface = Annotated[str, BeforeValidator(_interface)]
Address = Annotated[IPv4Address, BeforeValidator(_address)]
Network = Annotated[IPv4Network, BeforeValidator(_network)]
Directory = Annotated[Path, BeforeValidator(_directory)]
PortRange = Annotated[str, BeforeValidator(_port_range)]
Prefix = Annotated[str, BeforeValidator(_prefix)]
AddressPrefix = Annotated[str, BeforeValidator(_address_prefix)]
Description = Annotated[str, BeforeValidator(_description)]
FrontendPort = Annotated[int, whole(1, 65534)]
BackendPort = Annotated[int, whole(1, 65535)]
Minutes30 = Annotated[
    float, number(0, 30, "4 to 30 minutes as in Azure, or less, as a fraction, but more than 0")
]
Minutes120 = Annotated[
    float, number(0, 120, "4 to 120 minutes as in Azure, or less, as a fraction, but more than 0")
]
