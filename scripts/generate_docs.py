#!/usr/bin/env python3
"""Writes the parts of the documentation that the code says better: run it after changing the code.

    scripts/generate_docs.py            write what has changed
    scripts/generate_docs.py --check    write nothing; exit 1 if something would change

A part stands between ``<!-- NAME: generated -->`` and ``<!-- NAME: end -->`` in its file.
``tests/unit/test_generated_docs.py`` runs the check.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def module_tables() -> str:
    """A table for each package of ``gateway``: its modules, and each one's first line."""
    packages = sorted({path.parent for path in (ROOT / "gateway").rglob("*.py")})
    parts = []
    for package in packages:
        name = str(package.relative_to(ROOT)).replace("/", ".")
        modules = sorted(p for p in package.glob("*.py") if p.name != "__init__.py")
        parts.append(f"### `{name}`\n\n{_summary(package / '__init__.py')}\n")
        if modules:
            rows = [f"| `{path.name}` | {_summary(path)} |" for path in modules]
            parts.append("\n".join(["| module | what it is |", "| --- | --- |", *rows]) + "\n")
    return "\n".join(parts)


def tcp_states() -> str:
    """TCP's states as a diagram and a table, from the table that the engine reads."""
    from gateway.core.flows.tcp import TRANSITIONS, Side, State

    arrows: dict[tuple[State, State], list[str]] = {}
    for (before, side, segment), after in TRANSITIONS.items():
        label = f"{segment.name} from {side.name.lower()}"
        arrows.setdefault((before, after), []).append(label)
    for labels in arrows.values():
        for kind in {label.partition(" ")[0] for label in labels}:
            both = [f"{kind} from {side.name.lower()}" for side in Side]
            if all(label in labels for label in both):
                at = labels.index(both[0])
                labels[at : at + 1] = [f"{kind} from either"]
                labels.remove(both[1])
    diagram = ["```mermaid", "stateDiagram-v2", f"    [*] --> {State.OPENING.name}: SYN"]
    diagram += [
        f"    {before.name} --> {after.name}: {', '.join(labels)}"
        for (before, after), labels in arrows.items()
    ]
    table = ["| state | segment | next state |", "| --- | --- | --- |"]
    table += [
        f"| {before.name} | {', '.join(labels)} | {after.name} |"
        for (before, after), labels in arrows.items()
    ]
    return "\n".join([*diagram, "```", "", *table, ""])


def drop_reasons() -> str:
    """Every reason for a drop: what decides it, what it means, what to do about it."""
    from gateway.schema.drop_reasons import DropReason

    rows = [
        f"| `{reason.value}` | {', '.join(by.value for by in reason.decided_by)} | "
        f"{reason.sentence} | {reason.advice} |"
        for reason in sorted(DropReason, key=lambda reason: reason.value)
    ]
    return "\n".join(
        [
            "| reason | decided by | what it means | what to do |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def packet_paths() -> str:
    """The stages of each path, from the tuples that the engine walks."""
    from gateway.core import pipeline
    from gateway.core.ingress import IngressPath

    named = {
        name: getattr(pipeline, name) for name in ("OUTBOUND", "INBOUND", "LATERAL", "HAIRPIN")
    }
    rows = ["| path | stages |", "| --- | --- |"]
    rows += [f"| `{name}` | {_stages(path)} |" for name, path in named.items()]
    rows += ["", "| a packet comes in as | and meets |", "| --- | --- |"]
    for ingress in IngressPath:
        path = pipeline.PATHS.get(ingress)
        if path is not None:
            name = next((name for name, it in named.items() if it is path), None)
            rows.append(f"| `{ingress.name}` | {_stages(path) if name is None else f'`{name}`'} |")
    return "\n".join([*rows, ""])


def _stages(path: tuple[Callable[..., object], ...]) -> str:
    return ", ".join(f"`{stage.__name__}`" for stage in path)


def _summary(path: Path) -> str:
    """The first paragraph of a module's docstring, without the process that it runs in."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    first = docstring.partition("\n\n")[0].replace("\n", " ").replace("``", "`")
    first = re.sub(r" Runs in .+$", "", first)
    if not first:
        raise SystemExit(f"{path.relative_to(ROOT)}: there is no docstring")
    return first.replace("|", "\\|")


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "modules": ("docs/architecture.md", module_tables),
    "paths": ("docs/architecture.md", packet_paths),
    "tcp-states": ("docs/architecture.md", tcp_states),
    "drops": ("docs/drops.md", drop_reasons),
}
"""A part's name to its file and what writes it."""


def with_part(text: str, name: str, part: str) -> str:
    """A file's text with one part in it as it should be."""
    begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f"there must be one pair of {begin} and {end}")
    return pattern.sub(lambda _: f"{begin}\n\n{part}\n{end}", text)


def outdated() -> dict[Path, str]:
    """The files in which something would change, with their new text."""
    texts: dict[Path, str] = {}
    for name, (file, write) in PARTS.items():
        path = ROOT / file
        texts[path] = with_part(texts.get(path, path.read_text()), name, write())
    return {path: text for path, text in texts.items() if path.read_text() != text}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if outdated")
    check = parser.parse_args().check
    files = outdated()
    for path, text in files.items():
        print(f"{path.relative_to(ROOT)}: {'outdated' if check else 'written'}")
        if not check:
            path.write_text(text)
    return 1 if check and files else 0


if __name__ == "__main__":
    sys.exit(main())
