"""Whatever a file holds: reading it never raises, and what it refuses it explains."""

from __future__ import annotations

import copy
import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Configuration, Loaded, load_text
from gateway.model.security import resolve_groups
from tests.unit.model.files import LOAD_BALANCED
from tests.unit.model.groups import grouped, rule

GROUPED = grouped(
    rule(sourceAddressPrefix=None, sourceAddressPrefixes=["10.0.0.0/8", "10.1.0.4"]),
    rule(name="s", destinationAddressPrefix=None, destinationApplicationSecurityGroups=["web"]),
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
