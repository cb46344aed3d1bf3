"""ARM templates: every resource with its expressions evaluated, parameters from file and flags.

Child resources may stand inside their parents or beside them, resources in a list or (as Bicep
writes them) under symbolic names. What only a deployment knows is named: copy loops, conditions
that depend on unknown values, nested deployments. If that may be of a type that is carried over,
``check`` rejects the result: without it more might pass, or otherwise, than in Azure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.importing.evaluation import Scope, Unresolved
from gateway.importing.inventory import CHILD_TYPES, TYPES, Inventory
from gateway.importing.notes import LEFT_OUT, Notes, Place
from gateway.importing.read_json import InputError, label, read, too_deep

NESTED = "microsoft.resources/deployments"
MACHINE_KEYS = ("networkprofile",)
"""What is read of a virtual machine: the rest concerns its own host."""


@dataclass
class Parameters:
    """Values for templates' parameters, and which of them a template has taken."""

    from_files: dict[str, object] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    """By the name as written: a flag's type is its parameter's."""
    taken: set[str] = field(default_factory=set)

    def for_template(self, declared: Mapping[str, object], file: str) -> dict[str, object]:
        """Values by folded name. Raises InputError for one that is not of its parameter's type."""
        given: dict[str, object] = {}
        types = {name.casefold(): _type(value) for name, value in declared.items()}
        for name, value in self.from_files.items():
            if name.casefold() in types:
                given[name.casefold()] = value
        for name, text in self.flags.items():
            if name.casefold() in types:
                given[name.casefold()] = _from_flag(name, text, types[name.casefold()], file)
        self.taken |= given.keys()
        return given

    def unknown_flags(self) -> list[str]:
        """The flags' names that no template has a parameter for."""
        return [name for name in self.flags if name.casefold() not in self.taken]

    def unknown_in_files(self) -> list[str]:
        """The names in parameters files that no template has."""
        return [name for name in self.from_files if name.casefold() not in self.taken]


def read_parameters(name: str) -> dict[str, object]:
    """The values in a file of ARM's parameters format. Raises InputError."""
    document = read(name)
    values = document.get("parameters") if isinstance(document, dict) else None
    if not isinstance(values, dict):
        wanted = '{"parameters": {"NAME": {"value": …}}}'
        raise InputError(f"{label(name)}: is not a parameters file: it must be {wanted}")
    found: dict[str, object] = {}
    for parameter, entry in values.items():
        if isinstance(entry, dict) and "value" in entry:
            found[parameter] = entry["value"]
        elif isinstance(entry, dict) and "reference" in entry:
            found[parameter] = Unresolved(f"parameter {parameter} is in a key vault")
        else:
            where = f"{label(name)}: parameters.{parameter}"
            raise InputError(f'{where}: has no value; it must be {{"value": …}}')
    return found


def add_template(
    document: dict[str, object],
    file: str,
    parameters: Parameters,
    inventory: Inventory,
    notes: Notes,
) -> None:
    """Put a template's resources into the inventory. Raises InputError for bad parameters."""
    declared = _mapping(document, "parameters", file)
    given = parameters.for_template(declared, file)
    scope = Scope(declared, _mapping(document, "variables", file), given)
    resources = document.get("resources")
    _Reader(scope, file, inventory, notes).all_of(resources, "resources", (), ())


def is_template(document: object) -> bool:
    """Whether a JSON value is a template."""
    if not isinstance(document, dict):
        return False
    schema = document.get("$schema")
    named = isinstance(schema, str) and "deploymenttemplate" in schema.casefold()
    return named or ("resources" in document and "contentVersion" in document)


def is_parameters_file(document: object) -> bool:
    """Whether a JSON value is a parameters file, given where a template belongs."""
    schema = document.get("$schema") if isinstance(document, dict) else None
    return isinstance(schema, str) and "deploymentparameters" in schema.casefold()


class _Reader:
    def __init__(self, scope: Scope, file: str, inventory: Inventory, notes: Notes) -> None:
        self._scope = scope
        self._file = file
        self._inventory = inventory
        self._notes = notes

    def all_of(
        self, resources: object, path: str, types: tuple[str, ...], names: tuple[str, ...]
    ) -> None:
        """Every resource of a list, or of a mapping of symbolic names, within this parent."""
        if isinstance(resources, dict):
            entries = [(f"{path}.{key}", value) for key, value in resources.items()]
        elif isinstance(resources, list):
            entries = [(f"{path}[{number}]", value) for number, value in enumerate(resources)]
        else:
            if resources is not None:
                self._note(path, f"{LEFT_OUT}: must be a list of resources", lost=True)
            return
        for where, value in entries:
            self._one(value, where, types, names)

    def _one(self, raw: object, path: str, types: tuple[str, ...], names: tuple[str, ...]) -> None:
        if not isinstance(raw, dict):
            self._note(path, f"{LEFT_OUT}: must be a mapping", lost=True)
            return
        written = raw.get("type")
        name = self._scope.resolve(raw.get("name"))
        if "copy" in raw:
            what = written if isinstance(written, str) else "a resource"
            message = f"{LEFT_OUT}: {what} made by a copy loop"
            self._note(f"{path}.copy", message, lost=_matters(raw, types))
            return
        if isinstance(name, Unresolved):
            message = f"{LEFT_OUT}: {written}: {name.reason}"
            self._note(f"{path}.name", message, lost=_matters(raw, types))
            return
        if not isinstance(written, str) or not isinstance(name, str) or not name:
            message = f"{LEFT_OUT}: a resource has a type and a name, both text"
            self._note(path, message, lost=_matters(raw, types))
            return
        # Inside its parent, a child may have its full type and name, or only the last parts.
        own = tuple(name.split("/"))
        full = _full(written, types)
        own = (*names, *own) if names and len(own) < len(full) - 1 else own
        label = "/".join(f"{kind}/{part}" for kind, part in zip(full[1:], own, strict=False))
        if not self._is_deployed(raw, label, lost=_matters(raw, types)):
            return
        self._add(raw, "/".join(full), own, label)
        self.all_of(raw.get("resources"), f"{path}.resources", full, own)

    def _add(self, raw: dict[str, object], type_: str, names: tuple[str, ...], label: str) -> None:
        folded = type_.casefold()
        if folded == NESTED:
            message = f"{LEFT_OUT}: a nested deployment; give its template as a file of its own"
            self._note("", message, label, lost=_matters(raw, ()))
            return
        known = folded in TYPES or folded in CHILD_TYPES
        data: dict[str, object] = {}
        if known and folded.startswith("microsoft.compute/"):
            inner = raw.get("properties")
            inner = inner if isinstance(inner, dict) else {}
            data = {
                k: self._scope.resolve(v) for k, v in inner.items() if k.lower() in MACHINE_KEYS
            }
        elif known:
            taken = {k: v for k, v in raw.items() if k not in ("resources", "name", "condition")}
            data = {key: self._scope.resolve(value) for key, value in taken.items()}
            if _has_loop(data.get("properties")) and len(names) == 1 and "security" not in folded:
                self._note("copy", LEFT_OUT, label, lost=True)
        self._inventory.add(type_, list(names), data, self._file, one_of_many=True)

    def _is_deployed(self, raw: dict[str, object], label: str, *, lost: bool) -> bool:
        if raw.get("existing") is True:
            message = f"{LEFT_OUT}: an existing resource; give the output of az … show for it"
            # A group that is not there is missed where it is named; a rule of it would not be.
            self._note("", message, label, lost=lost and "/securityrules/" in label.casefold())
            return False
        condition = self._scope.resolve(raw.get("condition", True))
        if not isinstance(condition, bool):
            why = condition.reason if isinstance(condition, Unresolved) else "must be true or false"
            self._note("condition", f"{LEFT_OUT}: {why}", label, lost=lost)
            return False
        if condition is not True:
            self._note("condition", f"{LEFT_OUT}: not deployed with these parameters", label)
            return False
        return True

    def _note(self, property: str, message: str, resource: str = "", *, lost: bool = False) -> None:
        self._notes.add(Place(self._file, resource), property, message, lost=lost)


def _full(written: str, types: tuple[str, ...]) -> tuple[str, ...]:
    """A resource's type, of which a child inside its parent may have only the last part."""
    parts = tuple(written.split("/"))
    return parts if not types or "." in parts[0] else (*types, *parts)


def _matters(raw: dict[str, object], types: tuple[str, ...]) -> bool:
    """Whether a resource that cannot be known may be, or may have in it, what is carried over.

    A virtual machine's own resource is not: it only names its interfaces.
    """
    written = raw.get("type")
    if not isinstance(written, str):
        return True
    folded = "/".join(_full(written, types)).casefold()
    if folded in TYPES or folded in CHILD_TYPES:
        return not folded.startswith("microsoft.compute/")
    properties = raw.get("properties")
    if folded == NESTED and isinstance(properties, dict) and "template" in properties:
        inner = json.dumps(properties["template"]).casefold()
        return any(kind in inner for kind in ("microsoft.network/", NESTED))
    return folded == NESTED


def _has_loop(value: object) -> bool:
    """Whether some of the lists in a property are made by copy loops."""
    if isinstance(value, dict):
        return isinstance(value.get("copy"), list) or any(map(_has_loop, value.values()))
    return isinstance(value, list) and any(map(_has_loop, value))


def _mapping(document: dict[str, object], key: str, file: str) -> dict[str, object]:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{file}: {key}: must be a mapping of {key} by their names")
    return value


def _type(declaration: object) -> str:
    kind = declaration.get("type") if isinstance(declaration, dict) else None
    return kind.casefold() if isinstance(kind, str) else "string"


def _from_flag(name: str, text: str, kind: str, file: str) -> object:
    """A flag's text as a value of the parameter's type."""
    if kind in ("string", "securestring"):
        return text
    wanted: tuple[type, ...] = {"int": (int,), "bool": (bool,), "array": (list,)}.get(kind, (dict,))
    try:
        value = json.loads(text.lower() if kind == "bool" else text)
    except (ValueError, RecursionError):
        value = None
    if (
        too_deep(value)
        or not isinstance(value, wanted)
        or (kind == "int" and isinstance(value, bool))
    ):
        says = {"int": "a whole number", "bool": "true or false", "array": "a JSON list"}
        raise InputError(
            f"--parameter {name}: {file} takes {says.get(kind, 'a JSON mapping')}, not {text[:60]}"
        )
    return value
