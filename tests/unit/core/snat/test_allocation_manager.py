"""Ports when pools grow and shrink, and other reloads (docs/fidelity.md A3, A6)."""

from gateway.schema.protocols import TCP
from tests.scenario import Scenario

HEAD = """
gateway: {inside: [lan0], outside: wan0}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{name: web, addressPrefix: 10.0.0.0/16}]
publicIPAddresses:
  - {name: pip-a, ipAddress: 203.0.113.20}
  - {name: pip-d, ipAddress: 203.0.113.10}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
virtualMachines:
"""


def pool(size: int, *, frontend_port: int = 80) -> str:
    """A configuration with ``size`` VMs, m0 at 10.0.1.0 and so on, behind one frontend."""
    machines = "".join(
        f"  - {{name: m{n}, privateIPAddress: 10.0.{1 + n // 250}.{4 + n % 250}}}\n"
        for n in range(size)
    )
    members = ", ".join(f"m{n}" for n in range(size))
    return (
        HEAD
        + machines
        + (
            "loadBalancers:\n"
            "  - name: lb\n"
            "    sku: Basic\n"
            "    frontendIPConfigurations: [{name: fe, publicIPAddress: pip-a}]\n"
            f"    backendAddressPools: [{{name: pool, virtualMachines: [{members}]}}]\n"
            "    loadBalancingRules:\n"
            "      - {name: r, frontendIPConfiguration: fe, backendAddressPool: pool, protocol: Tcp,\n"
            f"         frontendPort: {frontend_port}, backendPort: 80}}\n"
        )
    )


def allocated(scenario: Scenario, vm: str) -> list[tuple[int, int]]:
    """First and last port of each range that a VM has on the frontend."""
    public = scenario.engine.outbound.addresses[bytes((203, 0, 113, 20))]
    for allocation in public.allocations:
        if allocation.machine.name == vm and allocation.protocol == TCP:
            return [(ports.start, ports.stop - 1) for ports in allocation.ranges]
    return []


def test_the_table_of_pool_sizes() -> None:
    expected = {1: 1024, 50: 1024, 51: 512, 100: 512, 101: 256, 200: 256, 201: 128, 400: 128}
    expected |= {401: 64, 800: 64, 801: 32, 1000: 32, 1001: 32}
    for size, ports in expected.items():
        scenario = Scenario(pool(size))
        scenario.play(f"""
            ports m0 203.0.113.20 Tcp allocated={ports}
            ports m{size - 1} 203.0.113.20 Udp allocated={ports}
        """)


def test_blocks_are_contiguous_and_in_pool_order() -> None:
    scenario = Scenario(pool(50))
    assert allocated(scenario, "m0") == [(1024, 2047)]
    assert allocated(scenario, "m1") == [(2048, 3071)]
    assert allocated(scenario, "m49") == [(1024 + 49 * 1024, 1023 + 50 * 1024)]


def test_a_rules_frontend_port_takes_its_unit_of_eight_out() -> None:
    scenario = Scenario(pool(2, frontend_port=1501))
    assert allocated(scenario, "m0") == [(1024, 1495), (1504, 2055)]
    assert allocated(scenario, "m1") == [(2056, 3079)]
    scenario.play("ports m0 203.0.113.20 Udp allocated=1024")


def fill(scenario: Scenario, count: int) -> None:
    for number in range(count):
        scenario.play(f"m0 sends tcp 10.0.1.4:{10000 + number} > 198.51.100.1:443 syn")
        assert scenario.verdict is not None


def test_growing_over_a_tier_takes_the_upper_half_back_and_breaks_its_flows_silently() -> None:
    scenario = Scenario(pool(50))
    fill(scenario, 600)
    scenario.play("m0 sends udp 10.0.1.4:5000 > 198.51.100.7:53")
    changes = scenario.reconfigure(pool(51))
    assert (
        "m0 on 203.0.113.20: 1024 -> 512 SNAT ports for each protocol, 88 flows broken" in changes
    )
    assert allocated(scenario, "m0") == [(1024, 1535)]
    assert allocated(scenario, "m50") == [(1536, 2047)]
    scenario.play("""
        event          SnatPortsReclaimed vm=m0 ports=512 flows=88
        ports          m0 203.0.113.20 Tcp allocated=512 used=512 free=0
        m0 sends       tcp 10.0.1.4:10511 > 198.51.100.1:443 ack
        outside sees   tcp 203.0.113.20:1535 > 198.51.100.1:443 ack
        m0 sends       tcp 10.0.1.4:10512 > 198.51.100.1:443 ack
        dropped        PortReclaimed
        outside sends  tcp 198.51.100.1:443 > 203.0.113.20:1536 syn ack
        dropped        InboundWithoutFlow
        m50 sends      tcp 10.0.1.54:1 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.20:1536 > 198.51.100.1:443 syn
    """)
    waiting = [flow for flow in scenario.flow_list("m0") if flow.awaiting_removal]
    assert len(waiting) == 88
    scenario.play("""
        after          241 s
        flows          m0 none
        ports          m0 203.0.113.20 Tcp used=0
    """)


def test_a_udp_endpoint_whose_port_was_reclaimed_gets_another_with_its_next_datagram() -> None:
    scenario = Scenario(pool(50))
    for number in range(600):
        scenario.play(f"m0 sends udp 10.0.1.4:{10000 + number} > 198.51.100.1:53")
    scenario.play("""
        after          200 s
        m0 sends       udp 10.0.1.4:10599 > 198.51.100.1:53
    """)
    scenario.reconfigure(pool(51))
    scenario.play("""
        after          41 s
        m0 sends       udp 10.0.1.4:10599 > 198.51.100.1:53
        outside sees   udp 203.0.113.20:1024 > 198.51.100.1:53
    """)


def test_shrinking_under_a_tier_grows_allocations_and_touches_no_flow() -> None:
    scenario = Scenario(pool(51))
    fill(scenario, 512)
    before = scenario.flow_list()
    scenario.reconfigure(pool(50))
    assert [f[:11] for f in scenario.flow_list()] == [f[:11] for f in before]
    scenario.play("""
        ports          m0 203.0.113.20 Tcp allocated=1024 used=512 free=512
        m0 sends       tcp 10.0.1.4:20000 > 198.51.100.1:443 syn
        m0 sends       tcp 10.0.1.4:10511 > 198.51.100.1:443 ack
        outside sees   tcp 203.0.113.20:1535 > 198.51.100.1:443 ack
    """)


def test_a_member_that_leaves_keeps_its_live_flows_until_they_end() -> None:
    scenario = Scenario(pool(3))
    scenario.play("m2 sends tcp 10.0.1.6:1 > 198.51.100.1:443 syn")
    scenario.reconfigure(
        pool(2).replace(
            "loadBalancers:", "  - {name: m2, privateIPAddress: 10.0.1.6}\nloadBalancers:"
        )
    )
    scenario.play("""
        m2 sends       tcp 10.0.1.6:1 > 198.51.100.1:443 ack
        outside sees   tcp 203.0.113.20:3072 > 198.51.100.1:443 ack
        m2 sends       tcp 10.0.1.6:2 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.10:1024 > 198.51.100.1:443 syn
    """)


def test_a_vm_that_gets_an_instance_level_public_ip_uses_it_for_new_flows_only() -> None:
    scenario = Scenario(pool(2))
    scenario.play("m0 sends tcp 10.0.1.4:1 > 198.51.100.1:443 syn")
    scenario.reconfigure(
        pool(2)
        .replace("privateIPAddress: 10.0.1.4}", "privateIPAddress: 10.0.1.4, publicIPAddress: own}")
        .replace(
            "publicIPAddresses:\n",
            "publicIPAddresses:\n  - {name: own, ipAddress: 203.0.113.99}\n",
            1,
        )
    )
    scenario.play("""
        m0 sends       tcp 10.0.1.4:1 > 198.51.100.1:443 ack
        outside sees   tcp 203.0.113.20:1024 > 198.51.100.1:443 ack
        m0 sends       tcp 10.0.1.4:2 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.99:2 > 198.51.100.1:443 syn
    """)


def test_a_public_ip_that_is_gone_takes_its_flows_with_it() -> None:
    scenario = Scenario(pool(2))
    scenario.play("10.0.9.9 sends udp 10.0.9.9:5 > 198.51.100.1:53")
    scenario.reconfigure(
        pool(2).replace(
            "  - {name: pip-d, ipAddress: 203.0.113.10}",
            "  - {name: pip-d, ipAddress: 203.0.113.11}",
        )
    )
    scenario.play("""
        outside sends  udp 198.51.100.1:53 > 203.0.113.10:1024
        dropped        PublicAddressUnknown
        10.0.9.9 sends udp 10.0.9.9:5 > 198.51.100.1:53
        outside sees   udp 203.0.113.11:1024 > 198.51.100.1:53
    """)


def test_a_rule_added_in_the_middle_of_an_allocation_moves_only_its_unit() -> None:
    scenario = Scenario(pool(2))
    fill(scenario, 20)
    scenario.reconfigure(pool(2, frontend_port=1030))
    assert allocated(scenario, "m0") == [(1032, 2047), (3072, 3079)]
    scenario.play("""
        m0 sends       tcp 10.0.1.4:10008 > 198.51.100.1:443 ack
        outside sees   tcp 203.0.113.20:1032 > 198.51.100.1:443 ack
        m0 sends       tcp 10.0.1.4:10000 > 198.51.100.1:443 ack
        dropped        PortReclaimed
    """)


def test_an_unchanged_configuration_changes_nothing() -> None:
    scenario = Scenario(pool(60))
    fill(scenario, 100)
    before = scenario.flow_list()
    assert scenario.reconfigure(pool(60)) == []
    assert scenario.flow_list() == before
