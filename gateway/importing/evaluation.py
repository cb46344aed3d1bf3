"""A template's values: parameters, variables and the functions that can be resolved offline.

``Scope.resolve`` takes any JSON value and gives it back with its expressions evaluated. What cannot
be known stays in the result as ``Unresolved`` with the reason, so that only what is really used of
a template needs to be known. Evaluation is bounded: depth, steps, lengths; cycles are found.

Functions: parameters, variables, resourceId, concat, format. Any other one is not guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gateway.importing.expressions import (
    Call,
    Expression,
    ExpressionError,
    Literal,
    Member,
    is_expression,
    parse,
    unescaped,
)

MAX_DEPTH = 120
MAX_STEPS = 2_000_000
MAX_TEXT = 1_000_000
MAX_ITEMS = 100_000
SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
GROUP = "template"  # a template does not know the resource group that it is deployed to
_HOLE = re.compile(r"\{\{|\}\}|\{(?P<number>[0-9]{1,4})\}|[{}]")


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Stands where a value should be that cannot be known."""

    reason: str


class _UnresolvedError(Exception):
    """Carries an Unresolved's reason out of an expression."""


class _InnerError(_UnresolvedError):
    """The reason is another expression's, which it names already."""


class Scope:
    """A template's parameters and variables."""

    def __init__(
        self,
        parameters: Mapping[str, object],
        variables: Mapping[str, object],
        given: Mapping[str, object],
    ) -> None:
        """``given``: values of parameters by folded name, of the right types already."""
        self._parameters = {name.casefold(): value for name, value in parameters.items()}
        self._variables = {name.casefold(): value for name, value in variables.items()}
        self._given = given
        self._known: dict[tuple[str, str], object] = {}
        self._open: list[tuple[str, str]] = []
        self._depth = 0
        self._steps = 0
        self._functions: dict[str, Callable[[list[object]], object]] = {
            "parameters": lambda arguments: self._named("parameter", arguments),
            "variables": lambda arguments: self._named("variable", arguments),
            "resourceid": _resource_id,
            "concat": _concat,
            "format": _format,
        }

    def resolve(self, value: object) -> object:
        """The value with every expression in it evaluated; never raises."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            return Unresolved("the template takes too many steps to evaluate")
        if isinstance(value, str):
            return self._text(value)
        if not isinstance(value, dict | list):
            return value
        if self._depth >= MAX_DEPTH:
            return Unresolved(f"nested more than {MAX_DEPTH} deep")
        self._depth += 1
        try:
            if isinstance(value, list):
                return [self.resolve(item) for item in value]
            return {key: self.resolve(item) for key, item in value.items()}
        finally:
            self._depth -= 1

    def _text(self, text: str) -> object:
        if not is_expression(text):
            return unescaped(text)
        try:
            return self._evaluate(parse(text))
        except ExpressionError as error:
            return Unresolved(f"{_short(text)} {error}")
        except _InnerError as error:
            return Unresolved(str(error))
        except _UnresolvedError as error:
            return Unresolved(f"{_short(text)}: {error}")

    def _evaluate(self, tree: Expression) -> object:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _UnresolvedError("the template takes too many steps to evaluate")
        if self._depth >= MAX_DEPTH:
            raise _UnresolvedError(f"nested more than {MAX_DEPTH} deep")
        self._depth += 1
        try:
            match tree:
                case Literal():
                    return tree.value
                case Member():
                    return _known(_member(self._evaluate(tree.of), self._evaluate(tree.key)))
                case Call():
                    return self._call(tree)
        finally:
            self._depth -= 1

    def _call(self, call: Call) -> object:
        function = self._functions.get(call.name.casefold())
        if function is None:
            raise _UnresolvedError(f"function {call.name} is not carried over")
        arguments = [self._evaluate(argument) for argument in call.arguments]
        return _known(function(arguments))

    def _named(self, what: str, arguments: list[object]) -> object:
        """``parameters('name')`` or ``variables('name')``, evaluated once."""
        (name,) = _texts(f"{what}s", arguments, 1)
        key = (what, name.casefold())
        if key in self._known:
            return self._known[key]
        if key in self._open:
            chain = [*self._open[self._open.index(key) :], key]
            names = " → ".join(other for _, other in chain[:10])
            raise _UnresolvedError(f"{what} {name} is defined in terms of itself ({names})")
        self._open.append(key)
        try:
            value = self._definition(what, name)
        finally:
            self._open.pop()
        if not (self._open and isinstance(value, Unresolved)):
            # Within another's evaluation the reason may be the other: a cycle, a limit.
            self._known[key] = value
        return value

    def _definition(self, what: str, name: str) -> object:
        folded = name.casefold()
        if what == "variable":
            if folded in self._variables:
                return self.resolve(self._variables[folded])
            if "copy" in self._variables:
                return Unresolved(f"variable {name} may come of a copy loop: not carried over")
            return Unresolved(f"there is no variable {name}")
        if folded not in self._parameters:
            return Unresolved(f"there is no parameter {name}")
        if folded in self._given:
            return self._given[folded]
        declaration = self._parameters[folded]
        if isinstance(declaration, dict) and "defaultValue" in declaration:
            return self.resolve(declaration["defaultValue"])
        return Unresolved(f"parameter {name} has no value; give --parameter {name}=VALUE")


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def _known(value: object) -> object:
    if isinstance(value, Unresolved):
        raise _InnerError(value.reason)
    return value


def _texts(function: str, arguments: Sequence[object], count: int | None = None) -> list[str]:
    texts = [argument for argument in arguments if isinstance(argument, str)]
    if len(texts) != len(arguments) or count not in (None, len(texts)):
        wanted = "texts" if count is None else "a text" if count == 1 else f"{count} texts"
        raise _UnresolvedError(f"function {function} takes {wanted}")
    return texts


def _member(value: object, key: object) -> object:
    if isinstance(value, dict) and isinstance(key, str):
        if key in value:
            return value[key]
        folded = key.casefold()
        for other, item in value.items():
            if other.casefold() == folded:
                return item
        raise _UnresolvedError(f"there is no property {key[:80]}")
    if isinstance(value, list) and isinstance(key, int):
        if 0 <= key < len(value):
            return value[key]
        raise _UnresolvedError(f"there is no item {key} in a list of {len(value)}")
    raise _UnresolvedError(f"a {_kind(value)} has no {_kind(key)} index")


def _kind(value: object) -> str:
    names = {dict: "mapping", list: "list", str: "text", bool: "truth value", int: "number"}
    return names.get(type(value), "null" if value is None else "number")


def _resource_id(arguments: list[object]) -> object:
    """``resourceId([subscription], [group], type, name, …)``: a full id."""
    texts = _texts("resourceId", arguments)
    place = next((number for number, text in enumerate(texts) if "/" in text), None)
    if place is None or place > 2:
        raise _UnresolvedError("function resourceId takes a type, as in Microsoft.Network/…")
    provider, *types = texts[place].split("/")
    names = texts[place + 1 :]
    if len(types) != len(names):
        raise _UnresolvedError(f"resourceId of {texts[place][:80]} takes {len(types)} names")
    above = texts[:place]
    subscription = above[0] if len(above) == 2 else SUBSCRIPTION
    group = above[-1] if above else GROUP
    path = "".join(f"/{kind}/{name}" for kind, name in zip(types, names, strict=True))
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{provider}{path}"


def _concat(arguments: list[object]) -> object:
    if arguments and all(isinstance(argument, list) for argument in arguments):
        items = [item for part in arguments if isinstance(part, list) for item in part]
        if len(items) > MAX_ITEMS:
            raise _UnresolvedError(f"concat makes more than {MAX_ITEMS} items")
        return items
    return _bounded("".join(_as_text("concat", argument) for argument in arguments))


def _format(arguments: list[object]) -> object:
    """Numbered placeholders only: what stands after a colon in one is .NET's format."""
    pattern, values = (arguments or [None])[0], arguments[1:]
    if not isinstance(pattern, str):
        raise _UnresolvedError("function format takes a text first")

    def fill(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        number = match["number"]
        if number is None or int(number) >= len(values):
            raise _UnresolvedError("function format: only {0}, {1}, … of its values are resolved")
        return _as_text("format", values[int(number)])

    parts: list[str] = []
    length, at = 0, 0
    for match in _HOLE.finditer(pattern):
        parts += (pattern[at : match.start()], fill(match))
        length += len(parts[-2]) + len(parts[-1])
        if length > MAX_TEXT:
            break
        at = match.end()
    return _bounded("".join(parts) + pattern[at:])


def _as_text(function: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _UnresolvedError(f"function {function} of a {_kind(value)} is not carried over")
    return str(value)


def _bounded(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise _UnresolvedError(f"makes a text of more than {MAX_TEXT} characters")
    return text
