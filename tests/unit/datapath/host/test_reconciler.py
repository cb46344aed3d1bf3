"""Who sets things back again and again is not fought at any speed; which notices lead to a look."""

from __future__ import annotations

import sys

import pytest

from gateway.datapath.host.addresses_and_routes import ROUTE_PROTOCOL
from gateway.datapath.host.netlink_events import may_matter
from gateway.datapath.host.reconciler import LIMIT, PAUSE, WINDOW, Fights


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_lost_now_and_then_is_set_again_at_once() -> None:
    clock = Clock()
    fights = Fights(clock)
    for _ in range(3 * LIMIT):
        assert fights.may("forwarding")
        clock.now += WINDOW
    assert not fights.is_fought("forwarding")


def test_what_is_fought_about_waits_and_ends_with_the_fight() -> None:
    clock = Clock()
    fights = Fights(clock)
    for _ in range(LIMIT):
        assert fights.may("forwarding")
        clock.now += 1
    assert fights.is_fought("forwarding")
    assert not fights.may("forwarding")
    assert fights.may("another thing")
    times = 0
    for _ in range(60):
        clock.now += 1
        times += fights.may("forwarding")
    assert times == 60 // PAUSE
    clock.now += WINDOW
    assert not fights.is_fought("forwarding")
    assert fights.may("forwarding")


def test_what_is_lost_often_but_not_within_a_minute_is_no_fight() -> None:
    clock = Clock()
    fights = Fights(clock, limit=20)
    for _ in range(100):
        assert fights.may("rules")
        clock.now += WINDOW / 18
    assert not fights.is_fought("rules")


def test_what_the_kernel_forgot_by_itself_is_no_fight() -> None:
    fights = Fights(Clock())
    for _ in range(3 * LIMIT):
        assert fights.may("routes")
        fights.forget()


LINK, ADDRESS, ROUTE, NEIGHBOUR, NETCONF = 16, 20, 24, 28, 80


def message(kind: int, body: bytes) -> bytes:
    return (
        (16 + len(body)).to_bytes(4, sys.byteorder)
        + kind.to_bytes(2, sys.byteorder)
        + bytes(10)
        + body
    )


def route(length: int, protocol: int) -> bytes:
    return bytes([2, length, 0, 0, 254, protocol, 0, 1]) + bytes(4)


@pytest.mark.parametrize(
    ("kind", "body", "wanted"),
    [
        (LINK, bytes(16), True),
        (ADDRESS + 1, bytes(8), True),
        (NETCONF, bytes(4), True),
        (ROUTE, route(0, 186), True),  # a default route, by BGP
        (ROUTE + 1, route(32, ROUTE_PROTOCOL), True),
        (ROUTE + 1, route(24, 2), True),  # the kernel's own
        (ROUTE, route(24, 186), False),
        (NEIGHBOUR + 1, bytes([2, *bytes(9), 0x08, 0]), True),
        (NEIGHBOUR, bytes([2, *bytes(9), 0, 1]), False),
    ],
)
def test_what_comes_by_the_thousand_does_not_lead_to_a_look(
    kind: int, body: bytes, wanted: bool
) -> None:
    assert may_matter(message(kind, body)) is wanted
