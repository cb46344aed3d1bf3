"""What takes long is done in slices, or not at all: packets wait for none of it."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from gateway.core.flows.table import FlowTable
from gateway.core.observe import listings as reporting
from gateway.core.snat.port_pool import SLICE, PortPool
from gateway.schema.protocols import UDP
from tests.scenario import Scenario

VMS = 8
TEXT = """
gateway: {inside: [lan0], outside: wan0}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{name: vms, addressPrefix: 10.0.1.0/24}]
publicIPAddresses: [{name: pip, ipAddress: 203.0.113.10}, {name: own, ipAddress: 203.0.113.30}]
defaultOutboundAccess: {publicIPAddresses: [pip]}
virtualMachines: [{name: vm0, privateIPAddress: 10.0.1.200%s}]
"""


def test_many_pools_of_few_destinations_are_as_long_as_one_of_many() -> None:
    engine = Scenario(TEXT % "").engine
    for vm in range(VMS):
        machine = engine.outbound.machine(IPv4Address(f"10.0.1.{10 + vm}").packed)
        assert machine is not None
        pool = machine.allocations[1].pools[UDP]
        assert isinstance(pool, PortPool)
        for number in range(SLICE // 2):  # none of them is long enough for a slice of its own
            pool.take(IPv4Address(int(IPv4Address("198.18.0.0")) + number).packed)
    listed = list(reporting.port_records(engine.outbound))
    assert listed.count(None) == VMS // 2
    assert sum(record.used for record in listed if record is not None) == VMS


def test_a_reload_looks_at_every_flow_only_where_an_address_went_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scenario = Scenario(TEXT % "")
    walks: list[Any] = []
    whole = FlowTable.walk

    def walk(*given: Any) -> Any:
        walks.append(given)
        return whole(*given)

    monkeypatch.setattr(FlowTable, "walk", walk)
    scenario.reconfigure(TEXT % "")
    assert not walks
    scenario.reconfigure(TEXT % ", publicIPAddress: own")
    assert len(walks) == 1
