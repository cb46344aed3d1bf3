"""What is no import: one line each, exit 1, nothing on standard output, never a traceback."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.command import group
from gateway.importing import read_json
from tests.unit.importing.arm import interface, network, run, template
from tests.unit.importing.test_round_trip import CASES, DATA


def refused(directory: Path, document: object, *flags: str) -> list[str]:
    result = run(directory, document, *flags)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    return result.stderr.replace(f"{directory}/", "").splitlines()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("", "in.json: is empty"),
        ('{"a": [1, 2', "in.json:1: not JSON: "),
        ("{\n  'a': 1}", "in.json:2: not JSON: "),
        ("name: x", "az writes JSON with -o json"),
        ("param name string", "az bicep build"),
        (b"\x80\xff\x00\x01", "not a text file"),
        ("[NaN]", "NaN is no number"),
        ("9" * 5000, "not JSON"),
        ("[" * 100_000, "nested more than 64 deep"),
        ("[" * 100 + "]" * 100, "nested more than 64 deep"),
        ("[]", "nothing to import"),
        ("{}", "nothing to import"),
        ("3", "nothing to import"),
        ('[null, "x", 3, {"name": "x"}]', "nothing to import"),
        ({"$schema": "…/deploymentParameters.json#"}, "give it as --parameters"),
        (template(), "nothing to import"),
        (template(parameters=[]), "parameters: must be a mapping"),
        (template(variables="x"), "variables: must be a mapping"),
        (
            template({"type": "Microsoft.Web/sites", "name": "x"}),
            "resources of type Microsoft.Web/sites",
        ),
        (template(3, None, {"type": 3}, {"name": "x"}), "resources[0]: not carried over"),
    ],
)
def test_one_line_says_it(tmp_path: Path, document: object, says: str) -> None:
    assert any(says in line for line in refused(tmp_path, document))


def test_files_that_are_not_there_are_all_named(tmp_path: Path) -> None:
    names = [str(tmp_path / "none.json"), str(tmp_path), str(tmp_path / "no\0ne")]
    result = CliRunner().invoke(group, ["import", *names])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 3


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_json, "MAX_BYTES", 1 << 20)
    assert refused(tmp_path, "[" + " " * (1 << 20) + "]") == [
        "snatgw: in.json: is too large; allowed: 1 MiB"
    ]


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("pot=1", "--parameter pot: no template has this parameter"),
        ("port=x", "takes a whole number, not x"),
        ("port=true", "takes a whole number"),
        ("many={}", "takes a JSON list"),
        ("many=" + "[" * 200 + "]" * 200, "takes a JSON list"),
        ("deep=[", "takes a JSON mapping"),
        ("yes=1", "takes true or false"),
    ],
)
def test_parameters_that_do_not_fit(tmp_path: Path, flag: str, says: str) -> None:
    types = {"port": "int", "many": "array", "deep": "object", "yes": "bool"}
    declared = {name: {"type": kind} for name, kind in types.items()}
    (line,) = refused(tmp_path, template(network(), parameters=declared), "--parameter", flag)
    assert says in line


def test_parameters_files(tmp_path: Path) -> None:
    bad = tmp_path / "p.json"
    for content, says in (
        ("[]", "not a parameters file"),
        ('{"parameters": {"a": 3}}', "parameters.a"),
    ):
        bad.write_text(content)
        (line,) = refused(tmp_path, template(network()), "--parameters", str(bad))
        assert says in line
    bad.write_text('{"parameters": {"a": {"value": 1}, "b": {"reference": {"secretName": "x"}}}}')
    result = run(
        tmp_path,
        template(network("[parameters('b')]"), interface("n", "10.0.1.4"), parameters={"b": {}}),
        "--parameters",
        str(bad),
    )
    assert result.exit_code == 0
    assert "parameter b is in a key vault" in result.stderr
    assert "--parameters: a: no template has this parameter" in result.stderr


@pytest.mark.parametrize(
    "flags", [["--parameter", "x"], ["--inside", "a,"], ["--default-outbound", "x"]]
)
def test_wrong_usage_is_exit_2(tmp_path: Path, flags: list[str]) -> None:
    assert run(tmp_path, [network()], *flags).exit_code == 2


def test_any_value_anywhere_is_no_traceback(tmp_path: Path) -> None:
    """Files of the round trip with parts replaced at random."""
    chance = random.Random(7)
    odd: list[Any] = [
        None,
        3,
        -1.5,
        1e400,
        True,
        "",
        "x",
        "[x]",
        "[parameters('prefix')]",
        "1.2.3.4",
        "a:b",
        [],
        [[]],
        {},
        [{}],
        [None],
        {"id": 3},
        {"id": "/"},
        {"id": "a/b/c"},
        {"name": ["x"]},
        {"properties": []},
    ]
    names = sorted(
        {
            name
            for case in CASES.values()
            for name in case
            if name.endswith("t.json") or name in ("template.json", "lb-show.json")
        }
    )
    whole = [
        json.loads(_without_comments(DATA / name)) for name in names if "parameters" not in name
    ]
    for _ in range(400):
        value = copy.deepcopy(chance.choice(whole))
        for _ in range(chance.randint(1, 6)):
            _replace_somewhere(value, chance, odd)
        result = run(tmp_path, value)
        assert result.exit_code in (0, 1)
        assert result.exception is None or isinstance(result.exception, SystemExit), (
            value,
            result.exc_info,
        )


def _without_comments(path: Path) -> str:
    return "\n".join(
        line for line in path.read_text().splitlines() if not line.strip().startswith("//")
    )


def _replace_somewhere(value: Any, chance: random.Random, odd: list[Any]) -> None:
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = chance.choice(keys)
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.1:
            value[key] = copy.deepcopy(chance.choice(odd))
            return
        value = inner
