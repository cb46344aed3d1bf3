"""Plain data to a Configuration, with every mistake as a problem in the user's words.

pydantic finds the mistakes within fields. So that mistakes *between* resources are reported in the
same go, what is wrong is then cut out (a key, or the list item around it) until the rest
validates: the draft on which the cross-checks run. A draft knows where in the file each of its
items was, and what was cut, so that nothing is reported that only the cutting made.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.model.configuration import Configuration, Resource
from gateway.model.problems import Location, did_you_mean, nearest

ROUNDS = 50  # of cutting; each removes at least one thing, and all that are independent
SUBSTITUTES: dict[str, object] = {
    "gateway": {"inside": ["inside"], "outside": "outside"},
    "virtualNetwork": {
        "addressPrefixes": ["0.0.0.0/0"],
        "subnets": [{"name": "substitute", "addressPrefix": "0.0.0.0/0"}],
    },
}
"""Stand in for the required parts of a file when these had to be cut."""


@dataclass(frozen=True)
class Mistake:
    """A problem whose place in the file is still a location."""

    location: Location
    message: str
    value: object = None
    warning: bool = False


@dataclass
class Cuts:
    """What was removed from a file's data to make the rest of it validate."""

    words: set[str] = field(default_factory=set)
    """Keys that were removed, or whose lists lost items: ``subnets``, ``virtualNetwork``, …"""
    names: set[str] = field(default_factory=set)
    """Names of the resources that were removed."""
    nameless: set[str] = field(default_factory=set)
    """Those of ``words`` where names were lost that nobody knows."""
    origins: dict[Location, list[int]] = field(default_factory=dict)
    """Of lists that lost items: which index each remaining one has in the file."""

    def original(self, location: Location) -> Location:
        """Where the file has what the draft has at ``location``."""
        result: Location = ()
        for part in location:
            if isinstance(part, int) and result in self.origins:
                part = self.origins[result][part]
            result = (*result, part)
        return result

    def key(self, around: Any, key: str, meant: str | None = None) -> None:
        """Remove a key from the mapping around it; ``meant``: what it was misspelt for."""
        around.pop(key, None)
        self.lost(meant or key)

    def lost(self, word: str) -> None:
        """Note a key that is gone, by itself or with what was around it."""
        self.words.add(word)
        self.nameless.add(word)

    def item(self, siblings: list[Any], location: Location) -> None:
        """Remove the item at ``location`` from the list that it is in."""
        index = location[-1]
        assert isinstance(index, int)
        place = self.original(location[:-1])
        self.origins.setdefault(place, list(range(len(siblings)))).pop(index)
        lost = siblings.pop(index)
        word = _list_of(location)
        self.words.add(word)
        name = lost.get("name") if isinstance(lost, dict) else lost
        if isinstance(name, str):
            self.names.add(name)
        else:
            self.nameless.add(word)


def validate(data: dict[str, Any]) -> tuple[Configuration | None, list[Mistake], Cuts]:
    """The draft (None if nothing could be saved), every mistake within fields, and the cuts."""
    mistakes: list[Mistake] = []
    data = copy.deepcopy(data)
    cuts = Cuts()
    for turn in range(ROUNDS):
        try:
            return Configuration.model_validate(data), mistakes, cuts
        except ValidationError as invalid:
            errors = _own_errors(invalid)
        if turn == 0:  # later ones may only come of the cutting
            mistakes = _mistakes(errors)
        _cut(data, errors, cuts)
    return None, mistakes, cuts


def known_keys(location: Location) -> list[str]:
    """The keys that the mapping at a location may have."""
    return [str(field.alias) for field in _model_at(location).model_fields.values()]


def _model_at(location: Location) -> type[Resource]:
    model: type[Resource] = Configuration
    for part in location:
        if isinstance(part, str):
            annotation = next(f for f in model.model_fields.values() if f.alias == part).annotation
            model = next(
                kind
                for kind in (annotation, *get_args(annotation))
                if isinstance(kind, type) and issubclass(kind, Resource)
            )
    return model


def _meant(location: Location) -> str | None:
    """The key that an unknown one was probably meant to be."""
    return nearest(str(location[-1]), known_keys(location[:-1]))


def _own_errors(invalid: ValidationError) -> list[ErrorDetails]:
    """pydantic's errors, but for lists that it calls too short only because their items are bad."""
    errors = invalid.errors(include_url=False)
    around = {error["loc"][:end] for error in errors for end in range(len(error["loc"]))}
    return [e for e in errors if e["type"] != "too_short" or e["loc"] not in around]


def _mistakes(errors: list[ErrorDetails]) -> list[Mistake]:
    unknown = [error["loc"] for error in errors if error["type"] == "extra_forbidden"]
    misspelt = {(*location[:-1], _meant(location)) for location in unknown}
    mistakes = []
    for error in errors:
        location = error["loc"]
        if error["type"] == "extra_forbidden":
            known = known_keys(location[:-1])
            hint = did_you_mean(str(location[-1]), known) or f"; allowed: {', '.join(known)}"
            mistakes.append(Mistake(location, f"unknown key{hint}"))
        elif error["type"] != "missing":
            mistakes.append(Mistake(location, _message(error), error["input"]))
        elif location not in misspelt:
            mistakes.append(Mistake(location, "missing; this key is required"))
    return mistakes


def _message(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "refused":
            return str(context["reason"])
        case "literal_error":
            expected = str(context["expected"]).replace("' or '", "', '")
            allowed = [choice.strip("' ") for choice in expected.split(",")]
            hint = did_you_mean(str(error["input"]), allowed)
            return f"not one of the choices; allowed: {', '.join(allowed)}{hint}"
        case "bool_type" | "bool_parsing":
            return "not a truth value; allowed: true, false"
        case "tuple_type":
            return "must be a list, as in [a, b]"
        case "too_short":
            return "must not be empty"
        case "model_type" | "dict_type":
            return "must be a mapping, as in {name: …}"
        case _:
            return error["msg"]


def _cut(data: dict[str, Any], errors: list[ErrorDetails], cuts: Cuts) -> None:
    """Remove what is wrong from ``data``; list items last to first, so that indices hold."""
    items: set[Location] = set()
    removed: set[Location] = set()

    def with_its_surroundings(location: Location) -> bool:
        """Whether what stood around it was removed: there is nothing left, or a substitute."""
        return any(location[:end] in removed for end in range(1, len(location)))

    for error in errors:
        location = error["loc"]
        if error["type"] == "extra_forbidden":
            meant = _meant(location)
            if with_its_surroundings(location):
                cuts.lost(meant or str(location[-1]))
            else:
                cuts.key(_at(data, location[:-1]), str(location[-1]), meant)
            continue
        target = location[:-1] if error["type"] == "missing" else location
        while len(target) > 1 and isinstance(target[-1], str) and _is_required(target):
            target = target[:-1]
        if target and isinstance(target[-1], int):
            items.add(target)
            continue
        key = str((target or location)[-1])
        if with_its_surroundings(target):
            cuts.lost(key)
            continue
        cuts.key(_at(data, target[:-1]), key)
        removed.add(target or location)
        if len(target) <= 1 and key in SUBSTITUTES:
            data[key] = copy.deepcopy(SUBSTITUTES[key])
    for target in sorted(items, key=_depth_then_place, reverse=True):
        if with_its_surroundings(target):
            cuts.lost(_list_of(target))
        else:
            cuts.item(_at(data, target[:-1]), target)


def _list_of(location: Location) -> str:
    """The key of the list that an item is in."""
    return next(part for part in reversed(location) if isinstance(part, str))


def _is_required(location: Location) -> bool:
    fields = _model_at(location[:-1]).model_fields.values()
    return any(field.alias == location[-1] and field.is_required() for field in fields)


def _depth_then_place(location: Location) -> tuple[int, list[tuple[str, int]]]:
    places = [("", part) if isinstance(part, int) else (part, 0) for part in location]
    return len(location), places


def _at(data: Any, location: Location) -> Any:
    for part in location:
        data = data[part]
    return data
