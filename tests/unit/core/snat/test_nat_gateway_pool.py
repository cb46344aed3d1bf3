"""NAT gateways: who goes out by one, on which ports, for how long (docs/fidelity.md A1, A2, A4)."""

from __future__ import annotations

from ipaddress import IPv4Address
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.explain import explain_outbound
from gateway.core.snat.nat_gateway_pool import NatGatewayPool, VmNatUsage, choose
from gateway.schema.protocols import TCP
from tests.scenario import Scenario
from tests.unit.core.test_closed_frontends import GROUP

HEAD = """
gateway: {inside: [lan0], outside: wan0, profile: azure-current}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {name: a, addressPrefix: 10.0.1.0/24}
    - {name: b, addressPrefix: 10.0.2.0/24}
publicIPAddresses:
  - {name: n1, ipAddress: 203.0.113.40}
  - {name: n2, ipAddress: 203.0.113.41}
  - {name: own, ipAddress: 203.0.113.30}
  - {name: front, ipAddress: 203.0.113.20}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.1.5}
  - {name: owner, privateIPAddress: 10.0.1.6, publicIPAddress: own}
  - {name: other, privateIPAddress: 10.0.2.4}
loadBalancers:
  - name: lb
    sku: Standard
    frontendIPConfigurations: [{name: fe, publicIPAddress: front}]
    backendAddressPools: [{name: pool, virtualMachines: [vm1]}]
    outboundRules:
      - {name: out, frontendIPConfigurations: [fe], backendAddressPool: pool, protocol: All}
"""
NAT = "natGateways:\n  - {{name: nat, publicIPAddresses: [{}], subnets: [{}]{}}}\n"
ONE = HEAD + NAT.format("n1", "a", "")


def opened(scenario: Scenario, packet: str) -> tuple[str, int]:
    """A packet that opens a flow: the public address and port that it left from."""
    who = scenario.parties.owner(packet.split()[1].partition(":")[0])
    scenario.play(f"{who} sends {packet}")
    seen = scenario.verdict
    assert seen is not None, scenario.reason()
    return str(IPv4Address(seen[12:16])), int.from_bytes(seen[20:22], "big")


def test_a_nat_gateway_wins_over_everything_for_all_vms_of_its_subnets() -> None:
    scenario = Scenario(ONE)
    for vm in ("10.0.1.4", "10.0.1.6", "10.0.1.77"):
        for protocol in ("tcp", "udp"):
            syn = " syn" if protocol == "tcp" else ""
            public, port = opened(scenario, f"{protocol} {vm}:5 > 198.51.100.1:443{syn}")
            assert public == "203.0.113.40"
            assert 1024 <= port <= 65535
    assert {flow.method for flow in scenario.flow_list()} == {"NatGateway"}
    scenario.play("""
        other sends    tcp 10.0.2.4:5 > 198.51.100.1:443 syn
        dropped        NoOutboundMethod
        ports          vm1 203.0.113.40 Tcp method=NatGateway allocated=64512 used=1 free=64509
        ports          10.0.1.77 203.0.113.40 Udp used=1
    """)


def test_answers_come_back_and_nothing_else_does() -> None:
    scenario = Scenario(ONE)
    _, port = opened(scenario, "tcp 10.0.1.4:5 > 198.51.100.1:443 syn")
    scenario.play(f"""
        outside sends  tcp 198.51.100.1:443 > 203.0.113.40:{port} syn ack
        vm1 sees       tcp 198.51.100.1:443 > 10.0.1.4:5 syn ack
        outside sends  tcp 198.51.100.1:444 > 203.0.113.40:{port} syn
        dropped        InboundWithoutFlow
        vm1 sends      echo 10.0.1.4 > 198.51.100.1 id=1
        dropped        IcmpEchoThroughSnat
    """)


def test_an_instance_level_public_ip_behind_a_nat_gateway_is_for_inbound_flows() -> None:
    Scenario(
        ONE.replace("publicIPAddress: own}", "publicIPAddress: own, networkSecurityGroup: open}")
        + GROUP
    ).play("""
        outside sends  tcp 198.51.100.1:9 > 203.0.113.30:22 syn
        owner sees     tcp 198.51.100.1:9 > 10.0.1.6:22 syn
        owner sends    tcp 10.0.1.6:22 > 198.51.100.1:9 syn ack
        outside sees   tcp 203.0.113.30:22 > 198.51.100.1:9 syn ack
    """)


def test_ports_are_random_among_the_free_ones() -> None:
    ports = [
        opened(Scenario(ONE, seed=seed), "tcp 10.0.1.4:5 > 198.51.100.1:443 syn")[1]
        for seed in range(20)
    ]
    assert len(set(ports)) > 15
    scenario = Scenario(ONE)
    taken = [
        opened(scenario, f"tcp 10.0.1.4:{n} > 198.51.100.{1 + n % 2}:443 syn")[1]
        for n in range(1, 300)
    ]
    assert len(set(taken)) == len(taken)  # none is reused while others are free


def test_several_addresses_are_used_alike() -> None:
    scenario = Scenario(HEAD + NAT.format("n1, n2", "a", ""))
    publics = [opened(scenario, f"udp 10.0.1.4:{n} > 198.51.100.1:443")[0] for n in range(1, 200)]
    assert 70 < publics.count("203.0.113.40") < 130


# -- ports


def shared(count: int) -> tuple[NatGatewayPool, VmNatUsage, VmNatUsage]:
    ports = NatGatewayPool(1024, count)
    return ports, VmNatUsage(b"addr", ports, 240.0), VmNatUsage(b"addr", ports, 240.0)


A, B = b"\1\1\1\1\0\1", b"\2\2\2\2\0\1"


def test_used_ports_serve_other_destinations_when_none_is_free() -> None:
    random = Random(1)
    ports, one, two = shared(64)
    first = {one.take(A, random) for _ in range(64)}
    assert first == set(range(1024, 1088))
    assert (ports.free, one.free_toward(A), one.free_toward(B)) == (0, 0, 64)
    assert one.take(A, random) == two.take(A, random) == 0
    assert {two.take(B, random) for _ in range(64)} == first
    assert two.take(B, random) == 0
    one.release(A, 1030)
    assert ports.free == 0  # somebody still holds it, toward B
    assert two.take(A, random) == 1030
    assert (one.used, two.used, ports.held) == (63, 65, 128)


@given(
    st.sampled_from([1, 3, 8, 40]),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.booleans()), max_size=400),
)
@settings(max_examples=200, deadline=None)
def test_shared_ports_against_a_model(count: int, steps: list[tuple[int, int, bool]]) -> None:
    """Free ports first; never one twice toward a destination; refused only when there is none."""
    random = Random(5)
    ports, *shares = shared(count)
    held: list[tuple[VmNatUsage, bytes, int]] = []
    for to, who, take in steps:
        destination, share = bytes((to,)) * 6, shares[who]
        if take or not held:
            toward = {port for _, d, port in held if d == destination}
            anybody = {port for _, _, port in held}
            port = share.take(destination, random)
            if not port:
                assert len(toward) == count
                continue
            assert port not in toward
            assert port not in anybody or len(anybody) == count
            held.append((share, destination, port))
        else:
            owner, destination, port = held.pop(random.randrange(len(held)))
            owner.release(destination, port)
        assert ports.free == count - len({port for _, _, port in held})
        assert ports.held == sum(share.used for share in shares) == len(held)
        for number in range(3):
            destination = bytes((number,)) * 6
            toward = {port for _, d, port in held if d == destination}
            assert ports.free_toward(destination) == count - len(toward)


def test_a_destination_of_many_ports_is_filled_to_the_last() -> None:
    random = Random(2)
    ports, one, two = shared(1000)
    for _ in range(1000):
        assert one.take(A, random)
    taken = [two.take(B, random) for _ in range(1000)]  # from in-use ones, past the sparse form
    assert len(set(taken)) == 1000
    assert two.take(B, random) == 0
    for port in taken:
        two.release(B, port)
    assert (ports.free, ports.held, two.free_toward(B)) == (0, 1000, 1000)


def test_the_choice_among_addresses_prefers_free_ports() -> None:
    random = Random(3)
    _, full, _ = shared(8)
    _, roomy, _ = shared(8)
    for _ in range(8):
        full.take(A, random)
    assert {choose([full, roomy], B, random) for _ in range(50)} == {1}
    for _ in range(8):
        roomy.take(A, random)
    assert {choose([full, roomy], B, random) for _ in range(50)} == {0, 1}
    assert choose([full, roomy], A, random) == -1


# -- times


def established(yaml: str = ONE) -> tuple[Scenario, int]:
    scenario = Scenario(yaml)
    _, port = opened(scenario, "tcp 10.0.1.4:5 > 198.51.100.1:443 syn")
    scenario.play(f"""
        outside sends  tcp 198.51.100.1:443 > 203.0.113.40:{port} syn ack
        vm1 sends      tcp 10.0.1.4:5 > 198.51.100.1:443 ack
    """)
    return scenario, port


def test_a_half_open_flow_is_closed_after_30_seconds() -> None:
    scenario = Scenario(ONE)
    opened(scenario, "tcp 10.0.1.4:5 > 198.51.100.1:443 syn")
    scenario.play("""
        after          29.9 s
        flows          vm1 state=Opening
        after          0.5 s
        flows          vm1 none
        ports          vm1 203.0.113.40 Tcp used=0 free=64512
    """)


def test_an_answered_flow_has_the_idle_timeout() -> None:
    scenario, _ = established()
    scenario.play("""
        after          239 s
        flows          vm1 state=Established
        after          1.5 s
        flows          vm1 none
        ports          vm1 203.0.113.40 Tcp used=0
    """)


def test_the_idle_timeout_is_the_gateways_for_tcp_and_four_minutes_for_udp() -> None:
    scenario, _ = established(HEAD + NAT.format("n1", "a", ", idleTimeoutInMinutes: 120"))
    scenario.play("vm1 sends udp 10.0.1.4:6 > 198.51.100.1:53")
    scenario.play("""
        after          241 s
        flows          vm1 198.51.100.1:53 state=CoolDown
        flows          vm1 198.51.100.1:443 state=Established
        after          6950 s
        flows          vm1 198.51.100.1:443 state=Established
        after          10 s
        flows          vm1 none
    """)


def test_one_fin_changes_nothing_and_after_both_the_port_is_held_for_65_seconds() -> None:
    scenario, port = established()
    scenario.play(f"""
        vm1 sends      tcp 10.0.1.4:5 > 198.51.100.1:443 fin ack
        after          230 s
        flows          vm1 state=Closing
        outside sends  tcp 198.51.100.1:443 > 203.0.113.40:{port} fin ack
        flows          vm1 state=CoolDown expires_in=65.0
        after          64.9 s
        ports          vm1 203.0.113.40 Tcp used=1 cooling=1
        after          0.4 s
        ports          vm1 203.0.113.40 Tcp used=0 cooling=0
    """)


@pytest.mark.parametrize("side", ["vm1", "outside"])
def test_after_an_rst_the_port_is_held_for_16_seconds(side: str) -> None:
    scenario, port = established()
    packets = {
        "vm1": "tcp 10.0.1.4:5 > 198.51.100.1:443 rst",
        "outside": f"tcp 198.51.100.1:443 > 203.0.113.40:{port} rst",
    }
    scenario.play(f"""
        {side} sends   {packets[side]}
        after          15.9 s
        flows          vm1 state=CoolDown
        after          0.4 s
        flows          vm1 none
    """)


def test_a_udp_port_is_held_for_65_seconds_after_the_flow_was_idle() -> None:
    scenario = Scenario(ONE)
    _, port = opened(scenario, "udp 10.0.1.4:5 > 198.51.100.1:53")
    scenario.play(f"""
        after          240.3 s
        flows          vm1 state=CoolDown
        ports          vm1 203.0.113.40 Udp used=1 cooling=1
        outside sends  udp 198.51.100.1:53 > 203.0.113.40:{port}
        dropped        InboundWithoutFlow
    """)
    _, another = opened(scenario, "udp 10.0.1.4:5 > 198.51.100.1:53")
    assert another != port
    scenario.play("""
        after          65 s
        ports          vm1 203.0.113.40 Udp used=1 cooling=0
        flows          vm1 state=Opening
    """)


def test_a_held_port_serves_other_destinations_but_not_its_own() -> None:
    scenario, port = established()
    (share,) = (
        a.pools[TCP]
        for a in scenario.engine.outbound.machines[IPv4Address("10.0.1.4").packed].allocations
        if TCP in a.pools
    )
    assert isinstance(share, VmNatUsage)
    scenario.play("vm1 sends tcp 10.0.1.4:5 > 198.51.100.1:443 rst")
    # Another destination takes all ports, so that only used ones are left.
    random = Random(1)
    other = b"\1\2\3\4\0\1"
    while share.shared.free:
        share.take(other, random)
    toward = IPv4Address("198.51.100.1").packed + (443).to_bytes(2, "big")
    assert share.free_toward(toward) == 64511
    got = {opened(scenario, f"tcp 10.0.1.5:{n} > 198.51.100.1:443 syn")[1] for n in range(1, 50)}
    assert port not in got
    scenario.play("after 17 s")
    assert share.free_toward(toward) == 64512 - 49


# -- changes


def test_attaching_keeps_flows_on_their_old_address() -> None:
    scenario = Scenario(HEAD)
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:5 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.20:1024 > 198.51.100.1:443 syn
        outside sends  tcp 198.51.100.1:443 > 203.0.113.20:1024 syn ack
        owner sends    tcp 10.0.1.6:5 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.30:5 > 198.51.100.1:443 syn
    """)
    changes = scenario.reconfigure(ONE)
    assert (
        "virtual machine vm1: 10.0.1.4 by OutboundRule -> 10.0.1.4 by NatGateway (nat)" in changes
    )
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:5 > 198.51.100.1:443 ack
        outside sees   tcp 203.0.113.20:1024 > 198.51.100.1:443 ack
        owner sends    tcp 10.0.1.6:5 > 198.51.100.1:443 ack
        outside sees   tcp 203.0.113.30:5 > 198.51.100.1:443 ack
    """)
    assert opened(scenario, "tcp 10.0.1.4:6 > 198.51.100.1:443 syn")[0] == "203.0.113.40"
    assert opened(scenario, "tcp 10.0.1.6:6 > 198.51.100.1:443 syn")[0] == "203.0.113.40"


def test_detaching_keeps_flows_until_they_end() -> None:
    scenario, port = established()
    scenario.reconfigure(HEAD + NAT.format("n1", "b", ""))
    scenario.play(f"""
        vm1 sends      tcp 10.0.1.4:5 > 198.51.100.1:443 ack
        outside sees   tcp 203.0.113.40:{port} > 198.51.100.1:443 ack
        vm1 sends      tcp 10.0.1.4:6 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.20:1024 > 198.51.100.1:443 syn
    """)
    assert opened(scenario, "tcp 10.0.2.4:6 > 198.51.100.1:443 syn")[0] == "203.0.113.40"
    scenario.play("after 241 s")
    scenario.reconfigure(HEAD + NAT.format("n1", "b", ""))
    assert scenario.ports("vm1", "203.0.113.40", "Tcp") is None


def test_an_address_that_goes_elsewhere_takes_its_flows_along() -> None:
    scenario, port = established(HEAD + NAT.format("n1", "a", ""))
    scenario.reconfigure(HEAD + NAT.format("n2", "a", ""))
    scenario.play(f"""
        vm1 sends      tcp 10.0.1.4:5 > 198.51.100.1:443 ack
        dropped        PortReclaimed
        outside sends  tcp 198.51.100.1:443 > 203.0.113.40:{port} ack
        dropped        InboundWithoutFlow
    """)
    assert opened(scenario, "tcp 10.0.1.4:6 > 198.51.100.1:443 syn")[0] == "203.0.113.41"


def test_vms_that_the_file_does_not_name_are_forgotten_with_their_last_flow() -> None:
    scenario = Scenario(ONE)
    outbound = scenario.engine.outbound
    before = len(outbound.machines)
    for number in range(50):
        opened(scenario, f"tcp 10.0.1.{100 + number}:5 > 198.51.100.1:443 syn")
    assert len(outbound.machines) == before + 50
    scenario.play("after 31 s")
    assert len(outbound.machines) == before
    assert len(outbound.addresses[IPv4Address("203.0.113.40").packed].shares) == 3


def test_a_flood_of_forged_sources_is_not_remembered() -> None:
    scenario = Scenario(ONE)
    before = len(scenario.engine.outbound.machines)
    for number in range(50):
        scenario.play(f"10.0.1.{100 + number} sends echo 10.0.1.{100 + number} > 198.51.100.1 id=1")
        assert scenario.verdict is None
    assert len(scenario.engine.outbound.machines) == before


def test_explain_names_every_address_with_its_ports() -> None:
    scenario = Scenario(HEAD + NAT.format("n1, n2", "a", ""))
    for vm in ("10.0.1.4", "10.0.1.200"):
        told = explain_outbound(
            scenario.engine, IPv4Address(vm), "Tcp", IPv4Address("198.51.100.1"), 443, None
        )
        assert (told["verdict"], told["method"]) == ("Allow", "NatGateway")
        assert told["candidates"] == [
            {"publicIp": f"203.0.113.{n}", "portsFree": 64512} for n in (40, 41)
        ]
