"""Requests and answers between API process and engine: read back as sent, garbage named as such."""

from __future__ import annotations

import random

import pytest

from gateway.daemon.channel.api_messages import (
    MAXIMUM_REQUEST,
    GarbageError,
    Kind,
    Request,
    decode_header,
    decode_payload,
    decode_request,
    encode,
    encode_request,
)


def test_a_request_is_read_as_it_was_sent() -> None:
    parameters = {"vm": "vm1", "expand": "1"}
    assert decode_request(encode_request(7, "nsg", parameters)) == Request(7, "nsg", parameters)
    assert decode_request(encode_request(7, "flows")) == Request(7, "flows", {})


@pytest.mark.parametrize("kind", list(Kind))
def test_a_message_is_read_as_it_was_sent(kind: Kind) -> None:
    payload = [1, 2.5, "text", b"bytes", None, True, ("a", 1), {"b": [2]}]
    message = encode(1 << 31, kind, payload)
    assert decode_header(message) == (1 << 31, kind)
    assert decode_payload(message) == payload


def test_a_request_may_have_so_many_bytes_and_no_more() -> None:
    request = encode_request(1, "nsg", {"vm": ""})
    room = MAXIMUM_REQUEST - len(request)
    assert decode_request(encode_request(1, "nsg", {"vm": "x" * room})).parameters
    with pytest.raises(GarbageError, match="more than"):
        decode_request(encode_request(1, "nsg", {"vm": "x" * (room + 1)}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 5000,
        b"{",
        b"[" * 4000,
        b"null",
        b"[]",
        b'{"number": 1}',
        b'{"number": 1, "request": "flows", "more": 1}',
        b'{"number": true, "request": "flows"}',
        b'{"number": 0, "request": "flows"}',
        b'{"number": 4294967296, "request": "flows"}',
        b'{"number": "1", "request": "flows"}',
        b'{"number": 1, "request": ["flows"]}',
        b'{"number": 1, "request": "nsg", "parameters": []}',
        b'{"number": 1, "request": "nsg", "parameters": {"vm": 1}}',
        b'{"number": 1, "request": "nsg", "parameters": {"vm": null}}',
        b'{"number": 1, "request": "reload", "parameters": {"enforce": true}}',
        b'{"number": 1e999, "request": "flows"}',
        b'\xff\xfe{"number": 1, "request": "flows"}',
        encode(1, Kind.PART, ["a message of the other direction"]),
    ],
)
def test_what_is_no_request_is_garbage(data: bytes) -> None:
    with pytest.raises(GarbageError):
        decode_request(data)


def test_random_bytes_are_garbage_or_a_request() -> None:
    dice = random.Random(1)
    for _ in range(2000):
        whole = bytearray(encode_request(7, "flows"))
        for _ in range(dice.randrange(4)):
            whole[dice.randrange(len(whole))] = dice.randrange(256)
        try:
            request = decode_request(bytes(whole))
        except GarbageError:
            continue
        assert isinstance(request.what, str)


def test_messages_of_the_engine_that_cannot_be_read_are_garbage() -> None:
    for data in (b"", b"\x00" * 4, b"\x00\x00\x00\x01\x09"):
        with pytest.raises(GarbageError):
            decode_header(data)
    with pytest.raises(GarbageError):
        decode_payload(b"\x00\x00\x00\x01\x00" + b"\x7fnonsense")
