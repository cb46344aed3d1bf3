"""Effective security rules on their way to the API process: in pieces that stay small.
Runs in the engine process and the API process.

A service tag can stand for thousands of prefixes, and many rules share it: every list of texts is
sent once, cut to chunks, and rules refer to it by number. ``rule_parts`` is the engine's end (one
part a turn), ``read_rules`` the API process's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from gateway.schema.records import SecurityRuleRecord

RULES_PER_PART = 64
TEXTS_PER_PART = 4096

_LISTS = (
    "associations",
    "sources",
    "source_ports",
    "destinations",
    "destination_ports",
    "expanded_sources",
    "expanded_destinations",
)
_POSITIONS = tuple(map(SecurityRuleRecord._fields.index, _LISTS))


def rule_parts(records: Iterable[SecurityRuleRecord], *, expand: bool) -> Iterator[list[Any]]:
    """Parts of a listing, plain values only; each is bounded.

    An entry is ``(number, texts)``, the next texts of a list, or ``(None, fields)``: a record with
    its lists as numbers. Without ``expand`` tags are left as they are.
    """
    numbers: dict[tuple[Any, ...], int] = {}
    part: list[Any] = []
    weight = 0
    for record in records:
        if not expand:
            record = record._replace(expanded_sources=None, expanded_destinations=None)
        fields: list[Any] = list(record)
        for position in _POSITIONS:
            texts = fields[position]
            if texts is None:
                continue
            if texts not in numbers:
                number = numbers[texts] = len(numbers)
                for start in range(0, len(texts), TEXTS_PER_PART):
                    chunk = texts[start : start + TEXTS_PER_PART]
                    if weight + len(chunk) > TEXTS_PER_PART:
                        yield part
                        part, weight = [], 0
                    part.append((number, list(chunk)))
                    weight += len(chunk)
            fields[position] = numbers[texts]
        part.append((None, fields))
        weight += TEXTS_PER_PART // RULES_PER_PART
        if weight >= TEXTS_PER_PART:
            yield part
            part, weight = [], 0
    if part:
        yield part


def read_rules(parts: Iterable[Sequence[Any]]) -> Iterator[SecurityRuleRecord]:
    """The records, as they were before ``rule_parts``."""
    lists: dict[int, list[Any]] = {}
    whole: dict[int, tuple[Any, ...]] = {}
    for part in parts:
        for number, content in part:
            if number is not None:
                lists.setdefault(number, []).extend(content)
                continue
            for position in _POSITIONS:
                reference = content[position]
                if reference is None:
                    continue
                if reference not in whole:  # complete: a list comes before the first who needs it
                    whole[reference] = tuple(lists.pop(reference, ()))
                content[position] = whole[reference]
            yield SecurityRuleRecord._make(content)
