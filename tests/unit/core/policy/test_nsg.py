"""Network security groups in the engine (docs/fidelity.md N1 to N8)."""

from ipaddress import IPv4Address

import pytest

from gateway.core.admission import Admitted
from gateway.core.explain import opening_packet
from gateway.core.ingress import IngressPath
from gateway.schema.protocols import TCP
from tests.scenario import Scenario, build

HEAD = """
gateway: {inside: [lan0], outside: wan0}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {name: web, addressPrefix: 10.0.1.0/24, networkSecurityGroup: subnet-nsg}
    - {name: data, addressPrefix: 10.0.2.0/24}
publicIPAddresses:
  - {name: pip-d, ipAddress: 203.0.113.10}
  - {name: pip-vm2, ipAddress: 203.0.113.30}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.1.5, publicIPAddress: pip-vm2, networkSecurityGroup: nic-nsg}
  - {name: vm3, privateIPAddress: 10.0.2.4}
networkSecurityGroups:
"""


def rule(
    name: str,
    priority: int,
    direction: str,
    access: str,
    *,
    protocol: str = "'*'",
    source: str = "'*'",
    to: str = "'*'",
    port: str = "'*'",
) -> str:
    return (
        f"      - {{name: {name}, priority: {priority}, direction: {direction}, access: {access},"
        f" protocol: {protocol}, sourceAddressPrefix: {source}, sourcePortRange: '*',"
        f" destinationAddressPrefix: {to}, destinationPortRange: {port}}}\n"
    )


def network(subnet: str = "", interface: str = "", flush: bool = False) -> str:
    """Two groups with the given rules: on vm1's and vm2's subnet, and on vm2's interface."""
    text = HEAD
    for name, rules in (("subnet-nsg", subnet), ("nic-nsg", interface)):
        text += f"  - name: {name}\n    flushConnection: {str(flush).lower()}\n"
        text += f"    securityRules:\n{rules}" if rules else "    securityRules: []\n"
    return text


NO_SMTP = rule("no-smtp", 100, "Outbound", "Deny", protocol="Tcp", to="Internet", port="'25'")
WEB = rule("web", 100, "Inbound", "Allow", protocol="Tcp", source="Internet", port="'80'")


def test_the_default_rules_let_out_and_nothing_in() -> None:
    Scenario(network()).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:25 syn
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:25 syn
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:80 syn
        dropped        DeniedBySecurityRule
        event          PacketsDropped vm=vm2 rule=subnet-nsg/DenyAllInBound count=1
    """)


@pytest.mark.parametrize(
    ("rules", "decisive"),
    [
        ("", "AllowVnetInBound"),
        (rule("no-lan", 4096, "Inbound", "Deny", source="VirtualNetwork"), "no-lan"),
        (rule("nobody", 4096, "Inbound", "Deny"), "nobody"),
        (rule("no-clients", 100, "Inbound", "Deny", source="Internet"), "AllowVnetInBound"),
        (
            rule("probes", 4000, "Inbound", "Allow", source="AzureLoadBalancer")
            + rule("no-lan", 4096, "Inbound", "Deny", source="VirtualNetwork"),
            "probes",
        ),
    ],
)
def test_probes_are_of_both_platform_tags(rules: str, decisive: str) -> None:
    """168.63.129.16 is in VirtualNetwork, too, whose rule 65000 comes first."""
    engine = Scenario(network(rules)).engine
    source, vm = IPv4Address("168.63.129.16"), IPv4Address("10.0.1.4")
    answer = engine.admission.probe(opening_packet(TCP, source, 50000, vm, 80))
    assert answer.rule_matches[-1].rule.name == decisive
    assert isinstance(answer, Admitted) is (answer.rule_matches[-1].rule.access == "Allow")


def test_a_private_address_that_is_not_in_the_network_is_in_no_tag() -> None:
    anywhere = rule("lan", 100, "Outbound", "Allow", to="172.31.0.0/16", port="'80'")
    Scenario(network(anywhere)).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 172.31.0.100:443 syn
        dropped        DeniedBySecurityRule
        event          PacketsDropped vm=vm1 rule=subnet-nsg/DenyAllOutBound count=1
        vm1 sends      tcp 10.0.1.4:40000 > 172.31.0.100:80 syn           # allowed, but no way there
        dropped        DestinationNotInternet
        vm3 sends      tcp 10.0.2.4:40000 > 172.31.0.100:443 syn          # no group
        dropped        DestinationNotInternet
        vm1 sends      udp 10.0.1.4:40000 > 169.254.169.254:53            # bypasses groups
        dropped        DestinationNotInternet
        vm1 sends      udp 10.0.1.4:40000 > 168.63.129.16:53
        dropped        DestinationNotInternet
    """)


def test_a_rule_denies_silently_and_by_name_and_takes_no_port() -> None:
    Scenario(network(NO_SMTP)).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:25 syn
        dropped        DeniedBySecurityRule
        event          PacketsDropped reason=DeniedBySecurityRule vm=vm1 rule=subnet-nsg/no-smtp
        flows          vm1 none
        vm1 sends      udp 10.0.1.4:40000 > 198.51.100.1:25
        outside sees   udp 203.0.113.10:1024 > 198.51.100.1:25
        vm3 sends      tcp 10.0.2.4:40000 > 198.51.100.1:25 syn       # a subnet without a group
        outside sees   tcp 203.0.113.10:2048 > 198.51.100.1:25 syn
    """)


def test_the_lowest_priority_number_decides() -> None:
    allowed = rule(
        "relay", 90 + 10, "Outbound", "Allow", protocol="Tcp", to="198.51.100.9", port="'25'"
    )
    denied = rule("no-smtp", 200, "Outbound", "Deny", protocol="Tcp", to="Internet", port="'25'")
    Scenario(network(denied + allowed)).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.9:25 syn
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.9:25 syn
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:25 syn
        dropped        DeniedBySecurityRule
    """)


def test_both_levels_must_allow_in_azures_order() -> None:
    # Inbound the subnet is asked first, outbound the interface.
    Scenario(network(WEB, rule("shut", 100, "Inbound", "Deny"))).play("""
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:80 syn
        dropped        DeniedBySecurityRule
        event          PacketsDropped rule=nic-nsg/shut
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:81 syn
        event          PacketsDropped rule=subnet-nsg/DenyAllInBound
    """)
    out = rule("out", 100, "Outbound", "Deny")
    Scenario(network(out, out)).play("""
        vm2 sends      tcp 10.0.1.5:4000 > 198.51.100.1:80 syn
        dropped        DeniedBySecurityRule
        event          PacketsDropped rule=nic-nsg/out
        vm1 sends      tcp 10.0.1.4:4000 > 198.51.100.1:80 syn
        event          PacketsDropped rule=subnet-nsg/out
    """)


def test_inbound_rules_see_the_private_destination_and_the_remote_source() -> None:
    only = rule("own", 100, "Inbound", "Allow", source="198.51.100.1", to="10.0.1.5", port="'22'")
    Scenario(network(only, only)).play("""
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:22 syn
        vm2 sees       tcp 198.51.100.1:4000 > 10.0.1.5:22 syn
        outside sends  tcp 198.51.100.2:4000 > 203.0.113.30:22 syn
        dropped        DeniedBySecurityRule
    """)


def test_replies_and_errors_need_no_rule() -> None:
    Scenario(network(rule("shut", 100, "Inbound", "Deny"))).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:40000 syn ack
        outside sends  icmp 3/4 192.0.2.1 > 203.0.113.10 about tcp 203.0.113.10:1024 > 198.51.100.1:443
        vm1 sees       icmp 3/4 192.0.2.1 > 10.0.1.4 about tcp 10.0.1.4:40000 > 198.51.100.1:443
    """)
    Scenario(network(WEB + rule("mute", 100, "Outbound", "Deny"), WEB)).play("""
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:80 syn
        vm2 sees       tcp 198.51.100.1:4000 > 10.0.1.5:80 syn
        vm2 sends      tcp 10.0.1.5:80 > 198.51.100.1:4000 syn ack
        outside sees   tcp 203.0.113.30:80 > 198.51.100.1:4000 syn ack
        flows          vm2 direction=Inbound state=Established
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:80 fin ack
        flows          vm2 state=Closing
        vm2 sends      tcp 10.0.1.5:80 > 198.51.100.1:4000 fin ack
        flows          vm2 state=Closed
        outside sends  tcp 198.51.100.1:4000 > 203.0.113.30:80 syn
        vm2 sees       tcp 198.51.100.1:4000 > 10.0.1.5:80 syn
        flows          vm2 state=Opening
    """)


def test_protocols_and_ports_of_rules() -> None:
    rules = (
        rule("udp-dns", 100, "Outbound", "Allow", protocol="Udp", port="'53'")
        + rule("ports", 110, "Outbound", "Allow", protocol="Tcp", port="'8000-8010'")
        + rule("icmp", 120, "Outbound", "Allow", protocol="Icmp")
        + rule("shut", 4096, "Outbound", "Deny")
    )
    Scenario(network(rules, rules)).play("""
        vm1 sends      udp 10.0.1.4:1 > 198.51.100.1:53
        outside sees   udp 203.0.113.10:1024 > 198.51.100.1:53
        vm1 sends      udp 10.0.1.4:1 > 198.51.100.1:54
        dropped        DeniedBySecurityRule
        vm1 sends      tcp 10.0.1.4:1 > 198.51.100.1:8010 syn
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:8010 syn
        vm1 sends      tcp 10.0.1.4:1 > 198.51.100.1:8011 syn
        dropped        DeniedBySecurityRule
        vm2 sends      echo 10.0.1.5 > 198.51.100.1 id=4
        outside sees   echo 203.0.113.30 > 198.51.100.1 id=4
        vm2 sends      ip 10.0.1.5 > 198.51.100.1 proto=50
        dropped        DeniedBySecurityRule
    """)


def test_a_port_range_from_zero_does_not_match_what_has_no_ports() -> None:
    low = rule("low", 100, "Outbound", "Deny", port="'0-1023'")
    Scenario(network("", low)).play("""
        vm2 sends      echo 10.0.1.5 > 198.51.100.1 id=4
        outside sees   echo 203.0.113.30 > 198.51.100.1 id=4
    """)


def test_between_vms_both_ends_are_asked_and_nothing_is_translated() -> None:
    scenario = Scenario(network(rule("no-sql", 100, "Inbound", "Deny", port="'1433'")))
    engine = scenario.engine

    def lateral(text: str) -> bool:
        packet = build(text)
        verdict = engine.handle(packet, IngressPath.LATERAL, scenario.now)
        assert verdict is None or verdict is packet
        return verdict is not None

    assert lateral("tcp 10.0.2.4:4000 > 10.0.1.4:80 syn")  # AllowVnetInBound
    assert lateral("tcp 10.0.1.4:80 > 10.0.2.4:4000 syn ack")  # its reply
    scenario.play("flows vm3 method=VirtualNetwork public_ip=None state=Established packets_in=1")
    assert not lateral("tcp 10.0.2.4:4000 > 10.0.1.4:1433 syn")
    assert not lateral("tcp 10.0.2.4:4001 > 10.0.1.4:80 ack")  # no flow
    assert lateral("icmp 3/3 10.0.1.4 > 10.0.2.4 about tcp 10.0.2.4:4000 > 10.0.1.4:80 syn")
    assert not lateral("icmp 3/3 10.0.1.4 > 10.0.2.4 about udp 10.0.2.4:9 > 10.0.1.4:9")
    assert not lateral("udp 10.0.1.4:1 > 198.51.100.1:53")
    assert not lateral("udp 172.16.0.1:1 > 10.0.2.9:53")
    scenario.wait(241)
    scenario.play("flows vm3 none")


def test_what_is_between_vms_does_not_leave_and_what_leaves_is_not_between_vms() -> None:
    """The route changed, or a VM has the packet go the other way: each way has its own flows."""
    scenario = Scenario(network())
    engine = scenario.engine
    between = "tcp 10.0.2.4:4000 > 10.0.1.4:80"
    assert engine.handle(build(f"{between} syn"), IngressPath.LATERAL, 0.0)
    assert engine.handle(build("tcp 10.0.1.4:80 > 10.0.2.4:4000 syn ack"), IngressPath.LATERAL, 0.0)
    assert engine.handle(build(f"{between} ack"), IngressPath.LATERAL, 0.0)
    scenario.play(f"""
        vm3 sends      {between} ack
        dropped        TcpWithoutFlow
        vm1 sends      icmp 3/3 10.0.1.4 > 10.0.2.4 about {between}
        dropped        IcmpErrorWithoutFlow
        gateway sends  icmp 3/1 203.0.113.1 > 198.51.100.9 about {between}
        dropped        IcmpErrorWithoutFlow
        gateway sends  icmp 3/1 203.0.113.1 > 10.0.1.4 about tcp 10.0.1.4:1 > 198.51.100.9:80
        dropped        PrivateAddressOutside
        gateway sends  echo-reply 10.0.1.1 > 198.51.100.9 id=4
        dropped        PrivateAddressOutside
        vm1 sends      udp 10.0.1.4:5000 > 198.51.100.1:53
    """)
    assert (
        engine.handle(build("udp 10.0.1.4:5000 > 198.51.100.1:53"), IngressPath.LATERAL, 0.0)
        is None
    )
    assert (
        engine.handle(build("udp 198.51.100.1:53 > 10.0.1.4:5000"), IngressPath.LATERAL, 0.0)
        is None
    )


def test_where_no_group_judges_a_connection_that_began_elsewhere_goes_on() -> None:
    yaml = network().replace(", networkSecurityGroup: subnet-nsg", "")
    scenario = Scenario(yaml)
    packet = build("tcp 10.0.2.4:4000 > 10.0.1.4:80 ack")
    assert scenario.engine.handle(packet, IngressPath.LATERAL, 0.0) is packet


def test_live_flows_survive_a_new_rule_and_new_ones_do_not() -> None:
    scenario = Scenario(network())
    scenario.play("vm1 sends tcp 10.0.1.4:40000 > 198.51.100.1:25 syn")
    scenario.reconfigure(network(NO_SMTP))
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:25 ack
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:25 ack
        vm1 sends      tcp 10.0.1.4:40001 > 198.51.100.1:25 syn
        dropped        DeniedBySecurityRule
    """)


def review(scenario: Scenario, *, enforce: bool) -> tuple[int, int]:
    """What a review of all live flows says: refused, ended."""
    (result,) = [step for step in scenario.engine.review(enforce=enforce) if step is not None]
    return result.denied, result.ended


def open_some(scenario: Scenario) -> None:
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:25 syn
        vm1 sends      tcp 10.0.1.4:40001 > 198.51.100.1:443 syn
        vm2 sends      tcp 10.0.1.5:40000 > 198.51.100.2:25 syn
        outside sends  tcp 198.51.100.7:7 > 203.0.113.30:80 syn
        vm2 sees       tcp 198.51.100.7:7 > 10.0.1.5:80 syn
    """)


def test_a_review_counts_what_would_be_refused_and_ends_nothing() -> None:
    scenario = Scenario(network(WEB, WEB))
    open_some(scenario)
    assert review(scenario, enforce=False) == (0, 0)
    scenario.reconfigure(network(NO_SMTP))  # and the web is closed
    assert review(scenario, enforce=False) == (3, 0)
    assert len(scenario.flow_list()) == 4


def test_a_review_ends_them_where_it_is_enforced_or_the_group_flushes() -> None:
    for flush in (False, True):
        scenario = Scenario(network(WEB, WEB))
        open_some(scenario)
        scenario.reconfigure(network(NO_SMTP, flush=flush))
        assert review(scenario, enforce=not flush) == (3, 3)
        scenario.play("""
            vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:25 ack
            dropped        TcpWithoutFlow
            vm1 sends      tcp 10.0.1.4:40001 > 198.51.100.1:443 ack
            outside sees   tcp 203.0.113.10:1025 > 198.51.100.1:443 ack
            flows          vm2 none
            ports          vm1 203.0.113.10 Tcp used=1
        """)


def test_a_review_asks_both_ends_of_a_flow_between_vms() -> None:
    scenario = Scenario(network())
    packet = build("tcp 10.0.2.4:4000 > 10.0.1.4:1433 syn")
    assert scenario.engine.handle(packet, IngressPath.LATERAL, 0.0) is packet
    scenario.reconfigure(network(rule("no-sql", 100, "Inbound", "Deny", port="'1433'")))
    assert review(scenario, enforce=True) == (1, 1)


def test_hits_are_counted_and_survive_a_reload_that_leaves_the_rule() -> None:
    scenario = Scenario(network(NO_SMTP))
    for port in range(3):
        scenario.play(f"vm1 sends tcp 10.0.1.4:{4000 + port} > 198.51.100.1:25 syn")

    def hits() -> dict[str, int]:
        return {f"{r.group}/{r.name}": r.hits for r in scenario.engine.security_records() if r.hits}

    assert hits() == {"subnet-nsg/no-smtp": 3}
    scenario.reconfigure(network(NO_SMTP + WEB))
    assert hits() == {"subnet-nsg/no-smtp": 3}
