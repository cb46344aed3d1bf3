"""Ports of each VM on each frontend: by the table, by outbound rules, and what does not fit."""

from __future__ import annotations

import pytest

from gateway.model.profile import PROFILES, Method
from gateway.model.resolved.port_grants import (
    Granted,
    capacity,
    frontend_ports,
    frontends_behind,
    granted,
    linked_members,
)
from tests.unit.model.files import LOAD_BALANCED, changed, configuration

AZURE_2017, CURRENT = PROFILES["azure-2017"], PROFILES["azure-current"]
STANDARD = changed(
    "name: lb\n", "name: lb\n    sku: Standard\n",
    changed("outside: wan0", "outside: wan0\n  profile: azure-current"),
)  # fmt: skip


def everybody(_name: str, _protocol: str, _method: Method) -> bool:
    return True


def with_rule(ports: int, frontends: str = "fe1") -> Granted:
    """What is granted with an outbound rule of so many ports for vm1 and vm2, were it to fit or not."""
    text = changed("backendPort: 80}", "backendPort: 80, disableOutboundSnat: true}", STANDARD) + (
        f"    outboundRules: [{{name: out, frontendIPConfigurations: [{frontends}], "
        f"backendAddressPool: pool, protocol: Tcp, allocatedOutboundPorts: 8}}]\n"
    )
    fitting = configuration(text)
    (balancer,) = fitting.load_balancers
    (rule,) = balancer.outbound_rules
    asked = rule.model_copy(update={"allocated_outbound_ports": ports})
    balancer = balancer.model_copy(update={"outbound_rules": (asked,)})
    return granted(fitting.model_copy(update={"load_balancers": (balancer,)}), CURRENT, everybody)


@pytest.mark.parametrize(
    ("ports", "left"),
    [((), 64000), ((80,), 64000), ((1024,), 63992), ((1024, 1031), 63992), ((65023, 2000), 63984)],
)
def test_a_frontends_capacity_is_without_the_units_of_rules_ports(
    ports: tuple[int, ...], left: int
) -> None:
    assert capacity(AZURE_2017, ports) == left


def test_a_frontends_ports_are_those_of_both_kinds_of_rule() -> None:
    text = configuration(LOAD_BALANCED)
    assert frontend_ports(text, 0, "fe1") == {80, 50001}
    assert frontend_ports(text, 0, "fe2") == set()


def test_the_table_of_pool_sizes_counts_members_that_need_no_ports() -> None:
    found, lacking = granted(
        configuration(LOAD_BALANCED), AZURE_2017, lambda name, protocol, method: name == "vm1"
    )
    assert [(g.frontend, g.protocol, g.size, g.ports, g.rule) for g in found] == [
        ("fe1", "Tcp", 2, {"vm1": 1024}, None),
        ("fe1", "Udp", 2, {"vm1": 1024}, None),
    ]
    assert lacking == {}


def test_an_outbound_rule_gives_what_it_says_for_its_protocol() -> None:
    found, lacking = with_rule(10_000)
    assert [(g.frontend, g.protocol, g.method, g.ports, g.rule) for g in found if g.ports] == [
        ("fe1", "Tcp", Method.OUTBOUND_RULE, {"vm1": 10_000, "vm2": 10_000}, 0)
    ]
    assert lacking == {}


def test_what_one_frontend_has_not_left_comes_from_the_next() -> None:
    found, lacking = with_rule(40_000, "fe1, fe2")
    assert {(g.frontend): g.ports for g in found if g.ports} == {
        "fe1": {"vm1": 40_000, "vm2": 23_992},  # without the unit of the rule's port 50001
        "fe2": {"vm2": 16_008},
    }
    assert lacking == {}


def test_what_no_frontend_has_left_is_lacking() -> None:
    (grant,), lacking = with_rule(32_000)
    assert grant.ports == {"vm1": 32_000, "vm2": 31_992}
    assert lacking == {(0, 0, "Tcp"): 8}


def test_inbound_nat_rules_link_nobody_and_pools_keep_their_order() -> None:
    members = linked_members(configuration(LOAD_BALANCED), AZURE_2017)
    assert {key: list(names) for key, names in members.items()} == {
        (0, "fe1", "Tcp"): ["vm1", "vm2"],
        (0, "fe1", "Udp"): ["vm1", "vm2"],
    }
    assert frontends_behind(configuration(LOAD_BALANCED), AZURE_2017) == {
        "vm1": [("lb", "fe1", 2)],
        "vm2": [("lb", "fe1", 2)],
    }
