"""What is asked of the kernel's tables."""

from __future__ import annotations

from struct import unpack_from

from gateway.datapath.host.addresses_and_routes import ROUTE_PROTOCOL
from gateway.datapath.host.netlink import attributes
from gateway.datapath.host.netlink_tables import routes_request


def test_a_dump_of_routes_names_whose_they_are_and_the_table() -> None:
    request = routes_request(ROUTE_PROTOCOL, 254)
    assert request[5] == ROUTE_PROTOCOL
    (value,) = unpack_from("=I", attributes(request[12:])[15])  # RTA_TABLE
    assert value == 254
