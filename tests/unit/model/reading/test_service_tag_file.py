"""Azure's published service tags: what is taken from the file, and what a bad one is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Loaded, load
from gateway.model.reading import service_tag_file
from gateway.model.resolved.security_rules import resolve_groups
from tests.unit.model.groups import grouped, rule

# the shape of Azure's file
PUBLISHED = {
    "changeNumber": 370,
    "cloud": "Public",
    "values": [
        {
            "name": "Storage",
            "id": "Storage",
            "properties": {
                "changeNumber": 12,
                "region": "",
                "regionId": 0,
                "platform": "Azure",
                "systemService": "AzureStorage",
                "addressPrefixes": ["192.0.2.0/25", "192.0.2.128/25", "2001:db8::/48"],
                "networkFeatures": ["API", "NSG"],
            },
        },
        {
            "name": "Sql.WestEurope",
            "id": "Sql.WestEurope",
            "properties": {"addressPrefixes": ["198.51.100.7", "203.0.113.0/28"]},
        },
        {"name": "Broken", "properties": {"addressPrefixes": ["300.0.0.0/8"]}},
    ],
}


def loaded(directory: Path, tag: str, tags: object = PUBLISHED, **changes: Any) -> Loaded:
    """A configuration whose rule denies a tag, loaded from beside its file of tags."""
    if tags is not None:
        content = tags if isinstance(tags, bytes) else json.dumps(tags).encode()
        (directory / "tags.json").write_bytes(content)
    data = grouped(rule(destinationAddressPrefix=tag), **{"serviceTags": "tags.json"} | changes)
    path = directory / "lab.yaml"
    path.write_text(json.dumps(data))
    return load(path)


def only_problem(found: Loaded, directory: Path) -> str:
    (problem,) = found.problems
    assert found.configuration is None
    line = str(problem).removeprefix(f"{directory / 'lab.yaml'}:1: serviceTags = tags.json: ")
    return line.replace(f"{directory}/", "")


@pytest.mark.parametrize("tag", ["Storage", "storage", "STORAGE"])
def test_a_tag_of_the_file_is_its_ipv4_prefixes(tmp_path: Path, tag: str) -> None:
    configuration = loaded(tmp_path, tag).configuration
    assert configuration is not None
    (found,) = (r for r in resolve_groups(configuration)["n"].rules if not r.default)
    assert found.destination_text == ("Storage",)
    assert found.destinations == ((0xC0000200, 0xC00002FF),)
    assert found.expanded is not None
    assert found.expanded.destination == ("192.0.2.0/24",)


def test_a_regional_tag(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, "Sql.WestEurope").configuration
    assert configuration is not None
    assert [tag.name for tag in configuration.service_tags.values] == ["Sql.WestEurope"]
    assert configuration.service_tags.values[0].address_prefixes == (
        "198.51.100.7/32",
        "203.0.113.0/28",
    )


def test_what_is_loaded_is_whole_without_the_file(tmp_path: Path) -> None:
    found = loaded(tmp_path, "Storage")
    (tmp_path / "tags.json").unlink()
    again = Loaded.model_validate_json(found.to_json())
    assert again == found
    assert again.configuration is not None
    assert resolve_groups(again.configuration)["n"].rules[-1].name == "DenyAllOutBound"


def test_an_absolute_path_and_tags_of_ones_own(tmp_path: Path) -> None:
    own = {"name": "Storage", "addressPrefixes": ["10.9.0.0/16"]}
    tags = {"file": str(tmp_path / "tags.json"), "values": [own]}
    configuration = loaded(tmp_path, "Storage", serviceTags=tags).configuration
    assert configuration is not None
    (tag,) = configuration.service_tags.values
    assert tag.address_prefixes == ("10.9.0.0/16",)


def test_a_tag_that_the_file_has_not(tmp_path: Path) -> None:
    (problem,) = loaded(tmp_path, "Sql.WestEurop").problems
    assert problem.message == "no such service tag; did you mean Sql.WestEurope?"


GOOD_VALUE = {"name": "Storage", "properties": {"addressPrefixes": []}}
BAD: dict[str, tuple[Any, str]] = {
    "no file": (None, "there is no file tags.json"),
    "not JSON": (b"{", "tags.json is not JSON: Expecting property name"),
    "not text": (b"\xff\xfe\x00", "tags.json is not JSON: 'utf-8' codec can't decode"),
    "too deep": (b"[" * 100_000, "tags.json is not JSON: nested too deeply"),
    "a list": ([], "tags.json has no list values; allowed: Azure's published service tags, as in"),
    "no values": ({"values": 5}, "tags.json has no list values; allowed: Azure's published"),
    "no name": ({"values": [GOOD_VALUE, {}]}, "values[1] in tags.json has no name"),
    "no properties": (
        {"values": [{"name": "A"}]},
        "values[0] (A) in tags.json has no list properties.addressPrefixes",
    ),
    "no prefixes": (
        {"values": [{"name": "A", "properties": {"addressPrefixes": "10.0.0.0/8"}}]},
        "values[0] (A) in tags.json has no list properties.addressPrefixes",
    ),
    "a bad prefix": (
        {"values": [{"name": "Storage", "properties": {"addressPrefixes": ["1.2.3.4/40"]}}]},
        "tag Storage in tags.json has '1.2.3.4/40', which is not a prefix",
    ),
    "a number for a prefix": (
        {"values": [{"name": "Storage", "properties": {"addressPrefixes": [5]}}]},
        "tag Storage in tags.json has 5, which is not a prefix",
    ),
}


@pytest.mark.parametrize(("tags", "message"), BAD.values(), ids=BAD)
def test_an_unusable_file_is_one_problem(tmp_path: Path, tags: object, message: str) -> None:
    assert only_problem(loaded(tmp_path, "Storage", tags), tmp_path).startswith(message)


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_tag_file, "MAX_BYTES", 3 << 20)
    padded = json.dumps(PUBLISHED).encode() + b" " * (3 << 20)
    found = only_problem(loaded(tmp_path, "Storage", padded), tmp_path)
    assert found == "tags.json is too large; allowed: 3 MiB"


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "tags.json").mkdir()
    assert only_problem(loaded(tmp_path, "Storage", None), tmp_path) == "tags.json is not a file"
    (tmp_path / "tags.json").rmdir()
    os.mkfifo(tmp_path / "tags.json")
    assert only_problem(loaded(tmp_path, "Storage", None), tmp_path) == "tags.json is not a file"


def test_a_path_with_nothing_in_it(tmp_path: Path) -> None:
    for path in ("", "\0"):
        (problem,) = loaded(tmp_path, "Storage", serviceTags={"file": path}).problems
        assert problem.path == "serviceTags"


def test_a_tag_without_ipv4_prefixes_is_warned_of(tmp_path: Path) -> None:
    tags = {"values": [{"name": "New", "properties": {"addressPrefixes": ["2001:db8::/48"]}}]}
    found = loaded(tmp_path, "new", tags)
    assert found.configuration is not None
    (problem,) = found.problems
    assert problem.severity == "warning"
    assert problem.message == "this service tag has no IPv4 prefixes: it matches nothing"
