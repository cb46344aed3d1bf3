"""The gateway's own host, and its other networks, ask public IPs; answers go back translated."""

from __future__ import annotations

import pytest

from gateway.core.ingress import IngressPath
from tests.scenario import Scenario, build
from tests.unit.core.snat.test_outbound_methods import NETWORK

HOST, OTHER = "203.0.113.1", "192.168.50.2"


@pytest.mark.parametrize(("who", "address"), [("host", HOST), ("dmz", OTHER)])
def test_what_asks_a_public_ip_is_answered_from_it(who: str, address: str) -> None:
    Scenario(NETWORK).play(f"""
        {who} sends    tcp {address}:45000 > 203.0.113.30:22 syn
        vm3 sees       tcp {address}:45000 > 10.0.1.6:22 syn
        flows          vm3 direction=Inbound state=Opening public_ip=203.0.113.30
        vm3 sends      tcp 10.0.1.6:22 > {address}:45000 syn ack
        {who} sees     tcp 203.0.113.30:22 > {address}:45000 syn ack
        {who} sends    udp {address}:45000 > 203.0.113.30:53 len=10
        vm3 sees       udp {address}:45000 > 10.0.1.6:53 len=10
        vm3 sends      icmp 3/3 10.0.1.6 > {address} about udp {address}:45000 > 10.0.1.6:53
        {who} sees     icmp 3/3 203.0.113.30 > {address} about udp {address}:45000 > 203.0.113.30:53
    """)


def test_the_host_meets_the_same_refusals_as_the_outside() -> None:
    Scenario(NETWORK).play(f"""
        host sends     tcp {HOST}:45000 > 203.0.113.10:443 syn
        dropped        InboundWithoutFlow
        host sends     udp 10.0.1.1:45000 > 203.0.113.30:53
        dropped        SourceNotOutside
        host forges    tcp 203.0.113.10:45000 > 203.0.113.30:22 syn
        dropped        SourceNotOutside
    """)


def test_what_vms_and_the_host_say_to_each_other_is_not_touched() -> None:
    Scenario(NETWORK).play(f"""
        vm3 sends      tcp 10.0.1.6:40000 > {HOST}:22 syn
        host sees      tcp 10.0.1.6:40000 > {HOST}:22 syn
        vm3 sends      icmp 3/3 10.0.1.6 > {HOST} about udp {HOST}:9 > 10.0.1.6:53
        host sees      icmp 3/3 10.0.1.6 > {HOST} about udp {HOST}:9 > 10.0.1.6:53
        flows          vm3 none
    """)


def test_nothing_else_goes_to_another_network() -> None:
    """Neither untranslated nor by a flow that leads outside."""
    Scenario(NETWORK).play(f"""
        vm3 sends      tcp 10.0.1.6:40000 > {OTHER}:80 syn
        dropped        RoutedElsewhere
        vm3 sends      icmp 3/3 10.0.1.6 > {OTHER} about udp {OTHER}:9 > 10.0.1.6:53
        dropped        RoutedElsewhere
    """)


def test_what_a_vm_answers_there_counts_as_the_segments_that_it_is_cut_into() -> None:
    scenario = Scenario(NETWORK)
    scenario.play(f"dmz sends tcp {OTHER}:45000 > 203.0.113.30:22 syn")
    answer = build(f"tcp 10.0.1.6:22 > {OTHER}:45000 ack len=4000")
    (flow,) = scenario.engine.flows
    assert scenario.engine.handle(answer, IngressPath.LATERAL, 0.0) is not None
    scenario.engine.count_segments(answer, IngressPath.LATERAL, 1500)
    assert (flow.packets_out, flow.bytes_out) == (3, 4000 + 3 * 40)
