"""ARM template expressions: ``[concat(parameters('a'), '-nic')]`` to a tree. No evaluation here.

    expression = primary { "." name | "[" expression "]" }
    primary    = 'text' | integer | name { "." name } "(" [ expression { "," expression } ] ")"

A string is an expression if it begins with ``[`` and ends with ``]``; ``[[`` at its beginning
stands for a literal ``[``. In text, two single quotes are one. Length and depth are bounded.

Source: "Syntax and expressions in Azure Resource Manager templates"; "Template limits"
(24,576 characters in an expression).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_LENGTH = 24_576
MAX_DEPTH = 40

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<integer>-?[0-9]{1,18}(?![0-9]))"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>[().,\[\]]))"
)


class ExpressionError(ValueError):
    """The text is not an expression; has where and what was expected."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A string or a number as it stands there."""

    value: str | int


@dataclass(frozen=True, slots=True)
class Call:
    """``name(arguments)``; a template's own functions have a namespace in their name."""

    name: str
    arguments: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """``of.key`` and ``of[key]``."""

    of: Expression
    key: Expression


Expression = Literal | Call | Member


def is_expression(text: str) -> bool:
    """Whether a template's string is to be evaluated."""
    return text.startswith("[") and text.endswith("]") and not text.startswith("[[")


def unescaped(text: str) -> str:
    """A string that is no expression as it is meant: ``[[x]`` is ``[x]``."""
    return text[1:] if text.startswith("[[") else text


def parse(text: str) -> Expression:
    """The tree of an expression, brackets included. Raises ExpressionError."""
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"is longer than {MAX_LENGTH} characters")
    parser = _Parser(text[1:-1])
    tree = parser.expression(0)
    parser.end()
    return tree


class _Parser:
    """Recursive descent with one token of look-ahead."""

    def __init__(self, text: str) -> None:
        self._text = text.rstrip()
        self._at = 0
        self._kind = ""
        self._token = ""
        self._next()

    def expression(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise ExpressionError(f"is nested more than {MAX_DEPTH} deep")
        tree = self._primary(depth)
        members = 0
        while self._kind == "mark" and self._token in ".[":  # noqa: S105
            members += 1
            if members > MAX_DEPTH:
                raise ExpressionError(f"has more than {MAX_DEPTH} accesses in a row")
            if self._take_mark("."):
                tree = Member(tree, Literal(self._take("name", "a property's name")))
            else:
                self._expect("[")
                tree = Member(tree, self.expression(depth + 1))
                self._expect("]")
        return tree

    def end(self) -> None:
        if self._kind:
            raise self._unexpected("the end")

    def _primary(self, depth: int) -> Expression:
        if self._kind == "text":
            return Literal(self._take("text", "")[1:-1].replace("''", "'"))
        if self._kind == "integer":
            return Literal(int(self._take("integer", "")))
        name = self._take("name", "a function, a text in quotes or a whole number")
        while self._take_mark("."):
            name += "." + self._take("name", "a function's name")
        self._expect("(")
        arguments: list[Expression] = []
        if not self._take_mark(")"):
            arguments.append(self.expression(depth + 1))
            while self._take_mark(","):
                arguments.append(self.expression(depth + 1))
            self._expect(")")
        return Call(name, tuple(arguments))

    def _take(self, kind: str, expected: str) -> str:
        if self._kind != kind:
            raise self._unexpected(expected)
        token = self._token
        self._next()
        return token

    def _take_mark(self, mark: str) -> bool:
        if self._kind != "mark" or self._token != mark:
            return False
        self._next()
        return True

    def _expect(self, mark: str) -> None:
        if not self._take_mark(mark):
            raise self._unexpected(mark)

    def _next(self) -> None:
        if self._at >= len(self._text):
            self._kind = self._token = ""
            return
        match = _TOKEN.match(self._text, self._at)
        if match is None or match.lastgroup is None:
            raise ExpressionError(f"cannot be read from character {self._at + 2} on")
        self._kind, self._token = match.lastgroup, match[match.lastgroup]
        self._at = match.end()

    def _unexpected(self, expected: str) -> ExpressionError:
        found = self._token[:40] if self._kind else "the end"
        return ExpressionError(f"has {found} where {expected} should be")
