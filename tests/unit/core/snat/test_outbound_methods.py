"""Which method a VM's flow takes, and what it looks like outside (docs/fidelity.md A1; 2017 document)."""

from tests.scenario import Scenario

NETWORK = """
gateway: {inside: [lan0], outside: wan0}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{name: web, addressPrefix: 10.0.1.0/24}]
publicIPAddresses:
  - {name: pip-d, ipAddress: 203.0.113.10}
  - {name: pip-a, ipAddress: 203.0.113.20}
  - {name: pip-b, ipAddress: 203.0.113.21}
  - {name: pip-vm3, ipAddress: 203.0.113.30}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.1.5}
  - {name: vm3, privateIPAddress: 10.0.1.6, publicIPAddress: pip-vm3}
  - {name: vm4, privateIPAddress: 10.0.1.7}
loadBalancers:
  - name: lb
    sku: Basic
    frontendIPConfigurations:
      - {name: fe-a, publicIPAddress: pip-a}
      - {name: fe-b, publicIPAddress: pip-b}
    backendAddressPools:
      - {name: pool, virtualMachines: [vm2, vm3]}
      - {name: unlinked, virtualMachines: [vm4]}
    loadBalancingRules:
      - {name: web, frontendIPConfiguration: fe-a, backendAddressPool: pool, protocol: Tcp,
         frontendPort: 80, backendPort: 80}
"""

BOTH_FRONTENDS = NETWORK + (
    "      - {name: web-b, frontendIPConfiguration: fe-b, backendAddressPool: pool, protocol: Tcp,\n"
    "         frontendPort: 80, backendPort: 8080}\n"
)


def test_a_standalone_vm_goes_out_by_default_snat() -> None:
    Scenario(NETWORK).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 syn
        flows          vm1 method=DefaultOutboundAccess state=Opening public_ip=203.0.113.10
        outside sends  tcp 198.51.100.1:443 > 203.0.113.10:1024 syn ack
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:40000 syn ack
        flows          vm1 state=Established packets_out=1 packets_in=1
    """)


def test_a_load_balanced_vm_goes_out_by_its_frontend_for_both_protocols() -> None:
    # A Basic rule programs TCP and UDP, whatever its own protocol (docs/fidelity.md A1).
    Scenario(NETWORK).play("""
        vm2 sends      tcp 10.0.1.5:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.20:1024 > 198.51.100.1:443 syn
        vm2 sends      udp 10.0.1.5:5000 > 198.51.100.1:53 len=10
        outside sees   udp 203.0.113.20:1024 > 198.51.100.1:53 len=10
        flows          vm2 198.51.100.1:53 method=LoadBalancer
    """)


def test_an_instance_level_public_ip_wins_over_the_load_balancer_and_keeps_ports() -> None:
    Scenario(NETWORK).play("""
        vm3 sends      tcp 10.0.1.6:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.30:40000 > 198.51.100.1:443 syn
        flows          vm3 method=InstanceLevelPublicIP public_ip=203.0.113.30 public_port=40000
        outside sends  tcp 198.51.100.1:443 > 203.0.113.30:40000 syn ack
        vm3 sees       tcp 198.51.100.1:443 > 10.0.1.6:40000 syn ack
    """)


def test_a_pool_without_a_rule_behaves_as_standalone() -> None:
    Scenario(NETWORK).play("""
        vm4 sends      tcp 10.0.1.7:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:2048 > 198.51.100.1:443 syn
        flows          vm4 method=DefaultOutboundAccess
    """)


def test_a_vm_that_the_file_does_not_name_is_standalone_and_named_by_its_address() -> None:
    Scenario(NETWORK).play("""
        10.0.1.99 sends tcp 10.0.1.99:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:3072 > 198.51.100.1:443 syn
        flows          10.0.1.99 method=DefaultOutboundAccess
    """)


def test_without_default_outbound_addresses_a_standalone_vm_has_no_way_out() -> None:
    yaml = NETWORK.replace("defaultOutboundAccess: {publicIPAddresses: [pip-d]}", "")
    Scenario(yaml).play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        dropped        NoOutboundMethod
        event          PacketsDropped reason=NoOutboundMethod vm=vm1 count=1
    """)


def test_every_linked_frontend_is_a_candidate_for_each_flow() -> None:
    scenario = Scenario(BOTH_FRONTENDS)
    for host in range(1, 101):
        scenario.play(f"vm2 sends udp 10.0.1.5:5000 > 192.0.2.{host}:53")
    # One private endpoint keeps its port where it can (A2), so one frontend serves it.
    assert len({flow.public_ip for flow in scenario.flow_list()}) == 1
    for port in range(1, 101):
        scenario.play(f"vm2 sends tcp 10.0.1.5:{30000 + port} > 198.51.100.1:80 syn")
    chosen = [f.public_ip for f in scenario.flow_list() if f.protocol == 6]
    assert 25 < chosen.count("203.0.113.20") < 75
    assert set(chosen) == {"203.0.113.20", "203.0.113.21"}


def test_a_full_frontend_is_passed_over_for_one_with_a_free_port() -> None:
    scenario = Scenario(BOTH_FRONTENDS)
    for port in range(2048):
        scenario.play(f"vm2 sends tcp 10.0.1.5:{10000 + port} > 198.51.100.1:80 syn")
        assert scenario.verdict is not None, port
    scenario.play("""
        ports          vm2 203.0.113.20 Tcp used=1024 free=0 failed=0
        ports          vm2 203.0.113.21 Tcp used=1024 free=0 failed=0
        vm2 sends      tcp 10.0.1.5:20000 > 198.51.100.1:80 syn
        dropped        PortsExhausted
        event          PortsExhausted vm=vm2 public_ip=203.0.113.20 count=1
    """)


def test_the_choice_among_frontends_is_the_seeds() -> None:
    def choices(seed: int) -> list[str]:
        scenario = Scenario(BOTH_FRONTENDS, seed=seed)
        for port in range(40):
            scenario.play(f"vm2 sends tcp 10.0.1.5:{10000 + port} > 198.51.100.1:80 syn")
        return [flow.public_ip for flow in scenario.flow_list()]

    assert choices(1) == choices(1)
    assert choices(1) != choices(2)


def test_unroutable_sources_and_destinations_are_refused_by_name() -> None:
    Scenario(NETWORK).play("""
        vm1 forges     udp 10.9.9.9:1 > 198.51.100.1:53
        dropped        SourceNotInVirtualNetwork
        vm1 forges     udp 192.168.7.7:1 > 198.51.100.1:53
        dropped        SourceNotInVirtualNetwork
        vm1 sends      udp 10.0.1.4:1 > 192.168.1.1:53
        dropped        DestinationNotInternet
        vm1 sends      udp 10.0.1.4:1 > 10.0.2.9:53
        dropped        DestinationNotInternet
        vm1 sends      udp 10.0.1.4:1 > 100.64.0.1:53
        dropped        DestinationNotInternet
        vm1 sends      udp 10.0.1.4:1 > 169.254.169.254:80
        dropped        DestinationNotInternet
        vm1 sends      udp 10.0.1.4:1 > 168.63.129.16:53
        dropped        DestinationNotInternet
        vm1 sends      udp 10.0.1.4:1 > 224.0.0.251:5353
        dropped        DestinationNotInternet
        vm1 sends      udp 10.0.1.4:1 > 198.18.0.1:53
        outside sees   udp 203.0.113.10:1024 > 198.18.0.1:53
    """)


def test_added_internet_prefixes_are_internet() -> None:
    yaml = NETWORK.replace(
        "outside: wan0", "outside: wan0, internetAddressPrefixes: [192.168.1.0/24]"
    )
    Scenario(yaml).play("""
        vm1 sends      udp 10.0.1.4:1 > 192.168.1.1:53
        outside sees   udp 203.0.113.10:1024 > 192.168.1.1:53
        vm1 sends      udp 10.0.1.4:1 > 192.168.2.1:53
        dropped        DestinationNotInternet
    """)
