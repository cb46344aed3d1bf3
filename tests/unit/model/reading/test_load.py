"""Reading: what a good file becomes, and one clear line for what is no configuration at all."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import get_args

import pytest

from gateway.model import Configuration, Loaded, load, load_text
from gateway.model.checks.inbound_rules import threshold
from gateway.model.configuration import NatGateway, OutboundRule, Resource
from gateway.model.profile import AZURE_2017
from gateway.model.reading.load import Interfaces
from tests.unit.model.files import LOAD_BALANCED, MINIMAL, changed, configuration, errors

REFUSED = (NatGateway, OutboundRule)  # not described while refused

CONTRACT = """\
gateway:
  profile: azure-2017            # azure-2017 | azure-current
  inside: [lan0]
  outside: wan0
  fastPath: auto
  stateDirectory: /var/lib/snatgw
  timeScale: 1
  maximumFlows: 1000000
  icmpEcho: drop
  internetAddressPrefixes: []
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets:
    - {name: web, addressPrefix: 10.0.1.0/24}
publicIPAddresses:
  - {name: pip-a, ipAddress: 203.0.113.10}
  - {name: pip-d, ipAddress: 203.0.113.11}
  - {name: pip-vm2, ipAddress: 203.0.113.12}
defaultOutboundAccess: {publicIPAddresses: [pip-d]}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm2, privateIPAddress: 10.0.1.5, publicIPAddress: pip-vm2}
loadBalancers:
  - name: lb
    sku: Basic
    frontendIPConfigurations: [{name: fe1, publicIPAddress: pip-a}]
    backendAddressPools: [{name: pool, virtualMachines: [vm1]}]
    probes: [{name: p, protocol: Http, port: 80, requestPath: /health, intervalInSeconds: 15, probeThreshold: 2}]
    loadBalancingRules:
      - {name: web, frontendIPConfiguration: fe1, backendAddressPool: pool, probe: p, protocol: Tcp, frontendPort: 80,
         backendPort: 80, loadDistribution: Default, idleTimeoutInMinutes: 4, enableTcpReset: false, disableOutboundSnat: false}
    inboundNatRules: [{name: ssh1, frontendIPConfiguration: fe1, protocol: Tcp, frontendPort: 50001, virtualMachine: vm1, backendPort: 22}]
"""


def test_the_contract_example_loads() -> None:
    loaded = load_text(CONTRACT, "contract.yaml")
    assert loaded.problems == ()
    assert loaded.configuration is not None
    gateway = loaded.configuration.gateway
    assert gateway.inside == ("lan0",)
    assert gateway.state_directory == Path("/var/lib/snatgw")
    assert gateway.http is None
    assert loaded.configuration.virtual_network.address_prefixes == (IPv4Network("10.0.0.0/16"),)
    balancer = loaded.configuration.load_balancers[0]
    assert balancer.load_balancing_rules[0].idle_timeout == 240.0
    assert threshold(balancer.probes[0], AZURE_2017) == 2


def test_defaults() -> None:
    read = configuration(MINIMAL)
    assert read.profile.name == "azure-2017"
    assert read.gateway.time_scale == 1.0
    assert read.gateway.maximum_flows == 1_000_000
    assert read.gateway.icmp_echo == "drop"
    assert read.gateway.fast_path == "auto"
    assert read.default_outbound_access.public_ip_addresses == ()


def test_look_ups() -> None:
    read = configuration(LOAD_BALANCED)
    assert read.public_ip("pip-a").ip_address == IPv4Address("203.0.113.10")
    assert read.public_ip("pip-a").idle_timeout == 240.0
    assert read.virtual_machine("vm2").public_ip_address == "pip-vm2"
    subnet = read.subnet_of(IPv4Address("10.0.1.200"))
    assert subnet is not None
    assert subnet.name == "web"
    assert read.subnet_of(IPv4Address("10.0.2.1")) is None
    with pytest.raises(KeyError):
        read.public_ip("pip-x")


@pytest.mark.parametrize("text", [MINIMAL, LOAD_BALANCED, CONTRACT])
def test_json_reads_back_as_the_same(text: str) -> None:
    read = configuration(text)
    again = Configuration.model_validate_json(read.to_json())
    assert again == read
    assert hash(again.gateway) == hash(read.gateway)
    assert load_text(read.to_json(), "canonical.json").configuration == read


def test_a_configuration_that_was_asked_something_is_still_the_same() -> None:
    asked = configuration(LOAD_BALANCED)
    asked.public_ip("pip-a")
    assert asked == configuration(LOAD_BALANCED)


def test_the_result_reads_back_with_its_problems() -> None:
    loaded = load_text(changed("10.0.1.4", "10.0.9.4"), "test.yaml")
    assert loaded.configuration is None
    assert Loaded.model_validate_json(loaded.to_json()) == loaded


def test_keys_with_nothing_behind_them_count_as_not_written() -> None:
    assert configuration(MINIMAL + "loadBalancers:\nvirtualMachines:\n") == configuration(MINIMAL)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("auto", "auto"), ("off", "off"), ("'off'", "off")],
)
def test_off_is_a_word_not_a_boolean(written: str, meant: str) -> None:
    text = changed("outside: wan0", f"outside: wan0\n  fastPath: {written}")
    assert configuration(text).gateway.fast_path == meant


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("- a\n- b\n", "is a list"),
        ("just words", "is a single value"),
        ("gateway: [1, 2", "not YAML"),
        ("gateway:\n\tinside: x\n", "not YAML"),
        ("a: \x00", "not YAML"),
        ("a: &x 1\nb: *x\n", "a: anchors and aliases"),
        ("a: !!python/object:os.system {}\n", "a: tags are not accepted"),
        ("? [a, b]\n: c\n", "a key must be a word"),
        ("---\na: 1\n---\nb: 2\n", "more than one YAML document"),
        ("a: " + "[" * 60 + "]" * 60, "nested too deeply"),
        ("[" * 100_000, "n"),
    ],
)
def test_what_is_no_configuration_gets_one_line(text: str, line: str) -> None:
    loaded = load_text(text, "test.yaml")
    assert loaded.configuration is None
    assert len(loaded.problems) == 1
    shown = str(loaded.problems[0])
    assert "\n" not in shown
    assert f": {line}" in shown


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 64)
    )
    assert errors(bomb) == ["1: a0: anchors and aliases (& and *) are not accepted here"]


def test_a_duplicate_key_names_both_lines() -> None:
    text = MINIMAL + "gateway: {inside: [x], outside: y}\n"
    assert errors(text) == ["8: gateway: duplicate key; the first one is on line 1"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    absent = tmp_path / "absent.yaml"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"gateway:\n\x80\x81")
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(9 * 1024 * 1024)
    cases = {
        absent: "there is no such file",
        tmp_path: "is a directory",
        binary: "is not a text file",
        large: "is too large; allowed: 8 MiB",
    }
    for path, message in cases.items():
        loaded = load(path)
        assert loaded.configuration is None
        assert len(loaded.problems) == 1
        assert message in str(loaded.problems[0])
        assert str(path) in str(loaded.problems[0])


def test_an_unreadable_file_says_why(tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    os.symlink(path, path)
    assert "cannot be read: " in str(load(path).problems[0])


def test_a_host_may_call_its_interfaces_otherwise_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "-gateway.yaml"  # looks like an option
    path.write_text(LOAD_BALANCED)
    ours = Interfaces(("eth2", "eth3"), "eth1")
    loaded = load(path, ours)
    assert loaded.configuration is not None
    assert loaded.configuration.gateway.inside == ours.inside
    assert loaded.configuration.gateway.outside == "eth1"
    unchanged = load(path).configuration
    assert unchanged is not None
    gateway = unchanged.gateway.model_copy(update={"inside": ours.inside, "outside": "eth1"})
    assert loaded.configuration == unchanged.model_copy(update={"gateway": gateway})


def test_a_configuration_is_json_in_parts_as_in_one() -> None:
    for text in (LOAD_BALANCED, LOAD_BALANCED.replace("vm1", "vm€")):
        loaded = load_text(text, "gateway.yaml")
        if loaded.configuration is not None:
            whole = Loaded(configuration=loaded.configuration)
            assert "".join(whole.json_parts()) == whole.to_json()


def test_a_hosts_interfaces_are_checked_as_the_files_are(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(LOAD_BALANCED)
    found = load(path, Interfaces(("eth1",), "eth1")).problems
    (problem,) = (problem for problem in found if problem.severity == "error")
    assert "gateway.inside[0] = eth1: is also gateway.outside" in str(problem)
    assert load_text("gateway: no mapping", "x.yaml", Interfaces(("eth1",))).configuration is None


def test_the_reference_shows_a_file_that_loads_and_has_every_key() -> None:
    reference = (Path(__file__).parents[4] / "docs" / "configuration.md").read_text()
    example = reference.split("```yaml\n")[1].split("```")[0]
    assert configuration(example).virtual_machines
    words = set(re.findall(r"[A-Za-z]+", reference))
    models: list[type[Resource]] = [Configuration]
    for model in models:
        for field in model.model_fields.values():
            assert field.alias in words, f"{model.__name__}.{field.alias}"
            kinds = (field.annotation, *get_args(field.annotation))
            models += [
                kind
                for kind in kinds
                if isinstance(kind, type) and issubclass(kind, Resource) and kind not in REFUSED
            ]


def test_items_of_a_part_that_is_itself_incomplete_are_explained() -> None:
    text = "gateway: {inside: [lan0], outside: wan0}\nvirtualNetwork: {subnets: [~, ~]}\n"
    lines = [str(problem) for problem in load_text(text, "f").problems]
    assert lines == [
        "f:2: virtualNetwork.addressPrefixes: missing; this key is required",
        "f:2: virtualNetwork.subnets[0]: must be a mapping, as in {name: …}",
        "f:2: virtualNetwork.subnets[1]: must be a mapping, as in {name: …}",
    ]
