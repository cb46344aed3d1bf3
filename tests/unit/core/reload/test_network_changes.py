"""What a reload says about the network around VMs, and which flows it ends."""

from gateway.core.reload.network_changes import network_changes
from tests.scenario import Scenario, build, configuration, sentences

TOWN = """
gateway: {inside: [lan0], outside: wan0}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16, 10.1.0.0/16]
  subnets:
    - {name: web, addressPrefix: 10.0.1.0/24}
    - {name: data, addressPrefix: 10.1.2.0/24}
publicIPAddresses:
  - {name: pip-d, ipAddress: 203.0.113.10}
  - {name: pip-e, ipAddress: 203.0.113.11}
  - {name: pip-vm2, ipAddress: 203.0.113.30, idleTimeoutInMinutes: 4}
  - {name: pip-lb, ipAddress: 203.0.113.20}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.1.5, publicIPAddress: pip-vm2}
  - {name: vm3, privateIPAddress: 10.0.1.6}
loadBalancers:
  - name: lb
    frontendIPConfigurations: [{name: fe, publicIPAddress: pip-lb}]
    backendAddressPools: [{name: pool, virtualMachines: [vm3]}]
    probes: [{name: p, protocol: Tcp, port: 80}]
    loadBalancingRules:
      - {name: web, frontendIPConfiguration: fe, backendAddressPool: pool, protocol: Tcp,
         frontendPort: 80, backendPort: 80, idleTimeoutInMinutes: 4, probe: p}
    inboundNatRules:
      - {name: ssh, frontendIPConfiguration: fe, protocol: Tcp, frontendPort: 50001,
         virtualMachine: vm3, backendPort: 22}
"""
WITHOUT_DATA = TOWN.replace("    - {name: data, addressPrefix: 10.1.2.0/24}\n", "").replace(
    ", 10.1.0.0/16", ""
)


def changes(*replacements: tuple[str, str]) -> list[str]:
    """What a reload says of the town changed so; every other sentence comes from elsewhere."""
    text = TOWN
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return sentences(network_changes(configuration(TOWN), configuration(text)))


def test_the_same_is_no_change() -> None:
    assert changes() == []
    assert changes(("[10.0.0.0/16, 10.1.0.0/16]", "[10.1.0.0/16, 10.0.0.0/16]")) == []


def test_address_space_and_subnets() -> None:
    assert sentences(network_changes(configuration(TOWN), configuration(WITHOUT_DATA))) == [
        "virtual network: 10.0.0.0/16, 10.1.0.0/16 -> 10.0.0.0/16",
        "subnet data removed: 10.1.2.0/24",
    ]
    assert sentences(network_changes(configuration(WITHOUT_DATA), configuration(TOWN))) == [
        "virtual network: 10.0.0.0/16 -> 10.0.0.0/16, 10.1.0.0/16",
        "subnet data added: 10.1.2.0/24",
    ]
    assert changes(("10.1.2.0/24", "10.1.2.0/25")) == ["subnet data: 10.1.2.0/24 -> 10.1.2.0/25"]


def test_default_outbound_access() -> None:
    assert changes(("[pip-d]", "[pip-e]")) == [
        "default outbound access: 203.0.113.10 -> 203.0.113.11"
    ]
    assert changes(("[pip-d]", "[]")) == ["default outbound access: 203.0.113.10 -> none"]


def test_idle_timeouts() -> None:
    assert changes(("203.0.113.30, idleTimeoutInMinutes: 4", "203.0.113.30")) == []
    public = "203.0.113.30, idleTimeoutInMinutes: "
    assert changes((f"{public}4", f"{public}0.5")) == [
        "public IP pip-vm2: idleTimeoutInMinutes 4 -> 0.5, new flows"
    ]
    scenario = Scenario(TOWN)
    said = scenario.reconfigure(TOWN.replace(f"{public}4", f"{public}0.5"))
    assert said == ["public IP pip-vm2: idleTimeoutInMinutes 4 -> 0.5, new flows"]


def test_rules_and_probes_of_load_balancers() -> None:
    rule = "backendPort: 80, idleTimeoutInMinutes: 4, probe: p}"
    assert changes((rule, "backendPort: 81, idleTimeoutInMinutes: 10, probe: p}")) == [
        "load balancer lb: rule web: backendPort 80 -> 81, idleTimeoutInMinutes 4 -> 10"
    ]
    assert changes((", probe: p}", "}"), ("name: ssh,", "name: ssh2,"), ("port: 80}", "port: 81}")) == [
        "load balancer lb: rule web: probe p -> none",
        "load balancer lb: inbound NAT rule ssh2 added",
        "load balancer lb: inbound NAT rule ssh removed",
        "load balancer lb: probe p: port 80 -> 81",
    ]  # fmt: skip
    gone = configuration(TOWN[: TOWN.index("loadBalancers:")])
    assert sentences(network_changes(configuration(TOWN), gone)) == [
        "load balancer lb: rule web removed",
        "load balancer lb: inbound NAT rule ssh removed",
        "load balancer lb: probe p removed",
    ]
    assert len(sentences(network_changes(gone, configuration(TOWN)))) == 3


def test_flows_of_a_removed_subnet_end_and_others_live() -> None:
    """Nothing could be sent to such a VM any more: its flows would go on in one direction only."""
    scenario = Scenario(TOWN)
    scenario.play("""
        vm1 sends        tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sees     tcp 203.0.113.10:1024 > 198.51.100.1:443 syn
        10.1.2.9 sends   tcp 10.1.2.9:40000 > 198.51.100.1:443 syn
        outside sees     tcp 203.0.113.10:2048 > 198.51.100.1:443 syn
    """)
    for remote in ("10.0.1.6", "10.1.2.9"):
        scenario.send("vm1", build(f"udp 10.0.1.4:5 > {remote}:5"), lateral=True)
    said = scenario.reconfigure(WITHOUT_DATA)
    reason = "they are of no subnet any more, or lead out of the virtual network"
    assert said[-1] == f"2 flows ended: {reason}"
    scenario.play("event FlowsEnded flows=2")
    scenario.play("""
        vm1 sends        tcp 10.0.1.4:40000 > 198.51.100.1:443 ack
        outside sees     tcp 203.0.113.10:1024 > 198.51.100.1:443 ack
        outside sends    tcp 198.51.100.1:443 > 203.0.113.10:2048 ack
        dropped          InboundWithoutFlow
        10.1.2.9 sends   tcp 10.1.2.9:40000 > 198.51.100.1:443 ack
        dropped          SourceNotInVirtualNetwork
        flows            vm1 10.0.1.6 protocol=17
    """)
    assert scenario.reconfigure(WITHOUT_DATA) == []
