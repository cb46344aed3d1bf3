"""What the engine process and the API process say to each other, over a SOCK_SEQPACKET pair.
Runs in the engine process and the API process.

One datagram is one message, so garbage never outlives itself. The two directions differ on purpose:

* API → engine: a small JSON object. The engine, which has privileges, reads nothing richer from a
  process that has none, checks every field and answers or ignores.
* engine → API: a 5-byte header (request number, kind) and a ``marshal`` payload of plain values,
  which costs the engine next to nothing. The API process trusts the engine, not the reverse.

An answer is any number of PART messages (lists of records), then one END or FAILED.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import Any

MAXIMUM_REQUEST = 4096
"""Bytes of a request; more is garbage."""
MAXIMUM_MESSAGE = 1 << 20
"""Bytes that the API process is ready to receive as one message."""
REQUESTS = {
    "flows": frozenset[str](),
    "ports": frozenset[str](),
    "status": frozenset[str](),
    "reload": frozenset({"enforce"}),
    "explain": frozenset({"vm", "to", "fromPort", "inbound", "from", "trace"}),
    "nsg": frozenset({"vm", "expand"}),
    "metrics": frozenset[str](),
    "health": frozenset[str](),
    "machines": frozenset({"vm"}),
    "capture": frozenset({"vm", "side", "snaplen", "remote", "protocol", "trace"}),
    "endCapture": frozenset({"capture"}),
}
"""What may be asked for, and with which parameters. The engine process has a handler for each
(``requests.py``), which checks the text of parameters."""

_header = Struct("!IB")


class Kind(IntEnum):
    """What a message from the engine is."""

    PART = 0
    """A list of records of a listing."""
    END = 1
    """The last message of an answer; its payload is the answer's object, or None."""
    FAILED = 2
    """The last message of an answer that says why there is none: a list of sentences."""
    EVENTS = 3
    """A list of events as JSON-ready objects; answers no request."""
    FLOW_LOG = 4
    """Entries for the flow logs (``flow_log.message``); answers no request."""
    CAPTURED = 5
    """Packets of a capture (``capture.message``); answers no request."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request of the API process; whether there is such a one is the table's to say."""

    number: int
    what: str
    parameters: Mapping[str, str] = field(default_factory=dict)


class GarbageError(ValueError):
    """A message that is not what the protocol has."""


def encode_request(number: int, what: str, parameters: Mapping[str, str] | None = None) -> bytes:
    """A request as the API process sends it."""
    document: dict[str, Any] = {"number": number, "request": what}
    if parameters:
        document["parameters"] = dict(parameters)
    return json.dumps(document).encode()


def decode_request(data: bytes) -> Request:
    """Read what the API process sent; raises GarbageError for what has not a request's form."""
    if len(data) > MAXIMUM_REQUEST:
        raise GarbageError(f"a request of more than {MAXIMUM_REQUEST} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise GarbageError("a request that is not JSON") from error
    if not isinstance(document, dict) or document.keys() - {"parameters"} != {"number", "request"}:
        raise GarbageError("a request whose fields are not number, request and parameters")
    number, what = document["number"], document["request"]
    if type(number) is not int or not 0 < number < 1 << 32:
        raise GarbageError("a request whose number is none")
    if not isinstance(what, str):
        raise GarbageError("a request whose name is none")
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict) or not all(
        isinstance(value, str) for value in parameters.values()
    ):
        raise GarbageError("a request whose parameters are no texts")
    return Request(number, what, parameters)


def encode(number: int, kind: Kind, payload: Any) -> bytes:
    """A message as the engine sends it. ``payload``: plain values only, as ``marshal`` takes."""
    return _header.pack(number, kind) + marshal.dumps(payload)


def decode_header(message: bytes) -> tuple[int, Kind]:
    """Request number and kind of a message from the engine."""
    if len(message) < _header.size:
        raise GarbageError("a message shorter than its header")
    number, kind = _header.unpack_from(message)
    try:
        return number, Kind(kind)
    except ValueError as error:
        raise GarbageError(f"a message of kind {kind}") from error


def decode_payload(message: bytes) -> Any:
    """The payload of a message from the engine."""
    try:
        return marshal.loads(memoryview(message)[_header.size :])  # noqa: S302 - our own process
    except (ValueError, EOFError, TypeError) as error:
        raise GarbageError("a message whose payload cannot be read") from error
