"""Whether `scripts/setup` brings what the tests, the benchmark and the lab run and import.

A program that somebody once installed by hand lets all tests pass on that machine and on no other.
What is looked for is where a command has its program: the first word of what is run, of a list, of
a line of shell. A word counts if it is a program on this machine: one that is missing fails
where it is wanted.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

from gateway.command import COMMANDS

ROOT = Path(__file__).parents[2]
RUNNERS = frozenset(
    {
        "Popen", "Service", "_run", "call", "check_call", "check_output", "command", "exec", "execvp", "host",
        "line", "output", "run", "shell", "start", "which",
    }
)  # fmt: skip
SHELLS = frozenset({"host", "line", "shell"})
"""What takes a line of shell."""
NO_PROGRAMS = frozenset({"pip", "time", *COMMANDS})
"""Words that begin lists and may be programs, too, which nothing here means: ``snatgw top``."""
PATH = ":".join(
    place
    for place in (*os.environ["PATH"].split(":"), "/usr/sbin", "/sbin")
    if not place.startswith(sys.prefix)
)


def sources(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT), ast.parse(file.read_text())


def is_program(word: str) -> bool:
    return bool(re.fullmatch(r"[a-z][\w.+-]*", word)) and bool(shutil.which(word, path=PATH))


def text_of(node: ast.AST) -> str | None:
    """A string; of one with values in it, something stands for each."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "X" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def first_words(script: str) -> Iterator[str]:
    """The commands of a shell script."""
    for part in re.split(r"[;|&\n(`]+|\b(?:do|then|else|exec|if|while)\b", script):
        yield from part.split()[:1]


def words_of(call: ast.Call) -> list[str]:
    """A call's arguments, with those of lists in it; what is no string is nothing."""
    parts: list[ast.expr] = []
    for argument in call.args:
        inner = argument.value if isinstance(argument, ast.Starred) else argument
        parts += inner.elts if isinstance(inner, ast.List | ast.Tuple) else [inner]
    return [text_of(part) or "" for part in parts]


def commands(tree: ast.Module) -> Iterator[str]:
    """What stands where a command has its program."""
    said_to_others = set()  # lists that are not run, but given to something else
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name not in RUNNERS:
                said_to_others |= set(node.args)
                continue
            words = words_of(node)
            yield next(filter(is_program, words), "")
            for shell, flag, script in zip(["", "", *words], ["", *words], words, strict=False):
                is_script = name in SHELLS or (shell in ("sh", "bash") and flag == "-c")
                if is_script and " " in script:
                    yield from first_words(script)
        elif isinstance(node, ast.List | ast.Tuple):
            if node.elts and node not in said_to_others:
                yield text_of(node.elts[0]) or ""
        elif (text_of(node) or "").lstrip().startswith(("set -", "#!/bin/")):
            yield from first_words(text_of(node) or "")


def programs(*folders: str) -> dict[str, str]:
    """The programs that these run, and a place where each is wanted."""
    found: dict[str, str] = {}
    for file, tree in sources(*folders):
        for word in commands(tree):
            if word not in NO_PROGRAMS and is_program(word):
                found.setdefault(word, str(file))
    return found


def listed(*lists: str) -> dict[str, str]:
    """What these lists of scripts/setup name: packages by program (or by package)."""
    arrays = " ".join(f'"${{{name}[@]}}"' for name in lists)
    done = subprocess.run(
        ["bash", "-c", f"source scripts/setup; printf '%s\\n' {arrays}"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    entries = (line.partition(":") for line in done.stdout.split())
    return {program: package or program for program, _, package in entries}


def brought(wanted: set[str]) -> set[str]:
    """These packages, what they depend on, and what every Debian has (`debootstrap` minbase)."""
    fields = "${Package}\\t${Essential}\\t${Priority}\\t${Provides}\\t${Pre-Depends}, ${Depends}\\n"
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", fields], check=True, capture_output=True, text=True
    )
    needs: dict[str, str] = {}
    providers: dict[str, str] = {}
    todo = {*wanted, "apt"}
    for line in done.stdout.splitlines():
        package, essential, priority, provides, depends = line.split("\t")
        needs[package] = depends
        for name in re.findall(r"[a-z0-9][a-z0-9+.-]+(?= *(?:\(|,|$))", provides):
            providers.setdefault(name, package)
        if essential == "yes" or priority == "required":
            todo.add(package)
    done_with: set[str] = set()
    while todo:
        package = todo.pop()
        done_with.add(package)
        for alternatives in needs.get(package, "").split(","):
            names = re.findall(r"(?:^|\|)\s*([a-z0-9][a-z0-9+.-]+)", alternatives)
            there = [name if name in needs else providers.get(name, "") for name in names]
            todo |= set(list(filter(None, there))[:1]) - done_with
    return done_with


def owners(words: dict[str, str]) -> dict[str, str]:
    """The packages that these programs are of; one that is of none is not among them."""
    places: dict[str, set[str]] = defaultdict(set)
    for word in words:
        found = Path(shutil.which(word, path=PATH) or "")
        for place in (str(found), str(found.resolve())):
            places[place].add(word)
            places[place.removeprefix("/usr")].add(word)  # as it was called before /usr was merged
    done = subprocess.run(["dpkg", "-S", *places], check=False, capture_output=True, text=True)
    packages: dict[str, str] = {}
    for line in done.stdout.splitlines():
        package, _, place = line.rpartition(": ")
        if not package.startswith("diversion"):
            packages |= dict.fromkeys(places.get(place, ()), package.split(":")[0])
    return packages


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="this is no Debian")
@pytest.mark.parametrize(
    ("folders", "lists"),
    [
        (["tests", "docker"], ["DEMO", "TEST", "DOCKER"]),
        (["bench"], ["DEMO", "BENCH"]),
        (["gateway"], ["DEMO"]),
    ],
)
def test_what_is_run_is_installed(folders: list[str], lists: list[str]) -> None:
    wanted = programs(*folders)
    assert {"ip", "curl"} & wanted.keys()
    named = listed(*(f"{name}_PROGRAMS" for name in lists), "LIBRARIES")
    there = brought({*named.values(), "python3-venv", "python3-dev"})
    packages = owners(wanted)
    by_hand = {
        f"{word} ({packages.get(word, 'of no package')}), in {file}"
        for word, file in wanted.items()
        if word not in named and packages.get(word) not in there
    }
    assert by_hand == set()


def names_of(requirements: Iterable[str]) -> set[str]:
    return {re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in requirements}


def test_what_is_imported_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    named = names_of(requirements)
    for distribution in tuple(named):  # pydantic's core, starlette's anyio
        named |= names_of(line for line in requires(distribution) or () if "extra ==" not in line)
    distributions = packages_distributions()
    ours = {"gateway", "tests", "bench", "docker"}
    missing = set()
    for file, tree in sources("tests", "bench", "gateway"):
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - ours:
                known = names_of(distributions.get(name, []))
                if name not in sys.stdlib_module_names and not known & named:
                    missing.add(f"{name}, in {file}")
    assert missing == set()
