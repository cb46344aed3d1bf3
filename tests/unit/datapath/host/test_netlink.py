"""Dumps that the kernel says were interrupted: asked for again, and never taken for whole."""

from __future__ import annotations

import socket
from struct import Struct

import pytest

from gateway.datapath.guard import egress_table
from gateway.datapath.guard.egress_table import EgressTable
from gateway.datapath.host import netlink

INTERRUPTED, DONE = 0x10, 3
HEAD = Struct("=IHHII")


class Kernel:
    """Answers each dump with one object; the first dumps are interrupted."""

    def __init__(self, interrupted: int) -> None:
        self.left = interrupted
        self.asked = 0

    def __call__(self, *kind: int) -> Kernel:
        return self

    def bind(self, address: tuple[int, int]) -> None:
        """As a socket's."""

    def close(self) -> None:
        """As a socket's."""

    def send(self, request: bytes) -> None:
        self.serial = HEAD.unpack_from(request)[3]
        self.asked += 1

    def recv(self, size: int) -> bytes:
        flags = INTERRUPTED if self.left > 0 else 0
        self.left -= 1
        body = b"part" if flags else b"full"
        one = HEAD.pack(HEAD.size + len(body), 7, flags, self.serial, 0) + body
        return one + HEAD.pack(HEAD.size + 4, DONE, flags, self.serial, 0) + bytes(4)


def kernel(monkeypatch: pytest.MonkeyPatch, interrupted: int) -> Kernel:
    fake = Kernel(interrupted)
    monkeypatch.setattr(socket, "socket", fake)
    return fake


def test_an_interrupted_dump_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = kernel(monkeypatch, 2)
    assert list(netlink.dump(1, b"", consistent=True)) == [b"full"]
    assert fake.asked == 3


def test_that_it_is_interrupted_each_time_is_said_to_whom_it_matters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = kernel(monkeypatch, 100)
    with pytest.raises(InterruptedError):
        list(netlink.dump(1, b"", consistent=True))
    assert fake.asked < 10
    assert list(netlink.dump(1, b"")) == [b"part"]


def test_a_guard_is_not_lost_while_others_change_their_rules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guard = EgressTable.__new__(EgressTable)
    guard._outside, guard.interface = "lo", socket.if_nametoindex("lo")
    guard._meant = {"snatgw-lo-guard": egress_table._Standing(1, b"")}
    kernel(monkeypatch, 100)
    assert guard.stands()
    kernel(monkeypatch, 0)
    assert not guard.stands()
