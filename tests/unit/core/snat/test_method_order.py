"""A profile with another order of methods: a VM uses its NAT gateway only where that one wins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.core.observe.listings import machine_records
from gateway.core.snat.allocations import Vm
from gateway.model.profile import PROFILES, Method
from gateway.schema.protocols import TCP, UDP
from tests.scenario import Scenario
from tests.unit.core.snat.test_nat_gateway_pool import HEAD, NAT

ORDER = (
    Method.INSTANCE_LEVEL_PUBLIC_IP,
    Method.OUTBOUND_RULE,
    Method.LOAD_BALANCER,
    Method.NAT_GATEWAY,
    Method.DEFAULT_OUTBOUND_ACCESS,
)
ALL = HEAD + NAT.format("n1", "a", "")
TCP_ALONE = ALL.replace("protocol: All", "protocol: Tcp")


@pytest.fixture(autouse=True)
def reordered(monkeypatch: pytest.MonkeyPatch) -> None:
    current = PROFILES["azure-current"]
    monkeypatch.setitem(PROFILES, "azure-current", replace(current, method_order=ORDER))


def vm1(scenario: Scenario) -> Vm:
    return scenario.engine.outbound.peek(bytes([10, 0, 1, 4]))


def foreseen(scenario: Scenario, protocol: int) -> tuple[bytes, int]:
    original = bytes([10, 0, 1, 4, 198, 51, 100, 1]) + (40000).to_bytes(2, "big") + b"\1\xbb"
    found = scenario.engine.lifecycle.allocator.foreseen(vm1(scenario), protocol, original)
    assert isinstance(found, tuple)
    return found[0].address, found[1]


FRONT, SHARED = bytes([203, 0, 113, 20]), bytes([203, 0, 113, 40])


def test_a_method_before_the_nat_gateway_carries_all_flows() -> None:
    scenario = Scenario(ALL)
    assert vm1(scenario).nat_gateway is None
    assert foreseen(scenario, TCP)[0] == foreseen(scenario, UDP)[0] == FRONT
    scenario.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.20:1024 > 198.51.100.1:443 syn
        vm1 sends      udp 10.0.1.4:40000 > 198.51.100.1:443
        outside sees   udp 203.0.113.20:1024 > 198.51.100.1:443
        owner sends    tcp 10.0.1.6:1 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.30:1 > 198.51.100.1:443 syn
    """)


def test_a_protocol_without_that_method_goes_by_the_nat_gateway() -> None:
    scenario = Scenario(TCP_ALONE)
    assert foreseen(scenario, TCP)[0] == FRONT
    udp = foreseen(scenario, UDP)
    assert udp[0] == SHARED
    scenario.play(f"""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.1:443 syn
        outside sees   tcp 203.0.113.20:1024 > 198.51.100.1:443 syn
        vm1 sends      udp 10.0.1.4:40000 > 198.51.100.1:443
        outside sees   udp 203.0.113.40:{udp[1]} > 198.51.100.1:443
    """)
    assert {a.protocol: a.method for a in vm1(scenario).allocations} == {
        TCP: Method.OUTBOUND_RULE,
        UDP: Method.NAT_GATEWAY,
    }


def test_a_reload_moves_new_flows_of_one_protocol_to_the_nat_gateway_and_back() -> None:
    scenario = Scenario(ALL)
    for text, address in ((TCP_ALONE, SHARED), (ALL, FRONT), (TCP_ALONE, SHARED)):
        scenario.reconfigure(text)
        assert foreseen(scenario, UDP)[0] == address
        assert foreseen(scenario, TCP)[0] == FRONT
        methods = [(a.protocol, a.address) for a in vm1(scenario).allocations]
        assert sorted(methods) == [(TCP, FRONT), (UDP, address)]


def test_its_timeouts_are_those_of_the_method_that_carries_its_flows() -> None:
    scenario = Scenario(
        TCP_ALONE.replace("protocol: Tcp", "protocol: Tcp, idleTimeoutInMinutes: 7")
    )
    engine = scenario.engine
    (record,) = machine_records(engine.configuration, [vm1(scenario)])
    assert record.tcp_idle_timeouts == (420.0, 420.0)
    assert record.nat_gateway == "nat"
