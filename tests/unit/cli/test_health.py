"""``/v1/health`` and ``snatgw health``: a real engine behind a real control channel."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from gateway.cli.events import sentence
from gateway.core.events import NoHealthyBackends, ProbeHealthChanged
from gateway.daemon.channel.event_views import event_document
from gateway.daemon.channel.probe_messages import Result, decode_targets, encode_report
from tests.unit.cli.test_commands import objects, snatgw
from tests.unit.core.inbound.test_load_balancer import TWO
from tests.unit.daemon.serving import Served, served

GROUP = """
networkSecurityGroups:
  - name: nsg
    securityRules:
      - {name: no-probes, priority: 100, direction: Inbound, access: Deny, protocol: Tcp,
         sourceAddressPrefix: AzureLoadBalancer, sourcePortRange: '*',
         destinationAddressPrefix: 10.0.1.5, destinationPortRange: '8080'}
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    text = TWO.replace("10.0.1.0/24}]", "10.0.1.0/24, networkSecurityGroup: nsg}]") + GROUP
    with served(tmp_path, text) as daemon:
        daemon.probes.begin()
        (prober,) = daemon.probers
        numbers = {task.address: task.number for task in decode_targets(prober.recv(1 << 20)).tasks}
        results = [
            Result(numbers["10.0.1.4"], True, 3, True, "connected", 0.73),
            Result(numbers["10.0.1.5"], False, -2, False, "no answer", 5000.0),
        ]
        prober.send(encode_report(results))
        daemon.probes._readable()
        yield daemon
        prober.close()


def test_the_api_has_a_line_for_each_vm_behind_each_rule(daemon: Served) -> None:
    found = objects(snatgw("health", "--json", api=daemon.path))
    assert [(line["rule"], line["vm"]) for line in found] == [
        ("web", "vm1"), ("web", "vm2"), ("dns", "vm1"), ("dns", "vm2"), ("own", "vm3"),
        ("ssh1", "vm1"), ("rdp", "vm1"), ("rdp", "vm2"),
    ]  # fmt: skip
    first, second = found[:2]
    begun = [datetime.fromisoformat(line.pop("since")) for line in (first, second)]
    assert abs(begun[1] - begun[0]) < timedelta(minutes=1)  # one report, read at two moments
    assert first["lastProbe"].pop("time").endswith("Z")
    assert first == {
        "loadBalancer": "lb",
        "rule": "web",
        "method": "LoadBalancingRule",
        "protocol": "Tcp",
        "frontend": {"ip": "203.0.113.20", "port": 80},
        "vm": "vm1",
        "backend": {"ip": "10.0.1.4", "port": 8080},
        "probe": "p",
        "status": "Up",
        "takesNewFlows": True,
        "lastProbe": {"success": True, "reason": "connected", "milliseconds": 0.73, "inARow": 3},
        "deniedBy": None,
    }
    assert (second["status"], second["takesNewFlows"]) == ("Down", False)
    assert second["deniedBy"] == "nsg/no-probes"
    assert (found[5]["status"], found[5]["method"]) == ("NotProbed", "InboundNatRule")
    assert found[5]["lastProbe"] is found[5]["since"] is None


def test_one_vm_by_name_or_address_and_an_unknown_parameter(daemon: Served) -> None:
    for vm in ("vm3", "10.0.1.6"):
        assert [
            line["rule"]
            for line in objects(snatgw("health", "--vm", vm, "--json", api=daemon.path))
        ] == ["own"]
    transport = httpx.HTTPTransport(uds=str(daemon.path))
    with httpx.Client(transport=transport, base_url="http://snatgw", timeout=30) as client:
        answer = client.get("/v1/health?wm=vm1")
        unknown = client.get("/v1/health?vm=vm9")
    assert unknown.status_code == 404
    assert "did you mean vm" in unknown.json()["problems"][0]
    assert answer.status_code == 400
    assert answer.json()["problems"] == ["wm: no such parameter, did you mean vm?; there are vm"]


def test_changes_of_health_are_sentences() -> None:
    changed = ProbeHealthChanged(1.0, "lb", "p", "web", "vm1", False, "203.0.113.20", 80, 2, 1)
    assert sentence(event_document(changed, 0.0)).split("  ")[-1] == (
        "vm1 is down by probe p: 1 of 2 VMs behind 203.0.113.20:80 (web) are down"
    )
    empty = NoHealthyBackends(1.0, "lb", "web", "203.0.113.20", "Tcp", 80)
    assert "NoHealthyBackends: the frontend IP 203.0.113.20 is completely unreachable" in sentence(
        event_document(empty, 0.0)
    )


def test_the_table_says_how_each_is_and_why(daemon: Served) -> None:
    result = snatgw("health", api=daemon.path)
    assert result.exit_code == 0
    head, web1, web2, *rest = result.stdout.splitlines()
    assert head.split()[:3] == ["LOAD", "BALANCER", "RULE"]
    assert "203.0.113.20:80" in web1
    assert web1.endswith("connected, 0.7 ms, 3 in a row")
    assert "Down" in web2
    assert web2.endswith("no answer, 5000.0 ms, 2 in a row; denied by nsg/no-probes")
    assert any("NotProbed" in line and line.endswith("-") for line in rest)
