"""Outbound connections in azure-current: who goes out by what, on which ports (docs/fidelity.md A1)."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from gateway.core.explain import explain_outbound
from tests.scenario import Scenario

PRIVATE, OPEN = "10.0.1.0/24", "10.0.2.0/24"


def network(
    vms: str = "", balancer: str = "", more: str = "", subnet: str = "", frontends: int = 2
) -> str:
    """Two subnets, the second with default outbound access, and a load balancer if there is one."""
    publics = "".join(
        f"  - {{name: pip{n}, ipAddress: 203.0.113.{20 + n}}}\n" for n in range(1, frontends + 1)
    )
    places = ", ".join(f"{{name: fe{n}, publicIPAddress: pip{n}}}" for n in range(1, frontends + 1))
    return f"""
gateway: {{inside: [lan0], outside: wan0, profile: azure-current}}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {{name: private, addressPrefix: {PRIVATE}{subnet}}}
    - {{name: open, addressPrefix: {OPEN}, defaultOutboundAccess: true}}
    - {{name: many, addressPrefix: 10.0.8.0/21}}
publicIPAddresses:
  - {{name: d, ipAddress: 203.0.113.10}}
  - {{name: own, ipAddress: 203.0.113.30}}
{publics}defaultOutboundAccess: {{publicIPAddresses: [d]}}
virtualMachines:
  - {{name: alone, privateIPAddress: 10.0.1.4}}
  - {{name: lucky, privateIPAddress: 10.0.2.4}}
  - {{name: owner, privateIPAddress: 10.0.1.6, publicIPAddress: own}}
  - {{name: vm1, privateIPAddress: 10.0.1.5}}
{vms}loadBalancers:
  - name: lb
    sku: Standard
    frontendIPConfigurations: [{places}]
{balancer}{more}"""


POOL = "    backendAddressPools: [{name: pool, virtualMachines: [vm1, owner]}]\n"


def rule(frontend: int, protocol: str = "Tcp", port: int = 80, more: str = "") -> str:
    return (
        f"      - {{name: r{frontend}{protocol}, frontendIPConfiguration: fe{frontend}, "
        f"backendAddressPool: pool, protocol: {protocol}, frontendPort: {port}, "
        f"backendPort: {port + frontend}{more}}}\n"
    )


RULES = POOL + "    loadBalancingRules:\n" + rule(1)
BOTH = RULES + rule(1, "Udp") + rule(2) + rule(2, "Udp")


def pool_of(count: int, rules: str) -> tuple[str, str]:
    """``vms`` and ``balancer`` for a pool of m0, m1, …"""
    vms = "".join(
        f"  - {{name: m{n}, privateIPAddress: 10.0.{8 + n // 240}.{4 + n % 240}}}\n"
        for n in range(count)
    )
    members = ", ".join(f"m{n}" for n in range(count))
    pools = f"    backendAddressPools: [{{name: pool, virtualMachines: [{members}]}}]\n"
    return vms, pools + rules


def test_default_snat_is_for_subnets_that_ask_for_it() -> None:
    Scenario(network(balancer=RULES)).play("""
        alone sends    tcp 10.0.1.4:1 > 198.51.100.1:443 syn
        dropped        NoOutboundMethod
        lucky sends    tcp 10.0.2.4:1 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 syn
        flows          lucky method=DefaultOutboundAccess
        10.0.1.77 sends tcp 10.0.1.77:1 > 198.51.100.1:443 syn
        dropped        NoOutboundMethod
        10.0.2.77 sends tcp 10.0.2.77:1 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:2048 > 198.51.100.1:443 syn
    """)


def test_the_pool_of_a_standard_load_balancer_has_no_default_snat() -> None:
    unlinked = "    backendAddressPools: [{name: pool, virtualMachines: [lucky]}]\n"
    Scenario(network(balancer=unlinked)).play("""
        lucky sends    tcp 10.0.2.4:1 > 198.51.100.1:443 syn
        dropped        NoOutboundMethod
    """)


def test_an_instance_level_public_ip_wins_over_frontends() -> None:
    Scenario(network(balancer=BOTH)).play("""
        owner sends    tcp 10.0.1.6:5 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.30:5 > 198.51.100.1:443 syn
        flows          owner method=InstanceLevelPublicIP
    """)


def test_a_rule_programs_its_own_protocol_only() -> None:
    Scenario(network(balancer=RULES)).play("""
        vm1 sends      tcp 10.0.1.5:1 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.21:1024 > 198.51.100.1:443 syn
        vm1 sends      udp 10.0.1.5:1 > 198.51.100.1:53
        dropped        ProtocolWithoutRule
    """)


def test_tcp_ports_are_reused_toward_another_port_of_the_same_address() -> None:
    Scenario(network(balancer=BOTH)).play("""
        vm1 sends      tcp 10.0.1.5:1 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.21:1024 > 198.51.100.1:443 syn
        vm1 sends      tcp 10.0.1.5:1 > 198.51.100.1:80 syn
        outside sees   tcp 203.0.113.21:1024 > 198.51.100.1:80 syn
        vm1 sends      tcp 10.0.1.5:2 > 198.51.100.1:80 syn
        outside sees   tcp 203.0.113.21:1025 > 198.51.100.1:80 syn
        ports          vm1 203.0.113.21 Tcp used=2
    """)


def test_udp_ports_are_reused_toward_another_address_only() -> None:
    Scenario(network(balancer=BOTH)).play("""
        vm1 sends      udp 10.0.1.5:1 > 198.51.100.1:53
        outside sees   udp 203.0.113.21:1024 > 198.51.100.1:53
        vm1 sends      udp 10.0.1.5:2 > 198.51.100.1:54
        outside sees   udp 203.0.113.21:1025 > 198.51.100.1:54
        vm1 sends      udp 10.0.1.5:2 > 198.51.100.2:54
        outside sees   udp 203.0.113.21:1025 > 198.51.100.2:54
    """)


@pytest.mark.parametrize(
    ("size", "frontends", "expected"),
    [
        (50, 1, (1024,)),
        (50, 2, (1024, 0)),
        (100, 1, (512,)),
        (100, 2, (512, 512)),
        (100, 3, (512, 512, 0)),
        (200, 3, (256, 256, 256)),
    ],
)
def test_several_frontends_give_at_most_1024_ports(
    size: int, frontends: int, expected: tuple[int, ...]
) -> None:
    rules = "    loadBalancingRules:\n" + "".join(rule(n) for n in range(1, frontends + 1))
    vms, balancer = pool_of(size, rules)
    scenario = Scenario(network(vms, balancer, frontends=frontends))
    for vm in ("m0", f"m{size - 1}"):
        seen = [scenario.ports(vm, f"203.0.113.{20 + n}", "Tcp") for n in range(1, frontends + 1)]
        assert tuple(0 if r is None else r.allocated for r in seen) == expected


def test_frontends_are_filled_in_order() -> None:
    rules = "    loadBalancingRules:\n" + rule(2) + rule(1)  # the order is the frontends'
    vms, balancer = pool_of(801, rules)  # 32 ports on each
    scenario = Scenario(network(vms, balancer))
    for number in range(32):
        scenario.play(f"""
            m0 sends       tcp 10.0.8.4:{100 + number} > 198.51.100.1:443 syn
            outside sees   tcp 203.0.113.21:{1024 + number} > 198.51.100.1:443 syn
        """)
    scenario.play("""
        m0 sends       tcp 10.0.8.4:200 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.22:1024 > 198.51.100.1:443 syn
        m0 sends       tcp 10.0.8.4:201 > 198.51.100.2:443 syn
        outside sees   tcp 203.0.113.21:1024 > 198.51.100.2:443 syn
    """)


OUT = "    outboundRules:\n      - {{name: out, frontendIPConfigurations: [{}], backendAddressPool: pool, {}}}\n"
DISABLED = POOL + "    loadBalancingRules:\n" + rule(1, more=", disableOutboundSnat: true")


def test_disabled_outbound_snat_without_an_outbound_rule_is_no_way_out() -> None:
    Scenario(network(balancer=DISABLED)).play("""
        vm1 sends      tcp 10.0.1.5:1 > 198.51.100.1:443 syn
        dropped        NoOutboundMethod
    """)


def test_an_outbound_rule_gives_ports_by_the_table_and_lists_itself() -> None:
    Scenario(network(balancer=DISABLED + OUT.format("fe1", "protocol: All"))).play("""
        ports          vm1 203.0.113.21 Tcp method=OutboundRule allocated=1024
        ports          vm1 203.0.113.21 Udp method=OutboundRule allocated=1024
        vm1 sends      tcp 10.0.1.5:1 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.21:1024 > 198.51.100.1:443 syn
        flows          vm1 method=OutboundRule
        owner sends    tcp 10.0.1.6:5 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.30:5 > 198.51.100.1:443 syn
    """)


def test_an_outbound_rule_wins_over_frontends_of_load_balancing_rules() -> None:
    balancer = (
        POOL + OUT.format("fe2", "protocol: Tcp") + "    loadBalancingRules:\n" + rule(1, "Udp")
    )
    Scenario(network(balancer=balancer + rule(1))).play("""
        vm1 sends      tcp 10.0.1.5:1 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.22:1024 > 198.51.100.1:443 syn
        flows          vm1 198.51.100.1:443 method=OutboundRule
        vm1 sends      udp 10.0.1.5:1 > 198.51.100.1:53
        outside sees   udp 203.0.113.21:1024 > 198.51.100.1:53
        flows          vm1 198.51.100.1:53 method=LoadBalancer
        ports          vm1 203.0.113.22 Tcp method=OutboundRule
        ports          vm1 203.0.113.21 Udp method=LoadBalancer
    """)


def test_an_outbound_rule_for_tcp_gives_udp_nothing() -> None:
    Scenario(network(balancer=DISABLED + OUT.format("fe1", "protocol: Tcp"))).play("""
        vm1 sends      udp 10.0.1.5:1 > 198.51.100.1:53
        dropped        ProtocolWithoutRule
    """)


def test_allocated_outbound_ports_are_the_vms_share_whatever_the_pools_size() -> None:
    vms, balancer = pool_of(60, OUT.format("fe1", "protocol: All, allocatedOutboundPorts: 8"))
    scenario = Scenario(network(vms, balancer))
    for number in range(8):
        scenario.play(f"""
            m1 sends       tcp 10.0.8.5:{100 + number} > 198.51.100.1:443 syn
            outside sees   tcp 203.0.113.21:{1032 + number} > 198.51.100.1:443 syn
        """)
    scenario.play("""
        m1 sends       tcp 10.0.8.5:300 > 198.51.100.1:443 syn
        dropped        PortsExhausted
        m2 sends       tcp 10.0.8.6:300 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.21:1040 > 198.51.100.1:443 syn
    """)


def test_allocated_ports_beyond_one_frontend_are_on_the_next() -> None:
    vms, balancer = pool_of(
        4, OUT.format("fe1, fe2", "protocol: All, allocatedOutboundPorts: 30000")
    )
    scenario = Scenario(network(vms, balancer))
    shares = {
        vm: [
            0 if record is None else record.allocated
            for record in (scenario.ports(vm, f"203.0.113.{n}", "Udp") for n in (21, 22))
        ]
        for vm in ("m0", "m1", "m2", "m3")
    }
    assert shares == {
        "m0": [30000, 0],
        "m1": [30000, 0],
        "m2": [4000, 26000],
        "m3": [0, 30000],
    }


def test_rules_for_each_protocol_have_inventories_of_their_own() -> None:
    vms, balancer = pool_of(1, "")
    rules = (
        "    outboundRules:\n"
        "      - {name: t, frontendIPConfigurations: [fe1], backendAddressPool: pool, protocol: Tcp,\n"
        "         allocatedOutboundPorts: 64000}\n"
        "      - {name: u, frontendIPConfigurations: [fe1], backendAddressPool: pool, protocol: Udp,\n"
        "         allocatedOutboundPorts: 48000}\n"
    )
    Scenario(network(vms, balancer + rules)).play("""
        ports          m0 203.0.113.21 Tcp allocated=64000
        ports          m0 203.0.113.21 Udp allocated=48000
    """)


def test_an_outbound_rules_idle_timeout_is_tcps() -> None:
    balancer = DISABLED + OUT.format("fe1", "protocol: All, idleTimeoutInMinutes: 10")
    Scenario(network(balancer=balancer)).play("""
        vm1 sends      tcp 10.0.1.5:1 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.21:1024 syn ack
        vm1 sends      udp 10.0.1.5:1 > 198.51.100.1:53
        after          241 s
        flows          vm1 198.51.100.1:53 none
        flows          vm1 198.51.100.1:443 state=Established
        after          360 s
        flows          vm1 none
    """)


def test_an_outbound_rule_in_place_of_load_balancing_rules_keeps_flows_and_ports() -> None:
    scenario = Scenario(network(balancer=RULES))
    scenario.play("""
        vm1 sends      tcp 10.0.1.5:1 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.21:1024 syn ack
    """)
    scenario.reconfigure(network(balancer=DISABLED + OUT.format("fe1", "protocol: Tcp")))
    scenario.play(
        """
        outside sends  tcp 198.51.100.1:443 > 203.0.113.21:1024 ack
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.5:1 ack
        vm1 sends      tcp 10.0.1.5:2 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.21:1025 > 198.51.100.1:443 syn
    """
    )
    assert [f.method for f in scenario.flow_list("vm1")] == ["LoadBalancer", "OutboundRule"]


def test_exhaustion_and_high_usage_are_told_as_health_events_every_five_minutes() -> None:
    vms, balancer = pool_of(1, OUT.format("fe1", "protocol: All, allocatedOutboundPorts: 8"))
    scenario = Scenario(network(vms, balancer))

    def syn(number: int) -> None:
        scenario.play(f"m0 sends tcp 10.0.8.4:{number} > 198.51.100.1:443 syn")

    for number in range(1, 7):
        syn(number)
    scenario.play("events none")
    syn(7)
    scenario.play("event HighSnatPortUsage vm=m0 used=7 allocated=8 owner=loadBalancers/lb")
    syn(8)
    scenario.play("events none")
    syn(9)
    scenario.play("""
        dropped        PortsExhausted
        event          PortsExhausted vm=m0 private_ip=10.0.8.4 shape=LoadBalancerHealthEvent count=1
    """)
    syn(10)
    scenario.play("""
        after          61 s
        events none
        after          178 s
        events none
        after          62 s
        event          PortsExhausted count=1
    """)


def test_explain_says_what_the_engine_does() -> None:
    scenario = Scenario(network(balancer=DISABLED + OUT.format("fe1", "protocol: Tcp")))
    vm1, remote = IPv4Address("10.0.1.5"), IPv4Address("198.51.100.1")
    told = explain_outbound(scenario.engine, vm1, "Tcp", remote, 443, None)
    assert (told["verdict"], told["method"]) == ("Allow", "OutboundRule")
    assert told["candidates"] == [{"publicIp": "203.0.113.21", "portsFree": 1024}]
    told = explain_outbound(scenario.engine, vm1, "Udp", remote, 53, None)
    assert (told["verdict"], told["method"], told["candidates"]) == ("Drop", None, [])
    assert told["reason"].startswith("ProtocolWithoutRule")
