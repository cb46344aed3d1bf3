"""A VM's allocations: for which protocols, on which ports, and which one it goes out by."""

from __future__ import annotations

import pytest

from gateway.core.snat.allocations import PortAllocation, PublicAddress
from gateway.core.snat.plan import FlowPolicy
from gateway.model.profile import Method
from gateway.schema.protocols import ICMP, TCP, UDP
from tests.unit.core.flows.making import PUBLIC, REMOTE, vm

TERMS = FlowPolicy(Method.OUTBOUND_RULE, 240.0, "loadBalancers/lb")


def own(protocol: int = TCP, *ranges: range) -> PortAllocation:
    return PortAllocation.own(vm(), PUBLIC, protocol, TERMS, ranges or [range(1024, 1032)])


@pytest.mark.parametrize(("protocol", "carried"), [(TCP, {TCP, ICMP}), (UDP, {UDP})])
def test_an_echo_has_identifiers_from_tcps_ports(protocol: int, carried: set[int]) -> None:
    assert own(protocol).pools.keys() == carried


def test_ranges_that_touch_are_one_and_are_counted_for_the_allocations_protocol() -> None:
    allocation = own(TCP, range(1032, 1040), range(1024, 1032), range(2048, 2056))
    assert allocation.ranges == (range(1024, 1040), range(2048, 2056))
    assert allocation.count == 24
    assert allocation.method is Method.OUTBOUND_RULE


def test_one_port_of_any_protocol_is_use() -> None:
    allocation = own()
    assert not allocation.in_use
    assert allocation.pools[ICMP].take_exactly(REMOTE, 1030)
    assert allocation.in_use
    allocation.pools[ICMP].release(REMOTE, 1030)
    assert not allocation.in_use


def test_an_allocation_that_moves_has_all_its_pools_on_the_new_ports() -> None:
    allocation = own()
    allocation.relocate((range(4096, 4100),))
    assert allocation.ranges == (range(4096, 4100),)
    assert {pool.ranges for pool in allocation.pools.values()} == {(range(4096, 4100),)}
    assert allocation.count == 4


@pytest.mark.parametrize(
    ("tcp", "udp", "method", "of_icmp"),
    [
        (Method.NAT_GATEWAY, Method.NAT_GATEWAY, Method.NAT_GATEWAY, Method.NAT_GATEWAY),
        (None, Method.OUTBOUND_RULE, Method.OUTBOUND_RULE, None),
        (Method.OUTBOUND_RULE, None, Method.OUTBOUND_RULE, Method.OUTBOUND_RULE),
        (None, None, None, None),
    ],
)
def test_what_is_not_udp_goes_out_as_tcp_does(
    tcp: Method | None, udp: Method | None, method: Method | None, of_icmp: Method | None
) -> None:
    machine = vm()
    machine.tcp, machine.udp = tcp, udp
    assert machine.method is method
    assert machine.method_of(TCP) is tcp
    assert machine.method_of(UDP) is udp
    assert machine.method_of(ICMP) is of_icmp


def test_a_public_ip_knows_what_a_vm_has_on_it_for_a_protocol() -> None:
    public, elsewhere = PublicAddress(PUBLIC), PublicAddress(bytes((203, 0, 113, 11)))
    tcp, udp = own(TCP), own(UDP)
    machine = vm()
    machine.allocations = [tcp, udp]
    assert public.allocation(machine, TCP) is tcp
    assert public.allocation(machine, UDP) is udp
    assert public.allocation(machine, ICMP) is None
    assert elsewhere.allocation(machine, TCP) is None
    assert str(public) == "203.0.113.10"


def test_new_flows_get_ports_of_allocations_and_shares_and_not_of_retired_ones() -> None:
    public, own_ports, share, retired = PublicAddress(PUBLIC), own(), own(UDP), own()
    public.allocations = [own_ports]
    public.shares = {vm(): [share]}
    public.retired = [retired]
    assert public.current == [own_ports, share]
