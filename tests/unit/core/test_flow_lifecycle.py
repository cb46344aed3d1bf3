"""A new connection in an ended one's place: asked for first, and only then does the old one go."""

import pytest

from tests.scenario import Scenario, build
from tests.unit.core.inbound.test_load_balancer import TWO
from tests.unit.core.policy.test_nsg import WEB, network, rule
from tests.unit.core.snat.test_nat_gateway_pool import HEAD

NO_HTTPS = rule("no", 100, "Outbound", "Deny", protocol="Tcp", to="Internet", port="'443'")
NO_WEB = rule("no", 100, "Inbound", "Deny", protocol="Tcp", port="'80'")
OUT, BACK = "10.0.1.4:4000 > 198.51.100.1:443", "198.51.100.1:443 > 203.0.113.10:1024"
HALF_CLOSED = f"""
    vm1 sends      tcp {OUT} syn
    outside sends  tcp {BACK} syn ack
    vm1 sends      tcp {OUT} fin ack
"""
GOES_ON = f"""
    outside sends  tcp {BACK} ack len=100
    vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:4000 ack len=100
    vm1 sends      tcp {OUT} ack
    outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 ack
    flows          vm1 state=Closing
"""


def test_a_syn_that_a_group_denies_leaves_the_half_closed_flow_as_it_was() -> None:
    scenario = Scenario(network())
    scenario.play(HALF_CLOSED)
    scenario.reconfigure(network(subnet=NO_HTTPS))
    scenario.play(f"""
        vm1 sends      tcp {OUT} syn
        dropped        DeniedBySecurityRule
    """)
    scenario.play(GOES_ON)


def test_a_syn_from_outside_that_a_group_denies_leaves_it_too() -> None:
    def groups(rules: str) -> str:
        return network(subnet=rules, interface=rules)

    scenario = Scenario(groups(WEB))
    to, back = "198.51.100.1:4000 > 203.0.113.30:80", "10.0.1.5:80 > 198.51.100.1:4000"
    scenario.play(f"""
        outside sends  tcp {to} syn
        vm2 sends      tcp {back} syn ack
        outside sends  tcp {to} fin ack
    """)
    scenario.reconfigure(groups(NO_WEB))
    scenario.play(f"""
        outside sends  tcp {to} syn
        dropped        DeniedBySecurityRule
        vm2 sends      tcp {back} ack len=100
        outside sees   tcp 203.0.113.30:80 > 198.51.100.1:4000 ack len=100
        flows          vm2 state=Closing
    """)


def test_a_syn_between_vms_that_a_group_denies_leaves_it_too() -> None:
    scenario = Scenario(network())

    def passes(text: str) -> bool:
        return scenario.send_between(build(text)) is not None

    there, back = "10.0.2.4:4000 > 10.0.1.4:80", "10.0.1.4:80 > 10.0.2.4:4000"
    assert passes(f"tcp {there} syn")
    assert passes(f"tcp {back} syn ack")
    assert passes(f"tcp {there} fin ack")
    scenario.reconfigure(network(subnet=NO_WEB))
    assert not passes(f"tcp {there} syn")
    assert scenario.reason() == "DeniedBySecurityRule"
    assert passes(f"tcp {back} ack len=100")
    assert passes(f"tcp {there} ack")


def test_a_hairpin_that_would_not_come_in_again_leaves_its_first_half_as_it_was() -> None:
    def groups(rules: str) -> str:
        return network(subnet=rules, interface=rules)

    scenario = Scenario(groups(WEB))
    out, snat = "10.0.1.4:4000 > 203.0.113.30:80", "203.0.113.10:1024"
    scenario.play(f"""
        vm1 sends      tcp {out} syn
        vm2 sees       tcp {snat} > 10.0.1.5:80 syn
        vm2 sends      tcp 10.0.1.5:80 > {snat} syn ack
        vm1 sees       tcp 203.0.113.30:80 > 10.0.1.4:4000 syn ack
        vm1 sends      tcp {out} fin ack
    """)
    scenario.reconfigure(groups(NO_WEB))
    scenario.play(f"""
        vm1 sends      tcp {out} syn
        dropped        DeniedBySecurityRule
        vm2 sends      tcp 10.0.1.5:80 > {snat} ack len=100
        vm1 sees       tcp 203.0.113.30:80 > 10.0.1.4:4000 ack len=100
        flows          vm1 state=Closing
    """)


def test_a_hairpin_that_begins_anew_replaces_both_halves() -> None:
    scenario = Scenario(network(subnet=WEB, interface=WEB))
    out = "10.0.1.4:4000 > 203.0.113.30:80"
    scenario.play(f"""
        vm1 sends      tcp {out} syn
        vm2 sends      tcp 10.0.1.5:80 > 203.0.113.10:1024 syn ack
        vm1 sends      tcp {out} fin ack
        vm1 sends      tcp {out} syn
        vm2 sees       tcp 203.0.113.10:1025 > 10.0.1.5:80 syn
    """)


def test_a_syn_whose_number_came_half_round_is_new() -> None:
    """Linux' initial numbers do so in 137 s; what is older than the connection comes sooner."""
    syn, again = f"tcp {OUT} syn seq=1000", f"tcp {OUT} syn seq={1000 + (1 << 31) + 5}"
    for pause, port in ((100, 1024), (140, 1025)):
        scenario = Scenario(network())
        scenario.play(f"""
            vm1 sends      {syn}
            outside sends  tcp {BACK} syn ack seq=9 acks=1001
            vm1 sends      tcp {OUT} fin ack seq=1001 acks=10
            after          {pause} s
            vm1 sends      {again}
            outside sees   tcp 203.0.113.10:{port} > 198.51.100.1:443 syn
        """)


def test_a_syn_for_which_the_table_has_no_room_leaves_it_too() -> None:
    scenario = Scenario(network().replace("outside: wan0", "outside: wan0, maximumFlows: 1"))
    scenario.play(HALF_CLOSED)
    scenario.play(f"""
        vm1 sends      tcp {OUT} syn
        dropped        FlowTableFull
    """)
    scenario.play(GOES_ON)


def test_a_flow_that_leaves_its_place_makes_room_in_a_full_table() -> None:
    # It holds no SNAT port, so that nothing of it stays.
    full = network(interface=WEB, subnet=WEB).replace("wan0}", "wan0, maximumFlows: 1}")
    to = "198.51.100.1:4000 > 203.0.113.30:80"
    Scenario(full).play(f"""
        outside sends  tcp {to} syn
        outside sends  tcp {to} rst
        outside sends  tcp {to} syn
        vm2 sees       tcp 198.51.100.1:4000 > 10.0.1.5:80 syn
        flows          vm2 state=Opening
    """)


def test_a_syn_for_which_no_port_is_free_leaves_it_too() -> None:
    few = HEAD.replace("protocol: All}", "protocol: All, allocatedOutboundPorts: 8}")
    scenario = Scenario(few)
    out, back = "10.0.1.4:1 > 198.51.100.1:443", "198.51.100.1:443 > 203.0.113.20:1024"
    for port in range(1, 9):
        scenario.play(f"vm1 sends tcp 10.0.1.4:{port} > 198.51.100.1:443 syn")
    scenario.play(f"""
        outside sends  tcp {back} syn ack
        vm1 sends      tcp {out} fin ack
        vm1 sends      tcp {out} syn
        dropped        PortsExhausted
        outside sends  tcp {back} ack len=100
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:1 ack len=100
        vm1 sends      tcp {out} ack
        outside sees   tcp 203.0.113.20:1024 > 198.51.100.1:443 ack
    """)


def test_a_syn_whose_place_at_the_vm_is_anothers_leaves_the_ended_flow_listed() -> None:
    scenario = Scenario(TWO)
    scenario.play("""
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.21:80 syn
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.21:80 rst
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.30:80 syn
        vm3 sees       tcp 198.51.100.1:40000 > 10.0.1.6:80 syn
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.21:80 syn
        dropped        PrivateEndpointInUse
        vm3 sends      tcp 10.0.1.6:80 > 198.51.100.1:40000 syn ack
        outside sees   tcp 203.0.113.30:80 > 198.51.100.1:40000 syn ack
    """)


@pytest.mark.parametrize("profile", ["azure-2017", "azure-current"])
def test_a_vm_that_is_not_named_is_not_forgotten_with_the_flow_that_it_replaces(
    profile: str,
) -> None:
    scenario = Scenario(HEAD if profile == "azure-current" else network())
    there = "10.0.1.77:4000 > 10.0.1.4:80"
    for text in (f"tcp {there} syn", f"tcp {there} rst", f"tcp {there} syn"):
        assert scenario.send("10.0.1.77", build(text), lateral=True) is not None
    (flow,) = scenario.engine.flows
    assert flow.machine.flows == 1
    scenario.wait(100_000)
    assert flow.machine.flows == 0
