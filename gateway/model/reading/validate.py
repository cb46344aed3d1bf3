"""Plain data to a Configuration, with every error as a problem in the user's words.

pydantic finds the errors within fields. So that errors *between* resources are reported in the
same go, what is wrong is then mended until the rest validates, the draft on which the cross-checks
run: a misspelt key gets its name, a required one that is missing or wrong a substitute
(``placeholders.py``), anything else is cut out. A draft knows where in the file each of its items
was, what was cut and what stands in for something, so that nothing is reported that only the
mending made.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.model.configuration import Configuration, Resource
from gateway.model.problems import Location, did_you_mean, nearest
from gateway.model.reading.placeholders import Substitutes

ROUNDS = 50  # of mending; each mends at least one thing, and all that are independent
COMPARED = ("protocol", "port", "requestPath", "frontendPort", "backendPort")
"""Keys that a resource compares with each other."""


@dataclass(frozen=True)
class Mistake:
    """A problem whose place in the file is still a location."""

    location: Location
    message: str
    value: object = None
    warning: bool = False


@dataclass
class RemovedParts:
    """What was removed from a file's data to make the rest of it validate."""

    words: set[str] = field(default_factory=set)
    """Keys that were removed, or whose lists lost items: ``subnets``, ``virtualNetwork``, …"""
    names: set[str] = field(default_factory=set)
    """Names of the resources that were removed."""
    nameless: set[str] = field(default_factory=set)
    """Those of ``words`` where names were lost that are unknown."""
    origins: dict[Location, list[int]] = field(default_factory=dict)
    """Of lists that lost items: which index each remaining one has in the file."""
    mended: set[Location] = field(default_factory=set)
    """Where the file has something else, or nothing, than the draft."""
    substitutes: Substitutes = field(default_factory=Substitutes)

    def real(self, mistake: Mistake) -> Mistake | None:
        """An error of the draft in terms of the file; None where the repair caused it."""
        place = self.original(mistake.location)
        if any(place[:end] in self.mended for end in range(1, len(place) + 1)):
            return None
        message = self.substitutes.taken_out(mistake.message)
        return Mistake(place, message, mistake.value, mistake.warning)

    def original(self, location: Location) -> Location:
        """Where the file has what the draft has at ``location``."""
        result: Location = ()
        for part in location:
            if isinstance(part, int) and result in self.origins:
                part = self.origins[result][part]
            result = (*result, part)
        return result

    def within(self, location: Location, keys: Iterable[str]) -> bool:
        """Whether one of these keys, or an item of its list, was cut from what is at a location."""
        place = self.original(location)
        return any((*place, key) in self.mended or (*place, key) in self.origins for key in keys)

    def key(self, around: Any, key: str, location: Location) -> None:
        """Remove a key from the mapping around it, which is at ``location``."""
        around.pop(key, None)
        self.mended.add((*self.original(location), key))
        self.lost(key)

    def rename(self, around: Any, key: str, meant: str) -> None:
        """Give a misspelt key its name, if that is free."""
        value = around.pop(key)
        if meant in around:
            self.lost(meant)
        else:
            around[meant] = value

    def fill(self, around: Any, location: Location) -> None:
        """Put a substitute for the required key at ``location``."""
        key = str(location[-1])
        substitute = self.substitutes.of(location)
        around |= substitute
        place = self.original(location[:-1])
        for name in substitute:
            self.mended.add((*place, name))
            self.origins.pop((*place, name), None)  # it may have been a list that lost its items
        self.words |= set(substitute)
        if len(location) > 2:
            self.words.add(_list_of(location[:-1]))
        if key in ("name", "subnets"):
            self.nameless.add(_list_of(location[:-1]) if key == "name" else key)

    def lost(self, word: str) -> None:
        """Note a key that is gone, alone or with what was around it."""
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


def validate(data: dict[str, Any]) -> tuple[Configuration | None, list[Mistake], RemovedParts]:
    """The draft (None if nothing could be saved), every error within fields, and the cuts."""
    mistakes: list[Mistake] = []
    data = copy.deepcopy(data)
    cuts = RemovedParts(substitutes=Substitutes(data))
    for turn in range(ROUNDS):
        try:
            return Configuration.model_validate(data), mistakes, cuts
        except ValidationError as invalid:
            errors = _own_errors(invalid)
        if turn == 0:
            mistakes = _mistakes(errors)
        else:
            mistakes += _later_mistakes(errors, cuts)
        _mend(data, errors, cuts)
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


def _later_mistakes(errors: list[ErrorDetails], cuts: RemovedParts) -> list[Mistake]:
    """Values under keys that were misspelt, and what a resource says of itself as a whole once each
    of its fields is right; but not what comes of what was put or left out there."""
    mistakes = []
    for error in errors:
        if error["type"] != "refused":
            continue
        location = error["loc"]
        place = cuts.original(location)
        whole = isinstance(place[-1], int)
        if not (whole and any(m[:-1] == place and m[-1] in COMPARED for m in cuts.mended)):
            value = None if whole else error["input"]
            found = cuts.real(Mistake(location, _message(error), value))
            mistakes += [] if found is None else [found]
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


def _mend(data: dict[str, Any], errors: list[ErrorDetails], cuts: RemovedParts) -> None:
    """Rename, put or remove what is wrong; list items last to first, so that indices hold."""
    items: list[Location] = []
    for error in errors:
        if error["type"] == "extra_forbidden":
            location = error["loc"]
            around, key, meant = _at(data, location[:-1]), str(location[-1]), _meant(location)
            if meant is None:
                cuts.key(around, key, location[:-1])
            else:
                cuts.rename(around, key, meant)
    for error in errors:
        location = error["loc"]
        if isinstance(location[-1], int):
            items.append(location)
        elif error["type"] != "extra_forbidden":
            around = _at(data, location[:-1])
            if error["type"] == "missing" and location[-1] in around:
                continue  # it was misspelt
            if _is_required(location):
                cuts.fill(around, location)
            else:
                cuts.key(around, location[-1], location[:-1])
    for location in sorted(set(items), key=_depth_then_place, reverse=True):
        cuts.item(_at(data, location[:-1]), location)


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
