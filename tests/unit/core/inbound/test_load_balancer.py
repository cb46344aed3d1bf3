"""Inbound flows: load balancing rules, inbound NAT rules, health, hairpins (docs/fidelity.md L1-L9)."""

from dataclasses import replace

import pytest

from gateway.core.engine import Engine
from gateway.core.inbound.listeners import Target
from gateway.core.ingress import IngressPath
from gateway.model.profile import AZURE_2017, PROFILES, HairpinToItself
from tests.scenario import Scenario, build, configuration, describe

TWO = """
gateway: {inside: [lan0], outside: wan0}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{name: web, addressPrefix: 10.0.1.0/24}]
publicIPAddresses:
  - {name: pip-a, ipAddress: 203.0.113.20}
  - {name: pip-b, ipAddress: 203.0.113.21}
  - {name: pip-d, ipAddress: 203.0.113.10}
  - {name: pip-vm3, ipAddress: 203.0.113.30}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.1.5}
  - {name: vm3, privateIPAddress: 10.0.1.6, publicIPAddress: pip-vm3}
  - {name: vm4, privateIPAddress: 10.0.1.7}
loadBalancers:
  - name: lb
    frontendIPConfigurations:
      - {name: fe-a, publicIPAddress: pip-a}
      - {name: fe-b, publicIPAddress: pip-b}
    backendAddressPools:
      - {name: pool, virtualMachines: [vm1, vm2]}
      - {name: third, virtualMachines: [vm3]}
    probes: [{name: p, protocol: Tcp, port: 8080}]
    loadBalancingRules:
      - {name: web, frontendIPConfiguration: fe-a, backendAddressPool: pool, probe: p, protocol: Tcp,
         frontendPort: 80, backendPort: 8080, idleTimeoutInMinutes: 10}
      - {name: dns, frontendIPConfiguration: fe-a, backendAddressPool: pool, probe: p, protocol: Udp,
         frontendPort: 53, backendPort: 5353, idleTimeoutInMinutes: 10}
      - {name: own, frontendIPConfiguration: fe-b, backendAddressPool: third, protocol: Tcp,
         frontendPort: 80, backendPort: 80}
    inboundNatRules:
      - {name: ssh1, frontendIPConfiguration: fe-a, protocol: Tcp, frontendPort: 50001,
         virtualMachine: vm1, backendPort: 22}
      - {name: rdp, frontendIPConfiguration: fe-a, protocol: Tcp, frontendPortRangeStart: 51000,
         frontendPortRangeEnd: 51002, backendAddressPool: pool, backendPort: 3389}
"""
TO_VM1, TO_VM2 = "40001", "40003"  # client ports that the seed maps to vm1 and vm2


def test_the_ports_above_go_where_the_tests_say() -> None:
    Scenario(TWO).play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        vm1 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080 syn
        outside sends  tcp 198.51.100.1:{TO_VM2} > 203.0.113.20:80 syn
        vm2 sees       tcp 198.51.100.1:{TO_VM2} > 10.0.1.5:8080 syn
    """)


def test_a_rule_keeps_the_clients_address_and_answers_from_the_frontend() -> None:
    Scenario(TWO).play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        vm1 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080 syn
        flows          vm1 method=LoadBalancingRule direction=Inbound state=Opening public_ip=203.0.113.20 public_port=80 private_port=8080 remote_port={TO_VM1}
        vm1 sends      tcp 10.0.1.4:8080 > 198.51.100.1:{TO_VM1} syn ack
        outside sees   tcp 203.0.113.20:80 > 198.51.100.1:{TO_VM1} syn ack
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 ack len=100
        vm1 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080 ack len=100
        vm1 sends      tcp 10.0.1.4:8080 > 198.51.100.1:{TO_VM1} ack len=1000 options
        outside sees   tcp 203.0.113.20:80 > 198.51.100.1:{TO_VM1} ack len=1000 options
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 ack options
        vm1 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080 ack options
        flows          vm1 state=Established packets_in=3 packets_out=2
    """)


def test_an_inbound_flow_has_its_rules_idle_timeout_and_udp_the_profiles() -> None:
    Scenario(TWO).play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        outside sends  udp 198.51.100.1:5000 > 203.0.113.20:53 len=9
        after          241 s
        flows          vm1 expires_in=359
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 ack
        vm1 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080 ack
        after          601 s
        flows          vm1 none
        flows          vm2 none
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 ack
        dropped        TcpWithoutFlow
    """)


def test_udp_through_a_rule_is_established_by_the_backends_answer() -> None:
    scenario = Scenario(TWO)
    scenario.play("""
        outside sends  udp 198.51.100.1:5001 > 203.0.113.20:53 len=9
    """)
    vm = "vm1" if scenario.flow_list("vm1") else "vm2"
    address = {"vm1": "10.0.1.4", "vm2": "10.0.1.5"}[vm]
    scenario.play(f"""
        {vm} sees      udp 198.51.100.1:5001 > {address}:5353 len=9
        flows          {vm} state=Opening
        {vm} sends     udp {address}:5353 > 198.51.100.1:5001 len=99
        outside sees   udp 203.0.113.20:53 > 198.51.100.1:5001 len=99
        flows          {vm} state=Established
        outside sends  udp 198.51.100.1:5001 > 203.0.113.20:53 len=9
        {vm} sees      udp 198.51.100.1:5001 > {address}:5353 len=9
        flows          {vm} state=Established packets_in=2 packets_out=1
    """)


def test_inbound_nat_rules_lead_to_one_vm_each() -> None:
    Scenario(TWO).play("""
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.20:50001 syn
        vm1 sees       tcp 198.51.100.1:40000 > 10.0.1.4:22 syn
        vm1 sends      tcp 10.0.1.4:22 > 198.51.100.1:40000 syn ack
        outside sees   tcp 203.0.113.20:50001 > 198.51.100.1:40000 syn ack
        flows          vm1 method=InboundNatRule state=Established
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.20:51001 syn
        vm2 sees       tcp 198.51.100.1:40000 > 10.0.1.5:3389 syn
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.20:51000 syn
        vm1 sees       tcp 198.51.100.1:40000 > 10.0.1.4:3389 syn
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.20:51002 syn
        dropped        InboundWithoutFlow
        outside sends  udp 198.51.100.1:40000 > 203.0.113.20:50001
        dropped        InboundWithoutFlow
    """)


def test_members_keep_the_ports_of_a_nat_rule_when_others_come_and_go() -> None:
    scenario = Scenario(TWO)
    scenario.reconfigure(TWO.replace("[vm1, vm2]", "[vm4, vm2]"))
    scenario.play("""
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.20:51001 syn
        vm2 sees       tcp 198.51.100.1:40000 > 10.0.1.5:3389 syn
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.20:51000 syn
        vm4 sees       tcp 198.51.100.1:40000 > 10.0.1.7:3389 syn
    """)


def test_the_rules_of_groups_see_the_client_and_the_backends_own_port() -> None:
    group = """
networkSecurityGroups:
  - name: nsg
    securityRules:
      - {name: web, priority: 100, direction: Inbound, access: Allow, protocol: Tcp, sourceAddressPrefix: 198.51.100.1,
         sourcePortRange: '*', destinationAddressPrefix: 10.0.1.0/24, destinationPortRange: '8080'}
"""
    text = TWO.replace("10.0.1.0/24}]", "10.0.1.0/24, networkSecurityGroup: nsg}]") + group
    scenario = Scenario(text)
    scenario.play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        vm1 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080 syn
        outside sends  tcp 198.51.100.2:{TO_VM1} > 203.0.113.20:80 syn
        dropped        DeniedBySecurityRule
        event          PacketsDropped rule=nsg/DenyAllInBound
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:50001 syn
        dropped        DeniedBySecurityRule
    """)


def test_what_a_denied_packet_was_for_is_logged_with_its_private_destination() -> None:
    text = TWO.replace("10.0.1.0/24}]", "10.0.1.0/24, networkSecurityGroup: nsg}]")
    text = text.replace("wan0}", "wan0, flowLogs: nsg}") + "networkSecurityGroups: [{name: nsg}]\n"
    scenario = Scenario(text)
    scenario.play("""
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.20:50001 syn
        dropped        DeniedBySecurityRule
    """)
    log = scenario.engine.flow_log
    assert log is not None
    (entry,) = log.take(10)
    assert entry[3:8] == (True, bytes((198, 51, 100, 1)), 40000, bytes((10, 0, 1, 4)), 22)


# -- health


def test_a_member_that_goes_down_keeps_its_tcp_and_gets_nothing_new() -> None:
    Scenario(TWO).play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        vm1 sends      tcp 10.0.1.4:8080 > 198.51.100.1:{TO_VM1} syn ack
        probe          lb/p vm1 down
        event          ProbeHealthChanged vm=vm1 up=False public_ip=203.0.113.20 port=80 total=2 down=1
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 ack len=5
        vm1 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080 ack len=5
        outside sends  tcp 198.51.100.9:{TO_VM1} > 203.0.113.20:80 syn
        vm2 sees       tcp 198.51.100.9:{TO_VM1} > 10.0.1.5:8080 syn
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 rst
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn  # a new connection
        vm2 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.5:8080 syn
        probe          lb/p vm1 up
        event          ProbeHealthChanged vm=vm1 up=True total=2 down=0
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 rst
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        vm1 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080 syn
    """)


def test_udp_flows_of_a_member_that_goes_down_move_with_their_next_datagram() -> None:
    scenario = Scenario(TWO)
    send = "outside sends  udp 198.51.100.1:5001 > 203.0.113.20:53\n"
    scenario.play(send)
    old, new = ("vm1", "vm2") if scenario.flow_list("vm1") else ("vm2", "vm1")
    scenario.play(f"probe lb/p {old} down\n{send} flows {old} none\n flows {new} protocol=17")


def test_all_down_ends_what_a_basic_load_balancer_carried() -> None:
    Scenario(TWO).play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        outside sends  tcp 198.51.100.1:{TO_VM2} > 203.0.113.20:80 syn
        outside sends  udp 198.51.100.1:5001 > 203.0.113.20:53
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.20:50001 syn
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.20:1024 > 198.51.100.1:443 syn
        probe          lb/p vm1 down
        flows          vm2 198.51.100.1:{TO_VM2} state=Opening
        probe          lb/p vm2 down
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 ack
        dropped        TcpWithoutFlow
        outside sends  tcp 198.51.100.1:{TO_VM2} > 203.0.113.20:80 syn
        dropped        NoHealthyBackend
        outside sends  udp 198.51.100.1:5001 > 203.0.113.20:53
        dropped        NoHealthyBackend
        flows          vm2 none
        # inbound NAT and outbound SNAT ask no probe
        flows          vm1 198.51.100.1:40000 method=InboundNatRule
        outside sends  tcp 198.51.100.1:443 > 203.0.113.20:1024 syn ack
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:40000 syn ack
        vm2 sends      tcp 10.0.1.5:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.20:2048 > 198.51.100.1:443 syn
    """)


def test_all_probed_up_sends_to_everybody_when_nobody_is_healthy() -> None:
    text = TWO.replace("port: 8080}]", "port: 8080, noHealthyBackendsBehavior: AllProbedUp}]")
    Scenario(text).play(f"""
        probe          lb/p vm1 down
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        vm2 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.5:8080 syn
        probe          lb/p vm2 down
        outside sends  tcp 198.51.100.2:{TO_VM1} > 203.0.113.20:80 syn
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 ack
        vm2 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.5:8080 ack
    """)


def test_a_member_gets_no_flow_before_its_first_good_probe_and_rules_without_probe_wait_not() -> (
    None
):
    Scenario(TWO, probed=True).play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        dropped        NoHealthyBackend
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.21:80 syn
        vm3 sees       tcp 198.51.100.1:40000 > 10.0.1.6:80 syn
        probe          lb/p vm2 up
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        vm2 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.5:8080 syn
        probe          lb/p vm1 up
        outside sends  tcp 198.51.100.2:{TO_VM1} > 203.0.113.20:80 syn
    """)


def test_health_survives_a_reload() -> None:
    scenario = Scenario(TWO)
    scenario.play("probe lb/p vm1 down")
    scenario.reconfigure(TWO.replace("port: 8080}]", "port: 8081}]"))
    scenario.play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        vm2 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.5:8080 syn
    """)


# -- reloads


def test_a_rule_that_goes_takes_its_flows_with_it_before_its_port_is_anybodys() -> None:
    text = TWO.replace(
        "frontendPort: 80, backendPort: 8080", "frontendPort: 1024, backendPort: 8080"
    )
    scenario = Scenario(text)
    scenario.play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:1024 syn
        vm1 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080 syn
        ports          vm1 203.0.113.20 Tcp used=0 allocated=1024
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:{TO_VM1} syn
        outside sees   tcp 203.0.113.20:1032 > 198.51.100.1:{TO_VM1} syn
    """)
    changes = scenario.reconfigure(TWO.replace("[vm1, vm2]", "[vm1, vm2, vm4]"))
    assert any(line.startswith("1 flow ended") for line in changes)
    scenario.play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:1024 ack
        dropped        InboundWithoutFlow
        vm4 sends      tcp 10.0.1.7:40000 > 198.51.100.1:{TO_VM1} syn
        outside sees   tcp 203.0.113.20:1024 > 198.51.100.1:{TO_VM1} syn
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:1024 syn ack
        vm4 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.7:40000 syn ack
    """)


def test_a_vm_that_leaves_the_pool_keeps_its_tcp_flows_and_gets_no_new_ones() -> None:
    scenario = Scenario(TWO)
    scenario.play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        outside sends  udp 198.51.100.1:5001 > 203.0.113.20:53
        outside sends  udp 198.51.100.1:5002 > 203.0.113.20:53
        outside sends  udp 198.51.100.1:5003 > 203.0.113.20:53
    """)
    assert {flow.protocol for flow in scenario.flow_list("vm1")} == {6, 17}
    scenario.reconfigure(TWO.replace("[vm1, vm2]", "[vm2]"))
    assert [step for step in scenario.engine.health.settle() if step is not None] == [1]
    scenario.play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 ack
        vm1 sees       tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080 ack
        outside sends  tcp 198.51.100.2:{TO_VM1} > 203.0.113.20:80 syn
        vm2 sees       tcp 198.51.100.2:{TO_VM1} > 10.0.1.5:8080 syn
    """)
    gone = TWO.replace("[vm1, vm2]", "[vm2]").replace("virtualMachine: vm1", "virtualMachine: vm2")
    scenario.reconfigure(gone.replace("  - {name: vm1, privateIPAddress: 10.0.1.4}\n", ""))
    assert scenario.flow_list("vm1") == []


# -- collisions


def test_a_client_cannot_reach_one_port_of_a_vm_by_two_public_addresses_at_once() -> None:
    Scenario(TWO).play("""
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.21:80 syn
        vm3 sees       tcp 198.51.100.1:40000 > 10.0.1.6:80 syn
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.30:80 syn
        dropped        PrivateEndpointInUse
        vm3 sends      tcp 10.0.1.6:80 > 198.51.100.1:40000 syn ack
        outside sees   tcp 203.0.113.21:80 > 198.51.100.1:40000 syn ack
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.21:80 rst
        outside sends  tcp 198.51.100.1:40000 > 203.0.113.30:80 syn
        vm3 sees       tcp 198.51.100.1:40000 > 10.0.1.6:80 syn
        vm3 sends      tcp 10.0.1.6:80 > 198.51.100.1:40000 syn ack
        outside sees   tcp 203.0.113.30:80 > 198.51.100.1:40000 syn ack
    """)


def test_icmp_errors_about_an_inbound_flow_pass_both_ways() -> None:
    about = f"tcp 198.51.100.1:{TO_VM1} > 10.0.1.4:8080"
    Scenario(TWO).play(f"""
        outside sends  tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        vm1 sends      icmp 3/3 10.0.1.4 > 198.51.100.1 about {about} syn
        outside sees   icmp 3/3 203.0.113.20 > 198.51.100.1 about tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
        outside sends  icmp 3/4 192.0.2.9 > 203.0.113.20 about tcp 203.0.113.20:80 > 198.51.100.1:{TO_VM1} ack
        vm1 sees       icmp 3/4 192.0.2.9 > 10.0.1.4 about tcp 10.0.1.4:8080 > 198.51.100.1:{TO_VM1} ack
        gateway sends  icmp 11/0 203.0.113.1 > 198.51.100.1 about {about} syn
        outside sees   icmp 11/0 203.0.113.1 > 198.51.100.1 about tcp 198.51.100.1:{TO_VM1} > 203.0.113.20:80 syn
    """)


# -- hairpin


def _sender_and_port(mapped_to: str) -> tuple[str, str]:
    """A source port from which vm1's flow to its own frontend is mapped to ``mapped_to``."""
    scenario = Scenario(TWO)
    for port in range(40000, 40050):
        scenario.send("vm1", build(f"tcp 10.0.1.4:{port} > 203.0.113.20:80 syn"))
        to = "vm1" if scenario.reason() == "HairpinToItself" else "vm2"
        if to == mapped_to:
            return str(port), str(1024 + port - 40000)
    raise AssertionError("the hash never chose it")


def test_a_hairpin_through_the_own_frontend_works_when_mapped_to_another_vm() -> None:
    port, snat = _sender_and_port("vm2")
    scenario = Scenario(TWO)
    for earlier in range(40000, int(port)):
        scenario.send("vm1", build(f"tcp 10.0.1.4:{earlier} > 203.0.113.20:80 syn"))
    scenario.play(f"""
        vm1 sends      tcp 10.0.1.4:{port} > 203.0.113.20:80 syn
        vm2 sees       tcp 203.0.113.20:{snat} > 10.0.1.5:8080 syn
        vm2 sends      tcp 10.0.1.5:8080 > 203.0.113.20:{snat} syn ack
        vm1 sees       tcp 203.0.113.20:80 > 10.0.1.4:{port} syn ack
        vm1 sends      tcp 10.0.1.4:{port} > 203.0.113.20:80 ack len=10
        vm2 sees       tcp 203.0.113.20:{snat} > 10.0.1.5:8080 ack len=10
    """)


def test_a_hairpin_mapped_to_the_sender_itself_times_out() -> None:
    port, _ = _sender_and_port("vm1")
    Scenario(TWO).play(f"""
        probe          lb/p vm2 down
        vm1 sends      tcp 10.0.1.4:{port} > 203.0.113.20:80 syn
        dropped        HairpinToItself
        vm1 sends      tcp 10.0.1.4:{port} > 203.0.113.20:50001 syn
        dropped        HairpinToItself
        vm1 sends      tcp 10.0.1.4:{port} > 203.0.113.21:80 syn
        vm3 sees       tcp 203.0.113.20:1024 > 10.0.1.6:80 syn
        vm4 sends      tcp 10.0.1.7:{port} > 203.0.113.20:80 syn
        vm1 sees       tcp 203.0.113.10:1024 > 10.0.1.4:8080 syn
    """)


def test_the_other_reading_of_a_hairpin_to_itself_is_one_policy_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivered = replace(AZURE_2017, hairpin_to_itself=HairpinToItself.DELIVERED)
    monkeypatch.setitem(PROFILES, AZURE_2017.name, delivered)
    Scenario(TWO).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 203.0.113.20:50001 syn
        vm1 sees       tcp 203.0.113.20:1024 > 10.0.1.4:22 syn
        vm1 sends      tcp 10.0.1.4:22 > 203.0.113.20:1024 syn ack
        vm1 sees       tcp 203.0.113.20:50001 > 10.0.1.4:40000 syn ack
    """)


# -- distribution


def _pool(size: int, distribution: str) -> str:
    machines = [f"m{n}" for n in range(size)]
    return f"""
gateway: {{inside: [lan0], outside: wan0}}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{{name: web, addressPrefix: 10.0.0.0/16}}]
publicIPAddresses: [{{name: pip, ipAddress: 203.0.113.20}}]
virtualMachines:
{"".join(f"  - {{name: {m}, privateIPAddress: 10.0.1.{10 + n}}}{chr(10)}" for n, m in enumerate(machines))}
loadBalancers:
  - name: lb
    frontendIPConfigurations: [{{name: fe, publicIPAddress: pip}}]
    backendAddressPools: [{{name: pool, virtualMachines: [{", ".join(machines)}]}}]
    probes: [{{name: p, protocol: Tcp, port: 80}}]
    loadBalancingRules:
      - {{name: web, frontendIPConfiguration: fe, backendAddressPool: pool, probe: p, protocol: Tcp,
         frontendPort: 80, backendPort: 80, loadDistribution: {distribution}}}
      - {{name: udp, frontendIPConfiguration: fe, backendAddressPool: pool, probe: p, protocol: Udp,
         frontendPort: 80, backendPort: 80, loadDistribution: {distribution}}}
"""


def _mapping(engine: Engine, clients: int, *, ports: int = 1, kind: str = "tcp") -> dict[str, str]:
    """Which address each client endpoint is sent to; the flows are forgotten again."""
    found = {}
    flag = " syn" if kind == "tcp" else ""
    for client in range(clients):
        for port in range(ports):
            source = f"198.51.{client // 250}.{client % 250}:{10000 + port}"
            packet = build(f"{kind} {source} > 203.0.113.20:80{flag}")
            verdict = engine.handle(packet, IngressPath.INBOUND, 0.0)
            assert verdict is not None
            found[source] = describe(verdict).split(" > ")[1].split(":")[0]
    for flow in list(engine.flows):
        engine.lifecycle.end(flow)
    return found


def test_every_member_gets_about_its_share() -> None:
    engine = Engine(configuration(_pool(8, "Default")), seed=5)
    shares = list(_mapping(engine, 500, ports=4).values())
    counts = [shares.count(f"10.0.1.{10 + n}") for n in range(8)]
    assert sum(counts) == 2000
    assert min(counts) > 180  # of 250: four standard deviations below
    assert max(counts) < 320


def test_a_member_that_goes_moves_its_own_share_and_gets_it_back() -> None:
    engine = Engine(configuration(_pool(8, "Default")), seed=5)
    before = _mapping(engine, 500)
    engine.health.report(Target("lb", "p", "m3"), False, 0.0)
    without = _mapping(engine, 500)
    assert {without[c] for c in before if before[c] == "10.0.1.13"} >= {"10.0.1.10", "10.0.1.17"}
    moved = [client for client in before if before[client] != without[client]]
    assert moved
    assert all(before[client] == "10.0.1.13" for client in moved)
    assert "10.0.1.13" not in without.values()
    engine.health.report(Target("lb", "p", "m3"), True, 0.0)
    assert _mapping(engine, 500) == before
    engine.reconfigure(configuration(_pool(7, "Default")), 0.0)  # m7 leaves the pool
    smaller = _mapping(engine, 500)
    assert all(before[c] == "10.0.1.17" for c in before if before[c] != smaller[c])


def test_the_seed_keys_the_distribution() -> None:
    text = configuration(_pool(8, "Default"))
    first, second, third = (_mapping(Engine(text, seed=s), 100) for s in (1, 1, 2))
    assert first == second
    assert first != third


def test_source_ip_keeps_a_client_on_one_member_whatever_port_and_protocol() -> None:
    engine = Engine(configuration(_pool(8, "SourceIP")), seed=5)
    tcp, udp = (_mapping(engine, 60, ports=5, kind=kind) for kind in ("tcp", "udp"))
    by_client: dict[str, set[str]] = {}
    for found in (tcp, udp):
        for source, member in found.items():
            by_client.setdefault(source.split(":")[0], set()).add(member)
    assert all(len(members) == 1 for members in by_client.values())
    assert len(set(tcp.values())) == 8


def test_source_ip_protocol_tells_protocols_apart_and_default_ports_too() -> None:
    engine = Engine(configuration(_pool(8, "SourceIPProtocol")), seed=5)
    tcp, udp = (_mapping(engine, 60, ports=5, kind=kind) for kind in ("tcp", "udp"))
    clients = {source.split(":")[0] for source in tcp}
    for found in (tcp, udp):
        for client in clients:
            assert len({m for source, m in found.items() if source.startswith(client + ":")}) == 1
    assert any(tcp[source] != udp[source] for source in tcp)
    engine = Engine(configuration(_pool(8, "Default")), seed=5)
    found = _mapping(engine, 10, ports=20)
    assert all(
        len({m for source, m in found.items() if source.startswith(f"198.51.0.{n}:")}) > 1
        for n in range(10)
    )
