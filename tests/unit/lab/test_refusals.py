"""`snatgw lab` refuses in one line and with status 1, before it has touched anything."""

import os

import pytest
from click.testing import CliRunner

from gateway.lab.commands import lab


@pytest.mark.parametrize("command", [["up"], ["down"], ["exec", "vm1", "true"]])
def test_an_ordinary_user_is_told_to_be_root(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(lab, command)
    assert done.exit_code == 1
    assert done.stderr == ("snatgw lab: the lab makes network namespaces: run it as root (sudo)\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["up", "--name", "No"],
        ["up", "--config", "x.yaml", "--time-scale", "5"],
        ["up", "--time-scale", "0"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(lab, arguments).exit_code == 2


@pytest.mark.parametrize("command", ["up", "down", "status", "exec"])
def test_every_command_has_an_example(command: str) -> None:
    assert f"Example: snatgw lab {command}" in CliRunner().invoke(lab, [command, "--help"]).stdout
