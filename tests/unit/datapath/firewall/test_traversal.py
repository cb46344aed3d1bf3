"""Walks through chains for a packet of which not everything is known: what is certain, what may be."""

from __future__ import annotations

import pytest

from gateway.datapath.firewall.traversal import (
    ACCEPT,
    CONTINUE,
    DROP,
    GOTO,
    JUMP,
    RETURN,
    THROUGH,
    UNKNOWN,
    Ending,
    Match,
    Packet,
    Rule,
    Walk,
    reached,
    walk,
)

PACKET = Packet()
YES: Match = lambda packet: True  # noqa: E731
NO: Match = lambda packet: False  # noqa: E731
PERHAPS: Match = lambda packet: None  # noqa: E731


def rule(verdict: str, *matches: Match, target: str = "") -> Rule:
    return Rule(matches, verdict, target, text=verdict)


@pytest.mark.parametrize(
    ("matches", "answer"),
    [
        ((), True),
        ((YES, YES), True),
        ((YES, PERHAPS), None),
        ((PERHAPS, NO), False),
        ((NO, YES), False),
    ],
)
def test_a_rule_matches_if_all_of_its_matches_do(
    matches: tuple[Match, ...], answer: bool | None
) -> None:
    assert rule(DROP, *matches).matching(PACKET) is answer


def test_the_first_rule_that_matches_for_certain_is_the_end() -> None:
    chains = {"c": [rule(DROP, NO), rule(CONTINUE), rule(ACCEPT), rule(DROP)]}
    assert walk(chains, "c", PACKET) == Walk(Ending(ACCEPT, "c", ACCEPT))


def test_what_may_match_before_it_is_possible() -> None:
    found = walk({"c": [rule(DROP, PERHAPS), rule(ACCEPT)]}, "c", PACKET)
    assert found == Walk(Ending(ACCEPT, "c", ACCEPT), (Ending(DROP, "c", DROP),))
    assert found.may(DROP)
    assert found.may(ACCEPT, UNKNOWN)
    assert not found.may(THROUGH)


def test_a_chain_without_an_end_is_gone_through() -> None:
    assert walk({"c": []}, "c", PACKET) == Walk(Ending(THROUGH, "c"))


def test_a_jump_comes_back_where_nothing_ends_below() -> None:
    chains = {"c": [rule(JUMP, target="d"), rule(DROP)], "d": [rule(RETURN), rule(ACCEPT)]}
    assert walk(chains, "c", PACKET).final == Ending(DROP, "c", DROP)


def test_a_goto_does_not_come_back() -> None:
    chains = {"c": [rule(GOTO, target="d"), rule(DROP)], "d": [rule(ACCEPT, NO)]}
    assert walk(chains, "c", PACKET) == Walk(Ending(THROUGH, "c"))


def test_what_may_return_below_makes_the_end_there_one_of_several() -> None:
    chains = {
        "c": [rule(JUMP, target="d"), rule(ACCEPT)],
        "d": [rule(RETURN, PERHAPS), rule(DROP)],
    }
    found = walk(chains, "c", PACKET)
    assert found.final == Ending(ACCEPT, "c", ACCEPT)
    assert found.may(DROP)


def test_a_jump_that_is_perhaps_taken_makes_its_end_possible() -> None:
    chains = {"c": [rule(JUMP, PERHAPS, target="d"), rule(ACCEPT)], "d": [rule(DROP)]}
    assert walk(chains, "c", PACKET) == Walk(
        Ending(ACCEPT, "c", ACCEPT), (Ending(DROP, "d", DROP),)
    )


def test_a_chain_that_is_not_there_or_calls_itself_is_unknown() -> None:
    assert walk({}, "c", PACKET).final.verdict == UNKNOWN
    assert walk({"c": [rule(JUMP, target="c")]}, "c", PACKET).may(UNKNOWN)


def test_many_ways_to_the_same_chain_are_walked_once() -> None:
    """Doubled at each of 40 levels, they would be a million million."""
    chains = {
        f"c{n}": [rule(JUMP, PERHAPS, target=f"c{n + 1}"), rule(JUMP, target=f"c{n + 1}")]
        for n in range(40)
    }
    chains["c40"] = [rule(DROP)]
    assert walk(chains, "c0", PACKET).final == Ending(DROP, "c40", DROP)


def test_rules_that_may_be_reached_are_those_of_all_chains_that_may_be_jumped_to() -> None:
    chains = {
        "c": [rule(JUMP, PERHAPS, target="d"), rule(JUMP, NO, target="e"), rule(ACCEPT)],
        "d": [rule(JUMP, target="c"), rule(DROP, PERHAPS)],
        "e": [rule(UNKNOWN)],
    }
    assert sorted(each.verdict for each in reached(chains, "c", PACKET)) == [
        ACCEPT, DROP, JUMP, JUMP,
    ]  # fmt: skip
