"""``/v1/explain`` and ``/v1/nsg``: a real engine behind a real control channel."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.core.engine import Engine
from gateway.daemon.channel.api_messages import Kind, Request
from gateway.daemon.engine_process.requests_security import RulesQuery, SecurityRequests
from tests.unit.daemon.serving import judging_engine, requests_with, served


@pytest.fixture
def http(tmp_path: Path) -> Iterator[httpx.Client]:
    with served(tmp_path) as daemon:
        transport = httpx.HTTPTransport(uds=str(daemon.path))
        with httpx.Client(transport=transport, base_url="http://snatgw", timeout=30) as client:
            yield client


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_explain_outbound(http: httpx.Client) -> None:
    denied = http.get("/v1/explain?vm=vm1&to=198.51.100.7:25/tcp").json()
    assert denied.keys() == {
        "verdict",
        "reason",
        "networkSecurityGroups",
        "method",
        "candidates",
        "existingFlow",
    }
    assert denied["verdict"] == "Deny"
    assert denied["networkSecurityGroups"] == [
        {
            "level": "Subnet",
            "name": "subnet-nsg",
            "rule": "no-smtp",
            "access": "Deny",
            "default": False,
        }
    ]
    allowed = http.get("/v1/explain?vm=10.0.1.4&to=198.51.100.7:443/tcp&fromPort=4000").json()
    assert (allowed["verdict"], allowed["method"]) == ("Allow", "DefaultOutboundAccess")
    ((candidate),) = allowed["candidates"]
    assert candidate["publicIp"] == "203.0.113.10"
    assert candidate["portsFree"] > 0


def test_explain_lists_the_stages_when_asked(http: httpx.Client) -> None:
    target = "/v1/explain?vm=vm1&to=198.51.100.7:25/tcp"
    plain, traced = http.get(target).json(), http.get(f"{target}&trace=1").json()
    trace = traced.pop("trace")
    assert traced == plain
    assert trace[0] == {"stage": "find_by_original", "result": "Continue", "detail": "no flow"}
    assert trace[-1] == {
        "stage": "admit_outbound",
        "result": "Drop",
        "detail": "DeniedBySecurityRule",
    }
    inbound = "/v1/explain?inbound=1&from=198.51.100.7:50000&to=203.0.113.30:22/tcp&trace=1"
    assert http.get(inbound).json()["trace"][0]["stage"] == "find_by_reply"


def test_explain_inbound(http: httpx.Client) -> None:
    target = "/v1/explain?inbound=1&from=198.51.100.7:50000&to=203.0.113.30:22/tcp"
    denied = http.get(target).json()
    assert denied["verdict"] == "Deny"
    assert denied["networkSecurityGroups"][0]["rule"] == "DenyAllInBound"
    unsolicited = http.get(target.replace("113.30", "113.10")).json()
    assert (unsolicited["verdict"], unsolicited["networkSecurityGroups"]) == ("Drop", [])


def test_a_vm_that_there_is_not_is_404_and_a_suggestion(http: httpx.Client) -> None:
    for target in ("/v1/explain?vm=VM-1&to=198.51.100.7:25/tcp", "/v1/nsg?vm=VM-1"):
        response = http.get(target)
        assert response.status_code == 404
        (problem,) = response.json()["problems"]
        assert "'VM-1'" in problem
        assert "did you mean vm1?" in problem
    (problem,) = http.get("/v1/nsg?vm=10.99.0.1").json()["problems"]
    assert "'10.99.0.1'" in problem


@pytest.mark.parametrize(
    "target",
    [
        "/v1/explain?vm=vm1",
        "/v1/explain?vm=vm1&to=198.51.100.7:25/tcp&more=1",
        "/v1/nsg?expand=yes",
        "/v1/nsg?vn=vm1",
        f"/v1/nsg?vm={'v' * 300}",
    ],
)
def test_bad_values_are_400(http: httpx.Client, target: str) -> None:
    response = http.get(target)
    assert response.status_code == 400
    assert len(response.json()["problems"]) == 1


def test_rules_of_all_groups_in_azures_shape(http: httpx.Client) -> None:
    rules = lines(http.get("/v1/nsg"))
    assert [(r["networkSecurityGroup"], r["direction"], r["priority"]) for r in rules] == [
        *(("subnet-nsg", "Inbound", priority) for priority in (110, 65000, 65001, 65500)),
        *(("subnet-nsg", "Outbound", priority) for priority in (100, 65000, 65001, 65500)),
        *(("nic-nsg", "Inbound", priority) for priority in (65000, 65001, 65500)),
        *(("nic-nsg", "Outbound", priority) for priority in (65000, 65001, 65500)),
    ]
    assert rules[4] == {
        "networkSecurityGroup": "subnet-nsg",
        "level": None,
        "associations": [{"level": "Subnet", "name": "web"}],
        "name": "securityRules/no-smtp",
        "priority": 100,
        "direction": "Outbound",
        "access": "Deny",
        "protocol": "Tcp",
        "sourceAddressPrefix": "0.0.0.0/0",
        "sourceAddressPrefixes": ["0.0.0.0/0"],
        "sourcePortRange": "0-65535",
        "sourcePortRanges": ["0-65535"],
        "destinationAddressPrefix": "Internet",
        "destinationAddressPrefixes": ["Internet"],
        "destinationPortRange": "25",
        "destinationPortRanges": ["25"],
        "hits": 0,
    }
    assert rules[0]["sourceAddressPrefix"] is None
    assert rules[0]["sourceAddressPrefixes"] == ["198.51.100.0/24", "192.0.2.0/24"]
    assert rules[5]["name"] == "defaultSecurityRules/AllowVnetOutBound"
    assert rules[5]["protocol"] == "All"


def test_rules_of_a_vm_are_in_the_order_in_which_they_are_asked(http: httpx.Client) -> None:
    order: list[tuple[str, str]] = []
    for rule in lines(http.get("/v1/nsg?vm=vm2")):
        step = rule["direction"], rule["level"]
        if step not in order:
            order.append(step)
    assert order == [
        ("Inbound", "Subnet"),
        ("Inbound", "NetworkInterface"),
        ("Outbound", "NetworkInterface"),
        ("Outbound", "Subnet"),
    ]
    assert {rule["level"] for rule in lines(http.get("/v1/nsg?vm=10.0.1.99"))} == {"Subnet"}
    assert lines(http.get("/v1/nsg?vm=vm3")) == []


def test_expanded_rules_say_what_tags_and_groups_stand_for(http: httpx.Client) -> None:
    rules = {
        (rule["networkSecurityGroup"], rule["name"].partition("/")[2]): rule
        for rule in lines(http.get("/v1/nsg?expand=1"))
    }
    some = rules["subnet-nsg", "some"]
    assert some["expandedSourceAddressPrefix"] is None
    assert some["expandedDestinationAddressPrefix"] == ["10.0.1.4/32"]
    vnet = rules["nic-nsg", "AllowVnetInBound"]["expandedSourceAddressPrefix"]
    assert "10.0.0.0/16" in vnet


def test_the_engine_checks_again_what_the_api_process_asks() -> None:
    requests = requests_with(SecurityRequests(judging_engine()).handlers)
    for asked in (
        Request(1, "explain", {"vm": "vm1"}),
        Request(1, "explain", {"vm": "v" * 4000, "to": "198.51.100.7:25/tcp"}),
        Request(1, "nsg", {"expand": "perhaps"}),
    ):
        (step,) = requests.answer(asked, lambda kind, payload: None)
        assert step is not None
        assert step[0] is Kind.FAILED


def test_names_come_in_parts_when_there_is_no_such_vm() -> None:
    engine: Engine = judging_engine()
    *parts, end = SecurityRequests(engine).rules(RulesQuery("nobody", expand=False))
    assert [part and part[0] for part in parts] == [Kind.PART]
    assert end == (Kind.END, None)
