"""From the names of files to a configuration, notes, and what check will report of the result.

Each file is read (``read_json.py``) and taken for a template or for az's output; both fill one
inventory, of which ``build.py`` makes the configuration. An unusable file ends it, after all files
were tried, so that every reason is reported at once. It knows no resource type.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.importing.build import Settings, assemble
from gateway.importing.cli_output import add_output
from gateway.importing.inventory import Inventory
from gateway.importing.notes import Notes, Place
from gateway.importing.read_json import InputError, label, read
from gateway.importing.templates import (
    Parameters,
    add_template,
    is_parameters_file,
    is_template,
)
from gateway.importing.yaml_entries import Entry
from gateway.importing.yaml_output import to_yaml
from gateway.model import Problem, load_text

RESULT = "result"
"""What lines about the imported configuration call it."""


class NothingImportedError(Exception):
    """No file had anything to carry over; ``lines`` has the reasons."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = list(lines)
        super().__init__("\n".join(self.lines))


@dataclass(frozen=True)
class Imported:
    """A configuration made of Azure's resources."""

    configuration: Entry
    files: tuple[str, ...]
    notes: tuple[str, ...]
    """What was not carried over or had to be chosen, a line each."""

    def to_yaml(self) -> str:
        """The file, with comments."""
        heading = [f"Made by snatgw import from {', '.join(self.files)}."]
        return to_yaml(self.configuration, heading)

    def to_json(self) -> str:
        """The same as one JSON object."""
        return json.dumps(self.configuration)

    def problems(self) -> tuple[Problem, ...]:
        """What ``snatgw check`` reports of the file, with its lines."""
        return load_text(self.to_yaml(), RESULT).problems


def import_files(names: Sequence[str], parameters: Parameters, settings: Settings) -> Imported:
    """Read all files into one configuration.

    Raises NothingImportedError, with every reason: files that cannot be used (one is enough),
    parameters that do not fit, or no resource that is carried over.
    """
    notes = Notes()
    inventory = Inventory(notes)
    refusals: list[str] = []
    templates = 0
    for name in dict.fromkeys(names):
        try:
            document = read(name)
            if is_parameters_file(document):
                raise InputError(f"{label(name)}: is a parameters file; give it as --parameters")
            if is_template(document) and isinstance(document, dict):
                templates += 1
                add_template(document, label(name), parameters, inventory, notes)
            else:
                add_output(document, label(name), inventory, notes)
        except InputError as error:
            refusals.append(str(error))
    if not refusals:
        refusals += [
            f"--parameter {name}: "
            + ("no template has this parameter" if templates else "no file is a template")
            for name in parameters.unknown_flags()
        ]
    if refusals:
        raise NothingImportedError(refusals)
    for name in parameters.unknown_in_files():
        notes.add(Place("--parameters"), name, "no template has this parameter")
    if not len(inventory):
        message = (
            "nothing to import: no virtual networks, security groups, interfaces, public IP "
            "addresses, load balancers or NAT gateways in the files"
        )
        raise NothingImportedError([*notes.lines(), message])
    configuration = assemble(inventory, settings, notes)
    files = tuple(dict.fromkeys(map(label, names)))
    return Imported(configuration, files, tuple(notes.lines()))
