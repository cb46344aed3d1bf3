"""What a capture may be asked for: which packets, how much of each, and when it ends.

Parsed and checked here for the command line, the API and, a second time, the engine process, which
takes nothing on trust from the API process. All problems of a query are found at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.schema.explain_query import MAXIMUM_NAME
from gateway.schema.queries import (
    QueryError,
    Readers,
    parse_flag,
    parse_protocol,
    parse_remote,
    read_parameters,
    whole,
)

SIDES = ("inside", "outside", "both")
ENGINES = ("vm", "side", "snaplen", "remote", "protocol", "trace")
"""The parameters of which packets, and what of each, for the engine; the others end the capture."""
MAXIMUM_SNAP_LENGTH = 0xFFFF
DEFAULT_SIZE = 100_000_000
UNLIMITED = "unlimited"
_LEAST_SIZE = 4096
_MOST = 1 << 50
_LONGEST = 366 * 86400.0
_SIZE = re.compile(r"(\d{1,15})([kMG]?)")
_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class CaptureQuery:
    """A capture. None asks for nothing; ``size`` None is no bound, ``duration`` is real seconds.

    ``trace``: comments have the stages that packets passed.
    """

    vm: str | None = None
    side: str = "both"
    snap_length: int = MAXIMUM_SNAP_LENGTH
    remote_ip: str | None = None
    remote_port: int | None = None
    protocol: int | None = None
    count: int | None = None
    size: int | None = DEFAULT_SIZE
    duration: float | None = None
    trace: bool = False

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> CaptureQuery:
        """From a query string's values; raises QueryError."""
        return cls(**read_parameters(values, _READERS))


def engines_part(values: Mapping[str, str]) -> dict[str, str]:
    """The part of a query that is the engine's."""
    return {name: text for name, text in values.items() if name in ENGINES}


def described(values: Mapping[str, str]) -> str:
    """The engine's part for people: ``vm=vm1 side=inside``; of everything: ``everything``."""
    return " ".join(f"{k}={v}" for k, v in engines_part(values).items()) or "everything"


def _vm(text: str) -> dict[str, Any]:
    if not text or len(text) > MAXIMUM_NAME:
        raise QueryError([f"vm: a name has 1 to {MAXIMUM_NAME} characters"])
    return {"vm": text}


def _side(text: str) -> dict[str, Any]:
    if text.casefold() not in SIDES:
        raise QueryError([f"side: {text!r} is not one of {', '.join(SIDES)}"])
    return {"side": text.casefold()}


def _snap_length(text: str) -> dict[str, Any]:
    try:
        return {"snap_length": whole(text, 1, MAXIMUM_SNAP_LENGTH)}
    except ValueError:
        line = f"snaplen: {text!r} is no number of bytes from 1 to {MAXIMUM_SNAP_LENGTH}"
        raise QueryError([line]) from None


def _count(text: str) -> dict[str, Any]:
    try:
        return {"count": whole(text, 1, _MOST)}
    except ValueError:
        raise QueryError([f"count: {text!r} is no whole number from 1"]) from None


def _size(text: str) -> dict[str, Any]:
    if text.casefold() == UNLIMITED:
        return {"size": None}
    match = _SIZE.fullmatch(text)
    size = 0 if match is None else int(match[1]) * _FACTORS[match[2]]
    if not _LEAST_SIZE <= size <= _MOST:
        line = (
            f"size: {text!r} is no number of bytes from {_LEAST_SIZE}, as in 500k, 100M or 2G, "
            f"nor {UNLIMITED!r}"
        )
        raise QueryError([line])
    return {"size": size}


def _duration(text: str) -> dict[str, Any]:
    parts = _DURATION.findall(text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or not 0 < seconds <= _LONGEST:
        line = f"duration: {text!r} is no duration above 0, as in 30s, 5m or 1h30m"
        raise QueryError([line])
    return {"duration": seconds}


_READERS: Readers = {
    "vm": _vm,
    "side": _side,
    "snaplen": _snap_length,
    "remote": parse_remote,
    "protocol": lambda text: {"protocol": parse_protocol(text)},
    "trace": lambda text: {"trace": parse_flag({"trace": text}, "trace")},
    "count": _count,
    "size": _size,
    "duration": _duration,
}
