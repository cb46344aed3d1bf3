"""``snatgw explain``, ``snatgw nsg``, ``snatgw reload --enforce`` and denials among the events."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.events import sentence
from gateway.command import group
from gateway.core.events import PacketsDropped
from gateway.daemon.channel.api_messages import Kind
from gateway.daemon.channel.event_views import event_document, gateway_event
from gateway.schema.drop_reasons import DropReason
from tests.unit.cli.test_commands import objects, snatgw
from tests.unit.daemon.serving import Served, served


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as daemon:
        yield daemon


def test_explain_is_a_short_story(daemon: Served) -> None:
    result = snatgw("explain", "--vm", "vm2", "--to", "198.51.100.7:25/tcp", api=daemon.path)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "vm2 → 198.51.100.7:25/tcp",
        "  NetworkInterface  nic-nsg                AllowInternetOutBound (default rule): Allow",
        "  Subnet            subnet-nsg             no-smtp: Deny",
        "  method            InstanceLevelPublicIP",
        "  public IP         203.0.113.30           needs no SNAT port",
        "Deny: Rule no-smtp of subnet-nsg (Subnet) denies it.",
    ]
    result = snatgw(
        *("explain", "--vm", "vm3", "--to", "198.51.100.7:53/udp", "--from-port", "4000"),
        api=daemon.path,
    )
    first, *_, last = result.stdout.splitlines()
    assert first == "vm3:4000 → 198.51.100.7:53/udp"
    assert "SNAT ports free toward the destination" in result.stdout
    assert last.startswith("Allow: ")


def test_a_trace_lists_what_each_stage_said(daemon: Served) -> None:
    result = snatgw(
        *("explain", "--vm", "vm1", "--to", "198.51.100.7:25/tcp", "--trace"), api=daemon.path
    )
    stages = [line.split() for line in result.stdout.splitlines() if "_" in line]
    assert stages[0] == ["find_by_original", "Continue", "no", "flow"]
    assert stages[-1] == ["admit_outbound", "Drop", "DeniedBySecurityRule"]
    assert result.stdout.splitlines()[-1].startswith("Deny: ")


def test_a_verdict_has_a_colour_on_a_terminal(daemon: Served) -> None:
    arguments = ["explain", "--vm", "vm1", "--to", "198.51.100.7:25/tcp", "--api", str(daemon.path)]
    result = CliRunner().invoke(group, arguments, color=True)
    assert "\x1b[31m" in result.stdout
    assert "\x1b" not in snatgw(*arguments).stdout


def test_explain_as_json_is_the_contracts_object(daemon: Served) -> None:
    (document,) = objects(
        snatgw(
            *("explain", "--inbound", "--from", "198.51.100.7:50000"),
            *("--to", "203.0.113.30:22/tcp", "--json"),
            api=daemon.path,
        )
    )
    assert list(document) == [
        "verdict",
        "reason",
        "networkSecurityGroups",
        "method",
        "candidates",
        "existingFlow",
    ]
    assert document["verdict"] == "Deny"
    ping = snatgw("explain", "--vm", "vm2", "--to", "198.51.100.1/icmp", "--json", api=daemon.path)
    assert objects(ping)[0]["verdict"] == "Allow"


def test_a_vm_that_there_is_not_is_one_line_and_exit_1(daemon: Served) -> None:
    for arguments in (
        ("explain", "--vm", "wm1", "--to", "198.51.100.1/icmp"),
        ("nsg", "--vm", "wm1"),
    ):
        result = snatgw(*arguments, api=daemon.path)
        assert (result.exit_code, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert line == "snatgw: vm: there is no virtual machine 'wm1', did you mean vm1?"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--vm", "vm1"], "--to"),
        (["--to", "198.51.100.7:25/tcp"], "--vm:"),
        (["--vm", "vm1", "--to", "198.51.100.7:25"], "--to:"),
        (["--vm", "vm1", "--to", "198.51.100.7:25/tcp", "--from-port", "x"], "--from-port:"),
        (["--vm", "vm1", "--to", "198.51.100.7:25/tcp", "--from", "198.51.100.7:1"], "--from:"),
        (["--inbound", "--to", "203.0.113.30:22/tcp"], "--from:"),
    ],
)
def test_wrong_usage_is_exit_2_and_names_the_option(arguments: list[str], named: str) -> None:
    result = snatgw("explain", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert named in result.stderr


def test_nsg_lists_rules_under_a_heading_for_each_step(daemon: Served) -> None:
    result = snatgw("nsg", "--vm", "vm2", api=daemon.path)
    assert result.exit_code == 0, result.output
    headings = [line for line in result.stdout.splitlines() if line.endswith(")")]
    assert headings == [
        "Inbound: subnet-nsg (Subnet)",
        "Inbound: nic-nsg (NetworkInterface)",
        "Outbound: nic-nsg (NetworkInterface)",
        "Outbound: subnet-nsg (Subnet)",
    ]
    everything = snatgw("nsg", api=daemon.path).stdout
    assert "Inbound: nic-nsg (NetworkInterface vm2)" in everything
    (rule,) = [line for line in everything.splitlines() if " no-smtp " in line]
    assert rule.split() == ["100", "no-smtp", "Deny", "Tcp", "Any", "Any", "Internet", "25", "0"]
    assert "allowed" in snatgw("nsg", "--vm", "vm3", api=daemon.path).stdout


def test_nsg_expanded_is_bounded_for_people_and_whole_as_json(daemon: Served) -> None:
    text = snatgw("nsg", "--expand", api=daemon.path).stdout
    assert "writers = 10.0.1.4/32" in text
    assert "more" in text
    rules = objects(snatgw("nsg", "--expand", "--json", api=daemon.path))
    (internet,) = [
        rule["expandedDestinationAddressPrefix"]
        for rule in rules
        if rule["name"].endswith("/no-smtp")
    ]
    assert len(internet) > 10
    (plain, *_) = objects(snatgw("nsg", "--json", api=daemon.path))
    assert "expandedSourceAddressPrefix" not in plain


@pytest.mark.parametrize(
    ("refused", "ended", "said"),
    [
        (0, 0, "0 live flows would be denied if opened now"),
        (
            3,
            0,
            "3 live flows would be denied if opened now (they go on; --enforce ends them)",
        ),
        (1, 0, "1 live flow would be denied if opened now (it goes on; --enforce ends it)"),
        (3, 3, "3 live flows ended: they would be denied if opened now"),
        (
            3,
            1,
            (
                "1 live flow ended: it would be denied if opened now; "
                "2 live flows would be denied if opened now (they go on; --enforce ends them)"
            ),
        ),
    ],
)
def test_reload_says_what_becomes_of_live_flows(
    daemon: Served, refused: int, ended: int, said: str
) -> None:
    def accept(answer) -> None:  # type: ignore[no-untyped-def]
        answer(Kind.PART, ["something changed"])
        answer(Kind.END, {"warnings": [], "refusedFlows": refused, "endedFlows": ended})

    daemon.on_reload = accept
    result = snatgw("reload", "--enforce", api=daemon.path)
    assert result.stdout.splitlines() == ["something changed", said]
    (document,) = objects(snatgw("reload", "--json", api=daemon.path))
    assert (document["refusedFlows"], document["endedFlows"]) == (refused, ended)
    assert daemon.enforced == [True, False]


def test_a_denial_names_its_rule() -> None:
    dropped = PacketsDropped(
        0.0,
        DropReason.DENIED_BY_SECURITY_RULE,
        "vm1",
        6,
        "10.0.1.4",
        "198.51.100.7",
        3,
        "subnet-nsg/no-smtp",
    )
    event = json.loads(json.dumps(event_document(dropped, time.time())))
    assert event["properties"]["rule"] == "subnet-nsg/no-smtp"
    assert (
        "DeniedBySecurityRule by subnet-nsg/no-smtp: vm1 Tcp 10.0.1.4 → 198.51.100.7 (3 times)"
        in sentence(event)
    )
    del event["properties"]["rule"]  # written by an earlier version
    assert "DeniedBySecurityRule: vm1" in sentence(event)


def test_a_reloads_event_says_what_it_means_for_flows() -> None:
    properties = {"changes": ["x"], "count": 1, "refusedFlows": 2, "endedFlows": 0}
    event = gateway_event(time.time(), "Reloaded", "Informational", properties)
    assert sentence(event).endswith(
        "Reloaded: x; 2 live flows would be denied if opened now (they go on; --enforce ends them)"
    )
