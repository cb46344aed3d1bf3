"""Room for a flow: what makes way for it counts, where it holds no port."""

from __future__ import annotations

from tests.scenario import Scenario
from tests.unit.core.test_dry_run import NETWORK


def test_an_ended_flow_that_holds_no_port_leaves_its_room_to_the_next() -> None:
    own = NETWORK.replace("10.0.1.4}", "10.0.1.4, publicIPAddress: o}").replace(
        "{name: d, ipAddress: 203.0.113.10}",
        "{name: d, ipAddress: 203.0.113.10}, {name: o, ipAddress: 203.0.113.30}",
    )
    Scenario(own % ", maximumFlows: 1").play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn seq=1
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 rst seq=2
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn seq=9
        outside sees   tcp 203.0.113.30:40000 > 198.51.100.1:443 syn
    """)


def test_one_that_holds_a_port_does_not() -> None:
    Scenario(NETWORK % ", maximumFlows: 1").play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn seq=1
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 fin ack seq=2 acks=7
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 fin ack seq=6 acks=2
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn seq=9
        dropped        FlowTableFull
    """)
