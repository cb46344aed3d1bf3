"""Which flows may be carried, as the engine's process tells the kernel."""

from __future__ import annotations

import mmap
from struct import Struct

import pytest

from gateway.datapath.fastpath.map_layout import COUNTER, UP_AT
from gateway.datapath.fastpath.packet_order import NUMBERS, Order

_numbers = Struct("=HH")  # up, handled


class Kernel:
    """The counters as the programs use them."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, mmap.PAGESIZE)
        self.order = Order(self.memory)

    def look(self, counter: int) -> tuple[int, int]:
        up, handled = _numbers.unpack_from(self.memory, counter * COUNTER.size + UP_AT)
        return up, handled

    def carries(self, counter: int) -> bool:
        up, handled = self.look(counter)
        return up == handled

    def goes_up(self, counter: int, segments: int = 1) -> bytes:
        """The timestamp of a packet that goes up."""
        up, handled = self.look(counter)
        up = (up + 1) & NUMBERS
        _numbers.pack_into(self.memory, counter * COUNTER.size + UP_AT, up, handled)
        stamp = 4_700_000_000_000_000_000 + (counter << 24 | segments << 16 | up) * 1000
        return Struct(">QQ").pack(stamp // 10**9, stamp % 10**9 // 1000)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def test_a_flow_of_which_nothing_waits_is_carried_at_once(kernel: Kernel) -> None:
    kernel.order.begin(3, waits=False)
    assert kernel.carries(6)
    assert kernel.carries(7)


def test_any_other_once_the_last_that_went_up_has_passed(kernel: Kernel) -> None:
    kernel.order.begin(3, waits=True)
    assert not kernel.carries(6)
    first, second = kernel.goes_up(6), kernel.goes_up(6)
    kernel.order.passed(first)
    assert not kernel.carries(6)
    third = kernel.goes_up(6)
    kernel.order.passed(second)
    assert not kernel.carries(6)
    kernel.order.passed(third)
    assert kernel.carries(6)
    assert not kernel.carries(7)  # the other direction has its own


def test_what_is_lost_is_told_of_by_the_next(kernel: Kernel) -> None:
    kernel.order.begin(0, waits=True)
    kernel.goes_up(0)
    kernel.order.passed(kernel.goes_up(0))
    assert kernel.carries(0)


def test_all_segments_of_a_packet_have_to_pass(kernel: Kernel) -> None:
    kernel.order.begin(1, waits=True)
    stamp = kernel.goes_up(2, segments=3)
    for _ in range(2):
        kernel.order.passed(stamp)
        assert not kernel.carries(2)
    kernel.order.passed(stamp)
    assert kernel.carries(2)


def test_a_packet_of_the_slots_last_flow_lets_nothing_pass(kernel: Kernel) -> None:
    kernel.order.begin(0, waits=True)
    old = kernel.goes_up(0)
    kernel.order.begin(0, waits=True)
    kernel.order.passed(old)
    assert not kernel.carries(0)
    kernel.order.passed(kernel.goes_up(0))
    assert kernel.carries(0)


def test_numbers_begin_again_after_four_million(kernel: Kernel) -> None:
    _numbers.pack_into(kernel.memory, UP_AT, NUMBERS, NUMBERS)
    kernel.order.begin(0, waits=True)
    assert kernel.look(0) == (0, NUMBERS)
    kernel.order.passed(kernel.goes_up(0))
    assert kernel.look(0) == (1, 1)


def test_other_timestamps_are_nobodys(kernel: Kernel) -> None:
    before = bytes(kernel.memory)
    for seconds in (0, 1_795_000_000, 4_700_000_000 + 10**9, 9_223_372_036):
        kernel.order.passed(Struct(">QQ").pack(seconds, 999_999))
    assert bytes(kernel.memory) == before
