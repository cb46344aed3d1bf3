"""What a listing says of a flow, field by field: addresses and ports of both sides, and its times."""

from __future__ import annotations

from gateway.schema.records import FlowRecord
from tests.scenario import Scenario, build
from tests.unit.core.snat.test_outbound_methods import NETWORK


def test_a_translated_flow() -> None:
    run = Scenario(NETWORK)
    run.play("""
        vm1 sends      tcp 10.0.1.4:40000 > 198.51.100.201:443 syn
        outside sends  tcp 198.51.100.201:443 > 203.0.113.10:1024 syn ack
        after 3 s
    """)
    (record,) = run.flow_list()
    assert record == FlowRecord(
        id=1, protocol=6, state="Established", direction="Outbound",
        method="DefaultOutboundAccess", vm="vm1", private_ip="10.0.1.4", private_port=40000,
        public_ip="203.0.113.10", public_port=1024, remote_ip="198.51.100.201", remote_port=443,
        packets_out=1, bytes_out=40, packets_in=1, bytes_in=40, age=3.0, idle=3.0,
        expires_in=237.0, awaiting_removal=False, offloaded=False,
    )  # fmt: skip


def test_a_flow_without_ports_and_with_a_key_of_its_own() -> None:
    run = Scenario(NETWORK)
    run.send("vm3", build("echo 10.0.1.6 > 198.51.100.7 id=4660"))
    (record,) = run.flow_list()
    assert (record.protocol, record.public_ip, record.remote_ip) == (
        1, "203.0.113.30", "198.51.100.7",
    )  # fmt: skip
    assert (record.private_port, record.public_port, record.remote_port) == (4660, 4660, 0)


def test_a_flow_within_the_virtual_network_has_no_public_side() -> None:
    run = Scenario(NETWORK)
    run.send("vm1", build("udp 10.0.1.4:1000 > 10.0.1.5:53"), lateral=True)
    (record,) = run.flow_list()
    assert (record.method, record.public_ip, record.remote_ip, record.remote_port) == (
        "VirtualNetwork", None, "10.0.1.5", 53,
    )  # fmt: skip
