"""From a file to a configuration or to all that is wrong with it.

``load`` reads, parses, validates and cross-checks; the result has a configuration if there is no
error (warnings may come with it). It goes through JSON unchanged, because a state is kept with its
configuration. For a reload the daemon has all of this done by another process
(``python -m gateway.daemon.reader``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from gateway.model.checks import (
    addresses,
    inbound_rules,
    outbound_rules,
    references,
    secure_by_default,
    security_groups,
    snat_capacity,
    unsupported,
)
from gateway.model.configuration import Configuration
from gateway.model.problems import Problem, dotted, shown
from gateway.model.reading.service_tag_file import TagFile, UnusableFileError, with_tags
from gateway.model.reading.validate import Mistake, RemovedParts, validate
from gateway.model.reading.yaml_parser import Document, Unreadable

MAX_BYTES = 8 * 1024 * 1024
RESOURCES_IN_PART = 64  # of a configuration as JSON
UNFINISHED = "notCarriedOver"
"""What an import leaves in a file that must not be run as it is."""


class Loaded(BaseModel):
    """What became of a file. ``configuration`` is None exactly if a problem is an error."""

    model_config = ConfigDict(frozen=True)

    configuration: Configuration | None
    problems: tuple[Problem, ...] = ()

    def to_json(self) -> str:
        """One JSON object; ``Loaded.model_validate_json`` reads it back."""
        return self.model_dump_json(by_alias=True)

    def json_parts(self) -> Iterator[str]:
        """The same of one without problems, in parts that are each made quickly."""
        assert self.configuration is not None
        yield '{"configuration":{'
        for number, (name, field) in enumerate(Configuration.model_fields.items()):
            yield f'{"," if number else ""}"{field.alias}":'
            value = getattr(self.configuration, name)
            if not isinstance(value, tuple):
                yield value.model_dump_json(by_alias=True)
                continue
            for start in range(0, len(value), RESOURCES_IN_PART):
                some = value[start : start + RESOURCES_IN_PART]
                listed = ",".join(item.model_dump_json(by_alias=True) for item in some)
                yield f"{',' if start else '['}{listed}"
            yield "]" if value else "[]"
        yield '},"problems":[]}'


@dataclass(frozen=True)
class Interfaces:
    """This host's interfaces, in place of those that a file names: all of ``gateway.inside`` or
    none, ``gateway.outside`` or not."""

    inside: tuple[str, ...] = ()
    outside: str | None = None

    def put_into(self, data: dict[Any, Any]) -> dict[Any, Any]:
        """A file's content with these interfaces. What is no mapping is left for ``validate``."""
        gateway = data.get("gateway")
        if not isinstance(gateway, dict):
            return data
        own: dict[str, Any] = {}
        if self.inside:
            own["inside"] = list(self.inside)
        if self.outside is not None:
            own["outside"] = self.outside
        return {**data, "gateway": {**gateway, **own}}

    def reading(self, file: Path) -> list[str]:
        """The arguments with which ``python -m gateway.daemon.reader`` reads that file so."""
        inside = ["--inside", ",".join(self.inside)] if self.inside else []
        outside = [] if self.outside is None else ["--outside", self.outside]
        return [*inside, *outside, "--", str(file)]


THE_FILES = Interfaces()


def load(path: Path | str, interfaces: Interfaces = THE_FILES) -> Loaded:
    """Read a configuration file. Never raises for what is in it, or for its absence."""
    name = str(path)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return _refused(name, "there is no such file")
    except IsADirectoryError:
        return _refused(name, "is a directory; give the configuration file in it")
    except OSError as error:
        return _refused(name, f"cannot be read: {error.strerror or error}")
    except ValueError as error:  # a NUL in the name
        return _refused(name, f"cannot be read: {error}")
    if len(content) > MAX_BYTES:
        return _refused(name, f"is too large; allowed: {MAX_BYTES >> 20} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return _refused(name, "is not a text file: it must be YAML in UTF-8", line=line)
    return load_text(text, name, interfaces)


def load_text(text: str, name: str, interfaces: Interfaces = THE_FILES) -> Loaded:
    """The same from text; ``name`` is what problems call the file.

    A file of service tags is looked for relative to the directory in ``name``.
    """
    try:
        document = Document(text)
    except Unreadable as error:
        return _refused(name, str(error), path=error.path, line=error.line)
    data = document.data
    if data is None:
        return _refused(name, "is empty; a configuration needs at least gateway, virtualNetwork")
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        return _refused(name, f"is {kind}; a configuration is a mapping: gateway: …")

    data, unfinished = _unfinished(data)
    draft, mistakes, cuts = validate(interfaces.put_into(data))
    mistakes = [*unfinished, *mistakes]
    if draft is not None:
        draft, about_groups = _security_groups(draft, cuts, Path(name).parent)
        found = [
            *about_groups,
            *references.check(draft, cuts),
            *addresses.check(draft, cuts),
            *snat_capacity.check(draft, cuts),
            *inbound_rules.check(draft, cuts),
            *secure_by_default.check(draft, cuts),
            *outbound_rules.check(draft, cuts),
            *unsupported.check(draft, cuts),
        ]
        mistakes += filter(None, map(cuts.real, found))
    problems = [
        Problem(
            name,
            dotted(place),
            None,
            f"duplicate key; the first one is on line {document.lines[place]}",
            line=line,
        )
        for place, line in document.duplicates
    ]
    problems += [
        Problem(
            name,
            dotted(mistake.location),
            shown(mistake.value),
            mistake.message,
            "warning" if mistake.warning else "error",
            document.line(mistake.location),
        )
        for mistake in mistakes
    ]
    problems.sort(key=lambda problem: (problem.severity, problem.line or 0))
    refused = any(problem.severity == "error" for problem in problems)
    return Loaded(configuration=None if refused else draft, problems=tuple(problems))


def _unfinished(data: dict[Any, Any]) -> tuple[dict[Any, Any], list[Mistake]]:
    """The rest of a file that ``snatgw import`` made, and an error for each thing that it lacks.

    Rejected, whatever else is right: without a security rule, say, more would pass than in Azure.
    """
    listed = data.get(UNFINISHED, [])
    if listed is None:  # every line under it was taken away
        listed = []
    if not isinstance(listed, list):  # an unknown key like any other
        return data, []
    rest = {key: value for key, value in data.items() if key != UNFINISHED}
    told = "write what it stands for into this file, then take this line away"
    return rest, [
        Mistake((UNFINISHED, number), f"{item if isinstance(item, str) else shown(item)}; {told}")
        for number, item in enumerate(listed)
    ]


def _security_groups(
    draft: Configuration, cuts: RemovedParts, directory: Path
) -> tuple[Configuration, list[Mistake]]:
    """The draft with the prefixes of its service tags, and what is wrong with its groups."""
    file = draft.service_tags.file
    if file is None:
        return draft, list(security_groups.check(draft, cuts, ()))
    try:
        tags = TagFile(directory / file)
        whole = with_tags(draft, tags)
    except UnusableFileError as error:
        cuts.words.add("serviceTags")  # which tags there are is unknown
        mistakes = list(security_groups.check(draft, cuts, ()))
        return draft, [Mistake(("serviceTags",), str(error), file), *mistakes]
    return whole, list(security_groups.check(draft, cuts, tags.names, whole.service_tags.values))


def _refused(name: str, message: str, *, path: str = "", line: int | None = None) -> Loaded:
    return Loaded(configuration=None, problems=(Problem(name, path, None, message, line=line),))
