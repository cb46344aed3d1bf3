"""Files in Azure's exact shapes against the configurations, and the lines, that they must become."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.command import group
from gateway.model import load_text

DATA = Path(__file__).parent / "data"
CLI = [
    "vnet-list.json",
    "nsg-show-old.json",
    "nsg-show-new.json",
    "nic-list.json",
    "public-ip-list.json",
    "lb-show.json",
]
CASES = {
    "template": ["template.json", "--parameters", "template.parameters.json"],
    "cli": CLI,
    "standard": [
        "vnet-list.json",
        "nic-list.json",
        "public-ip-list.json",
        "lb-show-standard.json",
        "nat-gateway-list.json",
        "nsg-show-old.json",
        "nsg-show-new.json",
    ],
}


@pytest.fixture(autouse=True)
def _in_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA)


def snatgw(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(group, ["import", *arguments], prog_name="snatgw", input=stdin)


def notes(result: Result) -> list[str]:
    return [n for n in result.stderr.splitlines() if not n.startswith("check will say")]


@pytest.mark.parametrize("case", list(CASES))
def test_files_become_this_configuration_and_these_lines(case: str) -> None:
    result = snatgw(*CASES[case])
    assert result.exit_code == 0
    assert result.stdout == (DATA / f"{case}.yaml").read_text()
    assert notes(result) == (DATA / f"{case}.notes").read_text().splitlines()
    assert snatgw(*CASES[case]).stdout == result.stdout


@pytest.mark.parametrize("case", ["template", "cli"])
def test_what_needs_nothing_new_loads_without_errors(case: str) -> None:
    text, _, lost = snatgw(*CASES[case]).stdout.partition("notCarriedOver:\n")
    refused = [p.path for p in load_text(text + "notCarriedOver:\n" + lost, "x").problems]
    assert ("notCarriedOver[0]" in refused) is (case == "template")  # interfaces of a copy loop
    loaded = load_text(text, "imported.yaml")
    assert loaded.configuration is not None, loaded.problems
    assert [p.path for p in loaded.problems if p.path != "loadBalancers"] == []


def test_json_is_the_same_configuration() -> None:
    text = snatgw(*CLI, "--json").stdout
    assert len(text.splitlines()) == 1
    assert load_text(text, "j").configuration == load_text(snatgw(*CLI).stdout, "y").configuration


def test_standard_things_get_their_profile_and_the_consequence_is_named() -> None:
    result = snatgw(*CASES["standard"])
    assert "profile: azure-current" in result.stdout
    said = [line for line in result.stderr.splitlines() if line.startswith("check will say")]
    expected = [str(p) for p in load_text(result.stdout, "result").problems]
    assert said == [f"check will say: {line}" for line in expected]
    assert any("numberOfProbes" in line for line in said)


def test_flags_fill_in_what_azure_does_not_say() -> None:
    result = snatgw(
        *CLI,
        "--inside",
        "br0,br1",
        "--outside",
        "eth9",
        "--default-outbound",
        "192.0.2.9,198.51.100.20",
    )
    loaded = load_text(result.stdout, "x.yaml")
    assert "inside: [br0, br1]" in result.stdout
    assert "outside: eth9" in result.stdout
    assert "defaultOutboundAccess: {publicIPAddresses: [default-outbound, lb-pip]}" in result.stdout
    # lb-pip is a frontend's already, and check says so
    assert [p.path for p in loaded.problems if p.severity == "error"] == [
        "defaultOutboundAccess.publicIPAddresses[1]"
    ]


def test_parameters_on_the_command_line_count_before_the_file() -> None:
    flags = [
        "--parameter",
        "prefix=mine",
        "--parameter",
        "withSpare=TRUE",
        "--parameter",
        "sshPort=2222",
    ]
    network = '{"cidr": "10.7.0.0/16", "subnets": ["10.7.1.0/24", "10.7.2.0/24"]}'
    result = snatgw(*CASES["template"], *flags, "--parameter", f"network={network}")
    assert "name: mine-web1" in result.stdout
    assert "name: spare" in result.stdout
    assert "destinationPortRange: '2222'" in result.stdout
    assert "addressPrefixes: [10.7.0.0/16]" in result.stdout


def test_the_order_of_files_does_not_decide_what_is_found() -> None:
    forward, backward = snatgw(*CLI), snatgw(*reversed(CLI))
    first, second = (load_text(r.stdout, "x").configuration for r in (forward, backward))
    assert first is not None
    assert second is not None
    assert set(first.virtual_machines) == set(second.virtual_machines)
    assert first.load_balancers == second.load_balancers
    assert first.virtual_network == second.virtual_network
    assert set(first.network_security_groups) == set(second.network_security_groups)


def test_the_same_file_twice_is_the_file_once() -> None:
    assert snatgw("cli.yaml").exit_code == 1
    whole = (DATA / "vnet-list.json").read_bytes()
    once, twice = snatgw("vnet-list.json"), snatgw("vnet-list.json", "-", stdin=whole)
    assert twice.stdout.splitlines()[1:] == once.stdout.splitlines()[1:]
    assert notes(twice) == notes(once)


def test_utf_16_as_powershell_writes_it() -> None:
    text = (DATA / "vnet-list.json").read_text()
    result = snatgw("-", stdin=text.encode("utf-16"))
    assert result.stdout.splitlines()[1:] == snatgw("vnet-list.json").stdout.splitlines()[1:]
