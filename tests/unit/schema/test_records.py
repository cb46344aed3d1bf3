"""A VM's record answers by which method its flows of a protocol go out."""

from __future__ import annotations

import marshal

import pytest

from gateway.schema.records import MachineRecord
from tests.unit.daemon.serving import flow, pool


def machine(tcp: str | None, udp: str | None) -> MachineRecord:
    return MachineRecord(
        "vm1", "10.0.1.4", tcp, udp, (("203.0.113.10", 1024),), None, (), (), None,
        (240.0, 240.0), 240.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tcp", "udp", "method", "of_icmp"),
    [
        ("LoadBalancer", "LoadBalancer", "LoadBalancer", "LoadBalancer"),
        (None, "OutboundRule", "OutboundRule", None),
        ("OutboundRule", None, "OutboundRule", "OutboundRule"),
        (None, None, None, None),
    ],
)
def test_what_is_not_udp_goes_out_as_tcp_does(
    tcp: str | None, udp: str | None, method: str | None, of_icmp: str | None
) -> None:
    record = machine(tcp, udp)
    assert record.method == method
    assert [record.method_of(name) for name in ("Tcp", "Udp", "Icmp")] == [tcp, udp, of_icmp]


def test_records_cross_the_channel_as_plain_values() -> None:
    for record in (machine("LoadBalancer", None), flow(1), pool("vm1")):
        assert marshal.loads(marshal.dumps(tuple(record))) == tuple(record)
