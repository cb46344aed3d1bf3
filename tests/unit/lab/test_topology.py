"""The lab's description: names that derive from the lab's, addresses that nobody else has."""

import ipaddress

import pytest

from gateway.lab import topology
from gateway.lab.topology import Lab

DOCUMENTATION = [
    ipaddress.ip_network(prefix) for prefix in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
]


def test_the_default_lab_has_short_names() -> None:
    assert Lab().namespaces == (
        "snatgw-vm1",
        "snatgw-vm2",
        "snatgw-vm3",
        "snatgw-vm4",
        "snatgw-vm5",
        "snatgw-gw",
        "snatgw-internet",
    )


def test_two_labs_share_no_name() -> None:
    one, other = Lab("one"), Lab("other")
    assert not set(one.namespaces) & set(other.namespaces)
    assert one.directory != other.directory
    assert one.etc("vm1") != other.etc("vm1")


@pytest.mark.parametrize("name", ["", "-", "a-", "A", "a/b", "..", "a b", "x" * 25])
def test_names_that_could_reach_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="lab name"):
        Lab(name)


def test_public_addresses_are_documentation_but_for_opendns() -> None:
    others = {
        *topology.INTERNET_ADDRESSES,
        *topology.FRONTENDS,
        topology.WEB_FRONTEND,
        topology.DEFAULT_PUBLIC_IP,
        topology.INSTANCE_LEVEL_PUBLIC_IP,
        topology.GATEWAY_OUTSIDE,
        topology.INTERNET_ROUTER,
    } - {topology.OPENDNS}
    for address in others:
        assert any(ipaddress.ip_address(address) in network for network in DOCUMENTATION), address


def test_every_vm_is_in_its_subnet() -> None:
    for vm in topology.VIRTUAL_MACHINES:
        assert ipaddress.ip_address(vm.address) in ipaddress.ip_network(vm.subnet.prefix)


def test_every_wire_ends_in_a_namespace_of_the_lab() -> None:
    ends = [end for link in topology.links() for end in link]
    assert {end.role for end in ends} == set(topology.ROLES)
    assert len({(end.role, end.name) for end in ends}) == len(ends)
