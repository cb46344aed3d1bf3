"""Effective rules on their way: in small parts, each list of texts once, and the same at the end."""

from __future__ import annotations

from typing import Any

from gateway.daemon.channel.api_messages import Kind, decode_payload, encode
from gateway.daemon.channel.rule_encoding import TEXTS_PER_PART, read_rules, rule_parts
from gateway.schema.records import SecurityRuleRecord
from tests.unit.daemon.serving import judging_engine


def record(**changes: Any) -> SecurityRuleRecord:
    (first, *_) = judging_engine().security_records()
    return first._replace(**changes)


def test_a_listing_of_any_size_comes_in_small_parts_and_whole() -> None:
    many = tuple(str(number) for number in range(3 * TEXTS_PER_PART))
    shared = tuple(str(number) for number in range(3000))
    records = [
        record(name="a", expanded_sources=many, sources=()),
        record(name="b", expanded_sources=shared, expanded_destinations=many),
        *(record(name=str(number), expanded_destinations=shared) for number in range(500)),
    ]
    parts = list(rule_parts(records, expand=True))
    messages = [encode(1, Kind.PART, part) for part in parts]
    assert max(map(len, messages)) < 1 << 17
    assert sum(map(len, messages)) < 1 << 18
    assert list(read_rules(map(decode_payload, messages))) == records


def test_tags_are_left_as_they_are_unless_they_are_to_be_expanded() -> None:
    tagged = record(expanded_sources=("10.0.0.0/16",), expanded_destinations=("10.0.1.4/32",))
    (left,) = read_rules(rule_parts([tagged], expand=False))
    assert left == tagged._replace(expanded_sources=None, expanded_destinations=None)


def test_a_list_that_many_rules_share_is_sent_once() -> None:
    shared = ("10.0.0.0/16", "10.1.0.0/16")
    rules = [record(name=str(n), expanded_sources=shared) for n in range(3)]
    entries = [entry for part in rule_parts(rules, expand=True) for entry in part]
    assert [texts for number, texts in entries if number is not None].count(list(shared)) == 1
