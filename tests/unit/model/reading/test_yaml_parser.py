"""YAML as a configuration may have it: YAML 1.2's words, lines of everything, nothing that harms."""

from __future__ import annotations

import pytest

from gateway.model.reading.yaml_parser import MAX_DEPTH, Document, Unreadable


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"), ("no", "no"), ("yes", "yes"), ("22:30", "22:30"), ("0o17", "0o17"),
        ("0x1F", "0x1F"), ("1_000", "1_000"), ("2026-01-31", "2026-01-31"), ("true", True),
        ("FALSE", False), ("~", None), ("null", None), ("12", 12), ("-7", -7), ("007", 7),
        ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0), (".inf", ".inf"), ("1e", "1e"),
        ("'12'", "12"), ('"true"', "true"), ("9" * 19, "9" * 19),
    ],
)  # fmt: skip
def test_plain_words_are_what_yaml_1_2_says(text: str, value: object) -> None:
    read = Document(f"key: {text}").data
    assert read == {"key": value}
    assert isinstance(read, dict)
    assert type(read["key"]) is type(value)


def test_every_key_and_item_has_its_line() -> None:
    document = Document("a:\n  b: 1\n  c:\n    - x\n    - {d: 2,\n       e: 3}\n")
    assert {place: document.line(place) for place in document.lines if place} == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 0): 4,
        ("a", "c", 1): 5,
        ("a", "c", 1, "d"): 5,
        ("a", "c", 1, "e"): 6,
    }


def test_what_is_not_there_has_the_line_of_what_is_around_it() -> None:
    document = Document("a:\n  b: 1\n")
    assert document.line(("a", "missing", 3)) == 1
    assert document.line(("nothing",)) is None


def test_of_a_key_given_twice_the_first_counts_with_its_lines() -> None:
    document = Document("a: {x: 1}\nb: 2\na:\n  x: 3\n  y: 4\n")
    assert document.data == {"a": {"x": 1}, "b": 2}
    assert document.duplicates == [(("a",), 3)]
    assert document.line(("a", "x")) == 1


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("a: &x 1\nb: *x", "anchors and aliases", 1),
        ("a: 1\nb: !!python/object:os.system x", "tags are not accepted", 2),
        ("a: 1\n---\nb: 2", "more than one YAML document", 2),
        ("a: 1\n? [x]\n: 2", "a key must be a word", 2),
        ("a: [1", "not YAML", 2),
        ("a: \x07", "not YAML", None),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nested too deeply", 1),
    ],
)
def test_what_no_configuration_needs_is_refused_with_its_line(
    text: str, message: str, line: int | None
) -> None:
    with pytest.raises(Unreadable, match=message) as caught:
        Document(text)
    assert line is None or caught.value.line == line


def test_nothing_is_nothing() -> None:
    assert Document("").data is None
    assert Document("# only a comment\n").data is None
