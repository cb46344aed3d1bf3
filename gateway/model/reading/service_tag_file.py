"""Reads a file in the format in which Azure publishes its service tags (ServiceTags_Public.json).

``values[].name`` and ``values[].properties.addressPrefixes`` are read, the rest is left alone, IPv6
prefixes are left out. Only what a configuration's rules use is kept, so that it is whole without
the file, and small: the file has some thousand tags with a hundred thousand prefixes.

Source: "Service tags", section "Discover service tags by using downloadable JSON files".
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection
from ipaddress import IPv4Network, collapse_addresses
from pathlib import Path
from typing import Any

from gateway.model.configuration import Configuration, SecurityRule, ServiceTag
from gateway.model.resolved.tags import BUILT_IN, by_folded

MAX_BYTES = 64 * 1024 * 1024


class UnusableFileError(Exception):
    """Why a file of service tags cannot be used, in the user's words."""


class TagFile:
    """The tags of a file. A tag's prefixes are read when it is asked for."""

    def __init__(self, path: Path) -> None:
        """Raises UnusableFileError."""
        self._path = path
        self._raw: dict[str, list[Any]] = {}
        for index, value in enumerate(_values(path)):
            place = f"values[{index}]"
            if not isinstance(value, dict) or not isinstance(value.get("name"), str):
                raise UnusableFileError(f"{place} in {path} has no name")
            properties = value.get("properties")
            found = properties.get("addressPrefixes") if isinstance(properties, dict) else None
            if not isinstance(found, list):
                what = f"{place} ({value['name']}) in {path}"
                raise UnusableFileError(f"{what} has no list properties.addressPrefixes")
            self._raw.setdefault(value["name"], []).extend(found)

    @property
    def names(self) -> Collection[str]:
        """All tags, in the file's spelling."""
        return self._raw.keys()

    def tag(self, name: str) -> ServiceTag:
        """A tag of ``names`` with the fewest prefixes that say the same.

        Raises UnusableFileError.
        """
        networks = []
        for text in self._raw[name]:
            if isinstance(text, str) and ":" in text:
                continue
            try:
                if not isinstance(text, str):
                    raise ValueError
                networks.append(IPv4Network(text, strict=False))
            except ValueError:
                problem = f"tag {name} in {self._path} has {text!r:.60}, which is not a prefix"
                raise UnusableFileError(problem) from None
        prefixes = [str(network) for network in collapse_addresses(networks)]
        return ServiceTag.model_validate({"name": name, "addressPrefixes": prefixes})


def used(configuration: Configuration) -> set[str]:
    """The tags that rules name, folded, but for the three that Azure defines by the network."""
    names = set()
    for group in configuration.network_security_groups:
        for rule in group.security_rules:
            names |= {text.casefold() for text in written(rule) if is_tag(text)}
    return names - {name.casefold() for name in BUILT_IN}


def written(rule: SecurityRule) -> list[str]:
    """Every address prefix of a rule, both sides."""
    single = (rule.source_address_prefix, rule.destination_address_prefix)
    several = (rule.source_address_prefixes, rule.destination_address_prefixes)
    return [text for text in single if text is not None] + [t for some in several for t in some]


def is_tag(text: str) -> bool:
    """Whether a rule's address prefix is a service tag's name."""
    return text[:1].isalpha()


def with_tags(configuration: Configuration, file: TagFile) -> Configuration:
    """The configuration with the file's prefixes of every tag that a rule uses.

    A tag that the configuration defines itself stays as it is. Raises UnusableFileError.
    """
    tags = configuration.service_tags
    spelling = by_folded(file.names)
    own = {tag.name.casefold() for tag in tags.values}
    wanted = sorted((used(configuration) - own) & spelling.keys())
    values = (*tags.values, *(file.tag(spelling[name]) for name in wanted))
    return configuration.model_copy(
        update={"service_tags": tags.model_copy(update={"values": values})}
    )


def _without_waiting(path: str, flags: int) -> int:
    """A pipe without a writer would keep an ordinary open waiting."""
    return os.open(path, flags | os.O_NONBLOCK)


def _values(path: Path) -> list[Any]:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UnusableFileError(f"{path} is not a file")
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnusableFileError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise UnusableFileError(f"{path} is not a file") from None
    except OSError as error:
        raise UnusableFileError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a NUL in the name
        raise UnusableFileError(f"cannot be read: {error}") from None
    if len(content) > MAX_BYTES:
        raise UnusableFileError(f"{path} is too large; allowed: {MAX_BYTES >> 20} MiB")
    try:
        data = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UnusableFileError(f"{path} is not JSON: {reason}") from None
    values = data.get("values") if isinstance(data, dict) else None
    if not isinstance(values, list):
        raise UnusableFileError(
            f"{path} has no list values; allowed: Azure's published service tags, as in "
            '{"values": [{"name": "Storage", "properties": {"addressPrefixes": ["192.0.2.0/24"]}}]}'
        )
    return values
