"""Which method takes a VM out: what it has, in the profile's order (docs/fidelity.md A1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.model.profile import PROFILES, Method
from gateway.model.resolved.outbound_methods import (
    OutboundMethods,
    method_of,
    outbound_methods,
    programmed,
)
from tests.unit.model.files import LOAD_BALANCED, changed, configuration

AZURE_2017, CURRENT = PROFILES["azure-2017"], PROFILES["azure-current"]
BOTH = frozenset({"Tcp", "Udp"})
EVERYTHING = OutboundMethods("nat", "pip", BOTH, BOTH, default=True)


def test_one_method_after_the_other_as_the_first_is_taken_away() -> None:
    have, order = EVERYTHING, []
    without = {
        Method.NAT_GATEWAY: {"nat_gateway": None},
        Method.INSTANCE_LEVEL_PUBLIC_IP: {"instance": None},
        Method.OUTBOUND_RULE: {"outbound_rules": frozenset[str]()},
        Method.LOAD_BALANCER: {"frontends": frozenset[str]()},
        Method.DEFAULT_OUTBOUND_ACCESS: {"default": False},
    }
    while (method := method_of(CURRENT, have, "Tcp")) is not None:
        order.append(method)
        have = replace(have, **without[method])  # type: ignore[arg-type]
    assert order == list(without)
    assert method_of(CURRENT, have, "Udp") is None


def test_what_2017_did_not_know_takes_nobody_out_there() -> None:
    assert method_of(AZURE_2017, EVERYTHING, "Tcp") is Method.INSTANCE_LEVEL_PUBLIC_IP
    have = OutboundMethods("nat", None, BOTH, frozenset(), default=False)
    assert method_of(AZURE_2017, have, "Tcp") is None


def test_a_rule_of_one_protocol_takes_that_one_out() -> None:
    have = OutboundMethods(frontends=frozenset({"Udp"}))
    assert method_of(CURRENT, have, "Udp") is Method.LOAD_BALANCER
    assert method_of(CURRENT, have, "Tcp") is None


@pytest.mark.parametrize(
    ("protocol", "in_2017", "today"),
    [("Tcp", BOTH, {"Tcp"}), ("Udp", BOTH, {"Udp"}), ("All", BOTH, BOTH)],
)
def test_a_basic_rule_programmed_both_protocols(
    protocol: str, in_2017: set[str], today: set[str]
) -> None:
    assert set(programmed(AZURE_2017, protocol)) == in_2017
    assert set(programmed(CURRENT, protocol)) == today


def test_what_each_vm_of_a_file_has() -> None:
    assert outbound_methods(configuration(LOAD_BALANCED), AZURE_2017) == {
        "vm1": OutboundMethods(frontends=BOTH, default=True),
        "vm2": OutboundMethods(instance="pip-vm2", frontends=BOTH, default=True),
        "vm3": OutboundMethods(default=True),
    }


def test_a_rule_that_disables_snat_gives_none() -> None:
    text = changed(
        "frontendPort: 80, backendPort: 80}",
        "frontendPort: 80, backendPort: 80, disableOutboundSnat: true}",
    )
    text = changed("outside: wan0", "outside: wan0\n  profile: azure-current", text)
    text = changed("name: lb\n", "name: lb\n    sku: Standard\n", text)
    methods = outbound_methods(configuration(text), CURRENT)
    # Its subnet does not say that it has default outbound access, and a Standard pool's VM has none.
    assert methods["vm1"] == OutboundMethods()
    assert methods["vm3"] == OutboundMethods()


def test_a_nat_gateway_serves_the_vms_of_its_subnets() -> None:
    text = changed("outside: wan0", "outside: wan0\n  profile: azure-current")
    text = changed(
        "defaultOutboundAccess: {publicIPAddresses: [pip-d]}",
        "natGateways: [{name: nat, publicIPAddresses: [pip-d], subnets: [web]}]",
        changed("name: lb\n", "name: lb\n    sku: Standard\n", text),
    )
    methods = outbound_methods(configuration(text), CURRENT)
    assert {name: of.nat_gateway for name, of in methods.items()} == dict.fromkeys(
        ("vm1", "vm2", "vm3"), "nat"
    )
