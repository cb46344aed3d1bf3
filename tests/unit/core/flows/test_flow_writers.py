"""Who writes a flow's fields is what the list beside them says; its state one module alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core.flows.flow import WRITERS

ROOT = Path(__file__).resolve().parents[4]
FLOWS = {"flow", "other", "holder", "superseded", "existing", "replaced", "each"}
"""What flows are called."""
OTHERS_HAVE_ONE = {"tui", "web", "cli", "lab", "importing"}
"""Layers that have no flow of the core's."""


def written() -> Iterator[tuple[str, str, str, int]]:
    """Module, name, attribute and line of every assignment to an attribute."""
    for file in sorted((ROOT / "gateway").rglob("*.py")):
        path = file.relative_to(ROOT / "gateway")
        if path.parts[0] in OTHERS_HAVE_ONE:
            continue
        module = ".".join(path.with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text())):
            targets: list[ast.expr] = []
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, ast.AugAssign | ast.AnnAssign):
                targets = [node.target]
            while targets:
                target = targets.pop()
                if isinstance(target, ast.Tuple | ast.List):
                    targets += target.elts
                elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
                    yield module, target.value.id, target.attr, target.lineno


WRITTEN = list(written())


def test_a_flows_fields_are_written_where_the_list_says() -> None:
    elsewhere = [
        f"{module}:{line} {name}.{attribute}"
        for module, name, attribute, line in WRITTEN
        if name in FLOWS and attribute in WRITERS
        if module.removeprefix("core.") not in WRITERS[attribute]
    ]
    assert elsewhere == []


def test_who_is_on_the_list_does_write() -> None:
    found = {
        (module.removeprefix("core."), attribute)
        for module, name, attribute, _ in WRITTEN
        if name in FLOWS
    }
    listed = {(module, field) for field, modules in WRITERS.items() for module in modules}
    assert listed - found == set()


def test_a_state_is_assigned_in_one_module() -> None:
    """By whatever name a flow goes there."""
    assert {module for module, _, attribute, _ in WRITTEN if attribute == "state"} == {
        "core.flows.flow"
    }


@pytest.mark.parametrize("field", ["original", "reply", "protocol"])
def test_a_key_never_changes(field: str) -> None:
    assert WRITERS[field] == ()
