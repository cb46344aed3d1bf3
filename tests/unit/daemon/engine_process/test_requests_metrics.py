"""What a scrape shows: exact, bounded, and never falling."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics import parser

from gateway.core.engine import Engine
from gateway.core.flows.counters import Connections, Traffic
from gateway.core.inbound.listeners import Target
from gateway.daemon.engine_process.requests_metrics import (
    RULES_PER_SLICE,
    MetricsRequests,
    RuleHits,
)
from gateway.schema.drop_reasons import DropReason
from tests.scenario import Scenario, build, configuration
from tests.unit.daemon.scraping import answer_of, samples, scraped, value
from tests.unit.daemon.serving import GUARDED, served

MACHINES = 12


def yaml(machines: int = MACHINES) -> str:
    named = "".join(
        f"  - {{name: vm{n}, privateIPAddress: 10.0.1.{10 + n}}}\n" for n in range(machines)
    )
    return f"""
gateway: {{inside: [lan0], outside: wan0}}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{{name: web, addressPrefix: 10.0.1.0/24}}]
publicIPAddresses: [{{name: d, ipAddress: 203.0.113.10}}, {{name: i, ipAddress: 203.0.113.30}}]
defaultOutboundAccess: {{publicIPAddresses: [d]}}
virtualMachines:
{named}  - {{name: own, privateIPAddress: 10.0.1.9, publicIPAddress: i}}
"""


def answers(engine: Engine, series: int = 1_000) -> MetricsRequests:
    return MetricsRequests(engine, lambda: 0.0, series)


@pytest.fixture
def world() -> Scenario:
    return Scenario(yaml())


def test_traffic_by_public_ip_direction_and_protocol(world: Scenario) -> None:
    syn = build("tcp 10.0.1.10:4000 > 198.51.100.1:443 syn")
    data = build("tcp 10.0.1.10:4000 > 198.51.100.1:443 ack len=100")
    reply = build("tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack")
    for who, packet in (("vm0", syn), ("vm0", syn), ("outside", reply), ("vm0", data)):
        assert world.send(who, packet) is not None
    assert world.send("own", build("udp 10.0.1.9:4000 > 198.51.100.1:53 len=20")) is not None
    scrape = answers(world.engine)
    found = samples(scraped(world.engine, scrape))
    default = {"public_ip": "203.0.113.10", "method": "DefaultOutboundAccess", "protocol": "Tcp"}
    packets, octets = "snatgw_traffic_packets_total", "snatgw_traffic_bytes_total"
    syns = "snatgw_traffic_syn_packets_total"
    assert value(found, packets, **default, direction="outbound") == 3
    assert value(found, octets, **default, direction="outbound") == 40 + 40 + 140
    assert value(found, packets, **default, direction="inbound") == 1
    assert value(found, octets, **default, direction="inbound") == 40
    assert value(found, syns, **default, direction="outbound") == 2
    assert value(found, syns, **default, direction="inbound") == 0  # with ACK: an answer
    assert value(found, octets, public_ip="203.0.113.30", protocol="Udp") == 48
    assert value(found, "snatgw_flows", state="Established", protocol="Tcp") == 1

    world.wait(300)  # both have ended, and what they carried stays
    after = samples(scraped(world.engine, scrape))
    assert {k: v for k, v in after.items() if "traffic" in k[0]} == {
        k: v for k, v in found.items() if "traffic" in k[0]
    }
    assert (
        value(after, "snatgw_flows_opened_total") == value(after, "snatgw_flows_ended_total") == 2
    )
    assert not [key for key in after if key[0] == "snatgw_flows"]


def test_ports_and_connections_of_an_exhausted_vm(world: Scenario) -> None:
    for port in range(1030):
        world.send("vm1", build(f"tcp 10.0.1.11:{2000 + port} > 198.51.100.1:443 syn"))
    world.send("outside", build("tcp 198.51.100.1:443 > 203.0.113.10:2048 rst"))
    found = samples(scraped(world.engine, answers(world.engine)))
    mine = {"vm": "vm1", "public_ip": "203.0.113.10", "protocol": "Tcp"}
    assert value(found, "snatgw_snat_allocated_ports", **mine, awaiting_removal="false") == 1024
    assert value(found, "snatgw_snat_used_ports", **mine) == 1024
    assert value(found, "snatgw_snat_usage_ratio", **mine) == 1
    assert value(found, "snatgw_snat_flows_in_cooldown", **mine) == 1
    connections = "snatgw_snat_connections_total"
    assert value(found, connections, **mine, connection_state="successful") == 1024
    assert value(found, connections, **mine, connection_state="failed") == 6
    assert value(found, "snatgw_dropped_packets_total", reason="PortsExhausted") == 6


def test_every_reason_for_drops_has_a_series_from_the_start(world: Scenario) -> None:
    found = samples(scraped(world.engine, answers(world.engine)))
    reasons = {dict(labels)["reason"] for name, labels in found if "dropped" in name}
    assert reasons == {reason.value for reason in DropReason}


def test_vms_without_a_row_are_added_up_under_other_and_never_fall() -> None:
    series = 5
    world = Scenario(yaml())
    world.engine.lifecycle.connections = Connections(series)
    world.engine.flows.traffic = Traffic(1)
    scrape = answers(world.engine, series)
    last: dict[Any, float] = {}
    for turn in range(3):
        for n in range(MACHINES):
            for port in range(n + 1):
                packet = build(f"udp 10.0.1.{10 + n}:{4000 + port} > 198.51.100.{turn}:53")
                assert world.send(f"vm{n}", packet) is not None
        world.send("own", build(f"udp 10.0.1.9:4000 > 198.51.100.{turn}:53"))
        found = samples(scraped(world.engine, scrape))
        for metric in ("snatgw_snat_used_ports", "snatgw_snat_connections_total"):
            names = {dict(labels)["vm"] for name, labels in found if name == metric}
            assert len(names) == series + 1
            assert "other" in names
        udp = {"protocol": "Udp"}
        opened = value(found, "snatgw_snat_connections_total", **udp)
        assert opened == (turn + 1) * sum(range(1, MACHINES + 1))
        assert value(found, "snatgw_snat_allocated_ports", **udp) == MACHINES * 1024
        other = {"vm": "other", "public_ip": "other", "protocol": "Udp"}
        assert value(found, "snatgw_snat_pools", **other) == MACHINES - series
        assert value(found, "snatgw_snat_usage_ratio", **other) == MACHINES / 1024
        assert value(found, "snatgw_traffic_packets_total", public_ip="other") == turn + 1
        for key, number in last.items():
            assert found[key] >= number, key
        last = {k: v for k, v in found.items() if k[0].endswith("_total")}
        world.wait(241)
        if turn == 1:
            world.reconfigure(yaml(3))  # most VMs go, and what they did stays counted
            world.reconfigure(yaml())


def test_hits_of_rules_without_a_row_never_fall() -> None:
    def rule(number: int, access: str = "Allow") -> tuple[str, str, str, str]:
        return "nsg", "Outbound", f"r{number}", access

    def rows(hits: list[int], numbers: Iterable[int]) -> dict[Any, int]:
        pairs = zip(map(rule, numbers), hits, strict=True)
        (found,) = [step for step in rules.walk(pairs) if step is not None]
        return dict(found)

    rules = RuleHits(2)
    shared = ("other", "Outbound", "other", "Allow")
    assert rows([1, 2, 3, 4], range(4)) == {rule(0): 1, rule(1): 2, shared: 7}
    assert rows([1, 2, 3, 9], range(4)) == {rule(0): 1, rule(1): 2, shared: 12}
    # Rule 0 goes: a newcomer gets its row; those that were added up stay with the others.
    assert rows([5, 3, 9, 8], range(1, 5)) == {rule(1): 5, rule(4): 8, shared: 12}
    # One of the others goes, one begins at zero again (its rule was changed).
    assert rows([5, 1, 8], [1, 3, 4]) == {rule(1): 5, rule(4): 8, shared: 13}
    many = [(rule(n), n) for n in range(3 * RULES_PER_SLICE)]
    steps = list(RuleHits(10).walk(iter(many)))
    assert steps.count(None) >= 3


def test_rules_hits_have_their_group_and_direction() -> None:
    world = Scenario(GUARDED)
    for port in (25, 25, 443):
        world.send("vm1", build(f"tcp 10.0.1.4:4000 > 198.51.100.1:{port} syn"))
    found = samples(scraped(world.engine, answers(world.engine)))
    mine = {"network_security_group": "subnet-nsg", "direction": "Outbound"}
    hits = "snatgw_nsg_rule_hits_total"
    assert value(found, hits, **mine, rule="no-smtp", access="Deny") == 2
    assert value(found, hits, **mine, rule="AllowInternetOutBound", access="Allow") == 1


def test_backends_as_their_probes_find_them() -> None:
    balanced = """loadBalancers:
  - name: lb
    frontendIPConfigurations: [{name: fe, publicIPAddress: f}]
    backendAddressPools: [{name: pool, virtualMachines: [vm0, vm1, vm2]}]
    probes: [{name: p, protocol: Tcp, port: 8080}]
    loadBalancingRules:
      - {name: web, frontendIPConfiguration: fe, backendAddressPool: pool, probe: p,
         protocol: Tcp, frontendPort: 80, backendPort: 8080}
"""
    text = yaml().replace(
        "publicIPAddresses: [", "publicIPAddresses: [{name: f, ipAddress: 203.0.113.20}, ", 1
    )
    engine = Engine(configuration(text + balanced), probed=True)
    for vm, up in (("vm0", True), ("vm1", False)):  # of vm2 nothing is known yet
        engine.health.report(Target("lb", "p", vm), up, 0.0)
    found = samples(scraped(engine, answers(engine)))
    rule = {
        "load_balancer": "lb",
        "rule": "web",
        "public_ip": "203.0.113.20",
        "frontend_port": "80",
    }
    assert value(found, "snatgw_rule_backends", **rule) == 3
    assert value(found, "snatgw_rule_healthy_backends", **rule) == 1
    health = {
        dict(labels)["vm"]: n for (name, labels), n in found.items() if name == "snatgw_backend_up"
    }
    assert health == {"vm0": 1, "vm1": 0}


def test_a_scrape_of_many_flows_comes_in_slices() -> None:
    world = Scenario(yaml())
    for number in range(3000):
        remote = f"198.51.{100 + number // 250}.{number % 250}"
        assert world.send("vm1", build(f"udp 10.0.1.11:4000 > {remote}:53")) is not None
    answer, slices = answer_of(answers(world.engine))
    assert slices > 3000 / 128
    assert all(len(part) < 1 << 16 for part in answer.parts)


@pytest.fixture
def http(tmp_path: Path) -> Iterator[httpx.Client]:
    with served(tmp_path) as daemon:
        transport = httpx.HTTPTransport(uds=str(daemon.path))
        with httpx.Client(transport=transport, base_url="http://snatgw", timeout=30) as client:
            yield client


def test_the_format_is_the_one_that_the_client_accepts(http: httpx.Client) -> None:
    text = http.get("/metrics")
    assert text.status_code == 200
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(text.text)
    assert value(found, "snatgw_build_info", profile="azure-2017") == 1
    assert value(found, "snatgw_queue_lost_packets_total", cause="kernel") == 3
    assert value(found, "snatgw_engine_process_resident_memory_bytes") > 0
    openmetrics = http.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")
    families = {
        family.name
        for family in parser.text_string_to_metric_families(openmetrics.text)  # type: ignore[no-untyped-call]
    }
    assert {"snatgw_flows_opened", "snatgw_build", "snatgw_traffic_bytes"} <= families


def test_names_are_as_an_operator_may_put_them() -> None:
    odd = GUARDED.replace("name: vm1,", 'name: "vm-1.x_y",')
    engine = Engine(configuration(odd))
    found = samples(scraped(engine, answers(engine)))
    assert value(found, "snatgw_snat_allocated_ports", vm="vm-1.x_y", protocol="Tcp") == 1024
