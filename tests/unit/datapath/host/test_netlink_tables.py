"""What is asked of the kernel's tables."""

from __future__ import annotations

import errno
import os
import socket
import struct
from struct import unpack_from

import pytest

from gateway.datapath.host import netlink
from gateway.datapath.host.addresses_and_routes import ROUTE_PROTOCOL
from gateway.datapath.host.netlink import attributes
from gateway.datapath.host.netlink_tables import routes_request


def test_a_dump_of_routes_names_whose_they_are_and_the_table() -> None:
    request = routes_request(ROUTE_PROTOCOL, 254)
    assert request[5] == ROUTE_PROTOCOL
    (value,) = unpack_from("=I", attributes(request[12:])[15])  # RTA_TABLE
    assert value == 254


def test_a_dump_that_ends_with_an_error_is_not_taken_for_a_whole_one() -> None:
    """The kernel tells in the message that ends it: length, kind, flags, serial, port; number."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with netlink.Kernel() as kernel, theirs:
        kernel._socket.close()
        kernel._socket = ours
        for serial, number in ((1, -errno.ENOMEM), (2, 0)):
            theirs.send(struct.pack("=IHHII", 18, 26, 2, serial, 0) + b"ab\0\0")
            theirs.send(struct.pack("=IHHIIi", 20, 3, 2, serial, 0, number))
        with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
            list(kernel.request(26, netlink.DUMP, b""))
        assert list(kernel.request(26, netlink.DUMP, b"")) == [b"ab"]
