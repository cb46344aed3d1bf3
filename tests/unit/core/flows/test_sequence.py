"""Which segments count by their numbers; ``test_tcp.py`` has what an engine makes of that."""

from __future__ import annotations

import pytest

from gateway.core.flows.sequence import WINDOW, Numbers
from gateway.core.flows.tcp import ACK_FLAG, RST_FLAG, SYN_FLAG, Side

VM, REMOTE = Side.ORIGINAL, Side.REPLY
TOP = 0xFFFFFFFF


@pytest.fixture
def numbers() -> Numbers:
    made = Numbers()
    made.make_room(4)
    return made


def test_a_syn_foretells_what_the_other_side_acknowledges(numbers: Numbers) -> None:
    numbers.open(1, VM, 100)
    assert numbers.of(1) == (0, 101)
    numbers.open(2, REMOTE, TOP)  # the number after the last is 0, which is: unknown
    assert numbers.of(2) == (0, 0)
    assert numbers.of(3) == (0, 0)


@pytest.mark.parametrize(
    ("sequence", "counts"),
    [(500, True), (500 + WINDOW, True), (499, False), (501 + WINDOW, False), (0, False)],
)
def test_a_reset_counts_from_what_is_expected_to_a_window_beyond(
    numbers: Numbers, sequence: int, counts: bool
) -> None:
    numbers.resume(1, 100, (0, 500))
    assert numbers.counts(1, VM, RST_FLAG, (sequence, 0)) is counts
    assert numbers.counts(1, REMOTE, RST_FLAG, (sequence, 0))  # what the VM expects is unknown


def test_the_window_goes_over_the_end_of_the_numbers(numbers: Numbers) -> None:
    numbers.resume(1, 100, (0, TOP - 5))
    assert numbers.counts(1, VM, RST_FLAG, (10, 0))
    assert not numbers.counts(1, VM, RST_FLAG, (TOP - 6, 0))


def test_acknowledgements_are_noted_by_the_side_that_makes_them(numbers: Numbers) -> None:
    numbers.open(1, VM, 100)
    assert numbers.counts(1, VM, ACK_FLAG, (101, 901))
    assert numbers.counts(1, REMOTE, ACK_FLAG, (901, 151))
    assert numbers.of(1) == (901, 151)
    assert numbers.counts(1, VM, SYN_FLAG | ACK_FLAG, (7, 8))  # of another connection
    assert numbers.of(1) == (901, 151)


def test_only_what_acknowledges_the_syn_answers_it(numbers: Numbers) -> None:
    numbers.open(1, VM, 100)
    both = SYN_FLAG | ACK_FLAG
    assert not numbers.answers(1, REMOTE, both, (900, 100))
    assert not numbers.answers(1, REMOTE, SYN_FLAG, (900, 101))
    assert not numbers.answers(1, REMOTE, RST_FLAG | ACK_FLAG, (0, 99))
    assert numbers.answers(1, REMOTE, RST_FLAG | ACK_FLAG, (0, 101))
    assert numbers.of(1) == (0, 101)
    assert numbers.answers(1, REMOTE, both, (900, 101))
    assert numbers.of(1) == (901, 101)


def test_the_opener_settles_which_of_its_syns_was_answered(numbers: Numbers) -> None:
    numbers.open(1, VM, 100)
    numbers.settle(1, VM, (101, 901))
    assert numbers.opening[1] == 100
    numbers.settle(1, VM, (5_000_001, 901))
    assert (numbers.opening[1], numbers.of(1)) == (5_000_000, (0, 5_000_001))


def test_a_newer_syn_is_less_than_half_a_round_ahead(numbers: Numbers) -> None:
    numbers.open(1, VM, TOP)
    assert numbers.is_newer(1, 0)
    assert numbers.is_newer(1, (1 << 31) - 2)
    assert not numbers.is_newer(1, (1 << 31) - 1)
    assert not numbers.is_newer(1, TOP)
    assert not numbers.is_newer(1, TOP - 1)


def test_a_syn_of_a_live_flow_makes_unknown_what_its_side_expects(numbers: Numbers) -> None:
    numbers.resume(1, 100, (901, 151))
    numbers.open_again(1, VM, 7000)
    assert (numbers.opening[1], numbers.of(1)) == (7000, (0, 151))


def test_what_was_acknowledged_elsewhere_is_learnt_unless_it_is_what_the_syn_foretold(
    numbers: Numbers,
) -> None:
    numbers.resume(1, 100, (901, 151))
    numbers.learn(1, (0, 101))
    assert numbers.of(1) == (901, 151)
    numbers.learn(1, (990, 180))
    assert numbers.of(1) == (990, 180)


def test_a_slot_that_another_flow_gets_knows_nothing(numbers: Numbers) -> None:
    numbers.resume(1, 100, (901, 151))
    numbers.forget(1)
    assert (numbers.opening[1], numbers.of(1)) == (0, (0, 0))


def test_there_is_room_for_as_many_slots_as_asked(numbers: Numbers) -> None:
    numbers.make_room(5000)
    assert len(numbers.opening) == len(numbers.acknowledged[0]) == len(numbers.acknowledged[1])
    assert len(numbers.opening) >= 5000
