"""Whatever a file holds: reading it never raises, and what it refuses it explains."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Configuration, Loaded, load_text
from gateway.model.configuration import Resource
from gateway.model.reading.placeholders import Substitutes
from gateway.model.resolved.security_rules import resolve_groups
from tests.unit.model.files import LOAD_BALANCED
from tests.unit.model.groups import grouped, rule

GROUPED = grouped(
    rule(sourceAddressPrefix=None, sourceAddressPrefixes=["10.0.0.0/8", "10.1.0.4"]),
    rule(name="s", priority=102, destinationAddressPrefix=None,
         destinationApplicationSecurityGroups=["web"]),
    rule(name="t", priority=101, destinationAddressPrefix="Partner", destinationPortRange=None,
         destinationPortRanges=["80", "90-100"]),
)  # fmt: skip
GOOD = (yaml.safe_load(LOAD_BALANCED), GROUPED)
ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["vm1", "pip-a", "10.0.1.4", "10.0.1.0/24", "Tcp", "lb", "fe1", "pool"]),
        st.sampled_from(["*", "Internet", "Partner", "web", "n", "80-90", "::/0", "10.0.0.1/8"]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.just("name"), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in the data, keys and items."""
    inner = data.items() if isinstance(data, dict) else enumerate(data)
    found = []
    for key, value in inner:
        found.append((*at, key))
        if isinstance(value, dict | list):
            found += places(value, (*at, key))
    return found


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A good file with a few places replaced, removed or repeated."""
    data = copy.deepcopy(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 6))):
        *around, last = draw(st.sampled_from(places(data)))
        inner = data
        for part in around:
            inner = inner[part]
        match draw(st.sampled_from(["replace", "remove", "repeat", "rename"])):
            case "remove" if len(data) > 1:
                del inner[last]
            case "repeat" if isinstance(inner, list):
                inner.append(copy.deepcopy(inner[last]))
            case "rename" if isinstance(inner, dict):
                inner[draw(st.text(max_size=5)) or last.swapcase()] = inner.pop(last)
            case _:
                inner[last] = draw(ANYTHING)
    return data


def explained(text: str) -> None:
    loaded = load_text(text, "test.yaml")
    errors = [problem for problem in loaded.problems if problem.severity == "error"]
    assert (loaded.configuration is None) == bool(errors)
    for problem in loaded.problems:
        assert "\n" not in str(problem)
    assert Loaded.model_validate_json(loaded.to_json()) == loaded
    if loaded.configuration is not None:
        again = Configuration.model_validate_json(loaded.configuration.to_json())
        assert again == loaded.configuration
        assert resolve_groups(again).keys() == {g.name for g in again.network_security_groups}


@pytest.mark.parametrize("data", GOOD)
def test_what_is_right_stays_the_same_through_json(data: Any) -> None:
    explained(json.dumps(data))


KEYS = [(data, place) for data in GOOD for place in places(data) if isinstance(place[-1], str)]


def without(data: Any, place: tuple[Any, ...], instead: str | None) -> list[str]:
    """What is said of a good file with a key removed, or named differently."""
    data = copy.deepcopy(data)
    inner = data
    for part in place[:-1]:
        inner = inner[part]
    value = inner.pop(place[-1])
    if instead is not None:
        inner[instead] = value
    problems = load_text(json.dumps(data), "test.yaml").problems
    return [p.message for p in problems if p.severity == "error"]


def test_a_key_that_is_required_or_misspelt_brings_no_mistake_but_its_own() -> None:
    assert all(load_text(json.dumps(data), "test.yaml").configuration for data in GOOD)
    required = 0
    for data, place in KEYS:
        found = without(data, place, None)
        if any("this key is required" in message for message in found):
            required += 1
            assert len(found) == 1, (place, found)
        misspelt = place[-1][:-1] + place[-1][-1].swapcase()
        (message,) = without(data, place, misspelt)
        assert message == f"unknown key; did you mean {place[-1]}?"
    assert required > 60


def test_every_required_key_has_a_substitute() -> None:
    def keys(model: type[Resource], at: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
        for field in model.model_fields.values():
            inner = (*at, str(field.alias))
            if field.is_required():
                yield inner
            for kind in (field.annotation, *get_args(field.annotation)):
                if isinstance(kind, type) and issubclass(kind, Resource):
                    yield from keys(kind, inner if kind is field.annotation else (*inner, 0))

    required = list(keys(Configuration, ()))
    assert len(required) > 30
    for location in required:
        assert Substitutes().of(location)[str(location[-1])] is not None


@settings(max_examples=300, deadline=None)
@given(damaged())
def test_a_damaged_file_is_explained(data: Any) -> None:
    explained(json.dumps(data))


@settings(max_examples=100, deadline=None)
@given(ANYTHING)
def test_any_data_is_explained(data: Any) -> None:
    explained(json.dumps(data))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:- \n\t[]{}&*!|>'\"#,?%@`\\\x00\x85\ud7ff0", max_size=40))
def test_any_text_is_explained(text: str) -> None:
    explained(text)
