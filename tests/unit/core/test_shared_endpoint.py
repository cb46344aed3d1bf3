"""Two UDP flows at one port of a VM with one remote endpoint: both are delivered, and what the VM
sends goes by the one that the remote used last (docs/fidelity.md L7)."""

from ipaddress import IPv4Address

from gateway.core.engine import Engine
from gateway.core.explain import explain_inbound
from gateway.core.flows.offload import BUSY
from gateway.core.ingress import IngressPath
from gateway.schema.protocols import UDP
from tests.scenario import Scenario, build
from tests.unit.core.flows.test_offload import Elsewhere
from tests.unit.core.inbound.test_load_balancer import TWO

NETWORK = TWO + (
    "      - {name: vpn, frontendIPConfiguration: fe-a, protocol: Udp, frontendPort: 50002,\n"
    "         virtualMachine: vm4, backendPort: 51820}\n"
)
PEER = "198.51.100.1:51820"
OWN_FIRST = f"""
    vm4 sends      udp 10.0.1.7:51820 > {PEER}
    outside sees   udp 203.0.113.10:1024 > {PEER}
"""


def test_a_rule_takes_a_datagram_while_the_vm_itself_has_a_flow_to_that_client() -> None:
    Scenario(NETWORK).play(
        OWN_FIRST
        + f"""
        outside sends  udp {PEER} > 203.0.113.20:50002
        vm4 sees       udp {PEER} > 10.0.1.7:51820
        vm4 sends      udp 10.0.1.7:51820 > {PEER}       # by the rule: the client used it last
        outside sees   udp 203.0.113.20:50002 > {PEER}
        outside sends  udp {PEER} > 203.0.113.10:1024    # and what the VM began still arrives
        vm4 sees       udp {PEER} > 10.0.1.7:51820
        vm4 sends      udp 10.0.1.7:51820 > {PEER}
        outside sees   udp 203.0.113.10:1024 > {PEER}
        outside sends  udp {PEER} > 203.0.113.20:50002
        vm4 sees       udp {PEER} > 10.0.1.7:51820
        vm4 sends      udp 10.0.1.7:51820 > {PEER}
        outside sees   udp 203.0.113.20:50002 > {PEER}
        """
    )


def test_each_of_them_ends_by_its_own_time_and_no_port_is_lost() -> None:
    scenario = Scenario(NETWORK)
    scenario.play(
        OWN_FIRST
        + f"""
        outside sends  udp {PEER} > 203.0.113.20:50002
        vm4 sees       udp {PEER} > 10.0.1.7:51820
        after          200 s
        vm4 sends      udp 10.0.1.7:51820 > {PEER}
        outside sees   udp 203.0.113.20:50002 > {PEER}
        after          60 s
        ports          vm4 203.0.113.10 Udp used=0
        vm4 sends      udp 10.0.1.7:51820 > {PEER}
        outside sees   udp 203.0.113.20:50002 > {PEER}
        after          300 s
        flows          vm4 none
        vm4 sends      udp 10.0.1.7:51820 > {PEER}
        outside sees   udp 203.0.113.10:1024 > {PEER}
        """
    )


def test_one_that_outlives_the_other_has_the_vms_datagrams_again() -> None:
    scenario = Scenario(NETWORK)
    scenario.play(
        OWN_FIRST
        + f"""
        outside sends  udp {PEER} > 203.0.113.20:50002
        vm4 sees       udp {PEER} > 10.0.1.7:51820
        """
    )
    scenario.reconfigure(TWO)  # the rule goes, and its flow with it
    scenario.play(f"""
        outside sends  udp {PEER} > 203.0.113.10:1024
        vm4 sees       udp {PEER} > 10.0.1.7:51820
        vm4 sends      udp 10.0.1.7:51820 > {PEER}
        outside sees   udp 203.0.113.10:1024 > {PEER}
        ports          vm4 203.0.113.10 Udp used=1
    """)


def test_explain_says_so_and_tcp_is_refused_as_before() -> None:
    scenario = Scenario(NETWORK)
    scenario.play(OWN_FIRST)
    client, frontend = IPv4Address("198.51.100.1"), IPv4Address("203.0.113.20")
    document = explain_inbound(scenario.engine, client, 51820, "Udp", frontend, 50002)
    assert (document["verdict"], document["backend"]["vm"]) == ("Allow", "vm4")
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:22 > 198.51.100.1:40000 syn
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.20:50001 syn
        dropped        PrivateEndpointInUse
    """)


def test_a_connection_anew_by_the_same_rule_is_foreseen() -> None:
    # Half-closed, and replaced by its client's next SYN: nobody else's place at the VM is asked of.
    scenario = Scenario(NETWORK)
    to = "198.51.100.1:40000 > 203.0.113.20:50001"
    scenario.play(f"""
        outside sends  tcp {to} syn
        outside sends  tcp {to} fin ack
    """)
    client, frontend = IPv4Address("198.51.100.1"), IPv4Address("203.0.113.20")
    document = explain_inbound(scenario.engine, client, 40000, "Tcp", frontend, 50001)
    assert (document["verdict"], document["backend"]["vm"]) == ("Allow", "vm1")
    scenario.play(f"""
        outside sends  tcp {to} syn
        vm1 sees       tcp 198.51.100.1:40000 > 10.0.1.4:22 syn
    """)


def test_a_flow_that_passes_elsewhere_is_taken_back_when_another_has_its_endpoint() -> None:
    scenario = Scenario(NETWORK)
    elsewhere = Elsewhere()
    scenario.engine = Engine(scenario.configuration, seed=1, offload=elsewhere)
    for _ in range(BUSY):
        scenario.play(OWN_FIRST)
    (own,) = scenario.engine.flows
    assert elsewhere.flows == [own]
    scenario.play(f"outside sends udp {PEER} > 203.0.113.20:50002")
    assert not own.offloaded
    assert own not in elsewhere.flows
    scenario.engine.lifecycle.hand_over(own)
    assert own not in elsewhere.flows
    answer = build(f"udp 10.0.1.7:51820 > {PEER}")
    verdict = scenario.engine.handle(answer, IngressPath.OUTBOUND, scenario.now)
    assert verdict is not None
    assert verdict[12:16] == bytes((203, 0, 113, 20))
    rule = scenario.engine.flows.originals(UDP)[own.original]
    assert rule is not own
