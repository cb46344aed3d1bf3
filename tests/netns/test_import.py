"""What ``snatgw import`` made of Azure's files carries packets, and explain agrees with them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.netns.gateway import FRONTENDS, INSTANCE, Gateway
from tests.netns.servers import ECHO
from tests.netns.topology import OUTSIDE, SERVER, SERVER2, Topology

DATA = Path(__file__).parents[1] / "unit" / "importing" / "data"
FILES = ("vnet-list", "nsg-show-old", "nsg-show-new", "nic-list", "public-ip-list", "lb-show")
NETWORK = '{"cidr": "10.0.0.0/15", "subnets": ["10.0.1.0/24", "10.1.2.0/24"]}'
SMTP = 25


def imported(gateway: Gateway, *arguments: str, **addresses: str) -> None:
    """Import, put the wire's addresses in the place of those in the files, check, start.

    What could not be carried over (interfaces of a copy loop) is not on this wire: no longer listed.
    """
    text = snatgw("import", *arguments).partition("notCarriedOver:\n")[0]
    for name, address in addresses.items():
        text, count = re.subn(rf"({{name: {name}, ipAddress:) [\d.]+", rf"\1 {address}", text)
        assert count == 1, name
    state = f"  stateDirectory: {gateway.state}\n"
    gateway.write(text.replace("gateway:\n", "gateway:\n" + state, 1))
    snatgw("check", "-c", str(gateway.file))
    gateway.start("-c", str(gateway.file))


def snatgw(*arguments: str) -> str:
    command = [sys.executable, "-m", "gateway", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def public(seen: str) -> str:
    """The address of ``ip:port``."""
    return seen.partition(":")[0]


def verdict(gateway: Gateway, *arguments: str) -> tuple[str, str | None]:
    said: dict[str, Any] = json.loads(gateway.cli("explain", *arguments, "--json").stdout)
    groups = said["networkSecurityGroups"]
    return said["verdict"], groups[-1]["rule"] if groups else None


def test_the_output_of_az_becomes_a_gateway_that_does_what_azure_would(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    files = [str(DATA / f"{name}.json") for name in FILES]
    imported(gateway, *files, **{"lb-pip": FRONTENDS[0], "vm2-pip": INSTANCE})
    vm1, vm2, internet = (fresh.client(name) for name in ("vm1", "vm2", "internet"))

    assert verdict(gateway, "--vm", "vm1", "--to", f"{SERVER}:{ECHO}/tcp")[0] == "Allow"
    assert public(vm1.peer("Tcp", SERVER)) == FRONTENDS[0]  # by its load balancer
    assert public(vm2.peer("Tcp", SERVER)) == INSTANCE  # by its own address
    assert {flow["method"] for flow in gateway.flows()} == {"LoadBalancer", "InstanceLevelPublicIP"}

    wire = fresh.capture("internet", "eth0", f"port {SMTP}")
    said = verdict(gateway, "--vm", "vm1", "--to", f"{SERVER}:{SMTP}/tcp")
    assert said == ("Deny", "no-smtp")
    vm1.open(1, SERVER, SMTP)
    gateway.event(rule="web-nsg/no-smtp")
    assert wire.lines() == []

    vm2.listen(5353)
    inbound = ("--inbound", "--from", f"{SERVER}:40000", "--to", f"{INSTANCE}:5353/udp")
    assert verdict(gateway, *inbound) == ("Deny", "DenyAllInBound")
    assert internet.echo(INSTANCE, port=5353, patience=0.5) == "TimeoutError"
    assert gateway.event(rule="web-nsg/DenyAllInBound")["properties"]["vm"] == "vm2"
    assert gateway.stop() == 0


def test_an_arm_template_becomes_a_gateway(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    template = [str(DATA / "template.json"), "--parameters", str(DATA / "template.parameters.json")]
    imported(gateway, *template, "--parameter", f"network={NETWORK}", **{"lab-pip": FRONTENDS[0]})
    vm1, vm2 = fresh.client("vm1"), fresh.client("vm2")
    assert public(vm1.peer("Tcp", SERVER2)) == FRONTENDS[0]
    assert gateway.flows()[0]["vm"] == "lab-web1"
    # the template's other VMs are not on this wire; one that it does not name has no outbound connectivity
    said = verdict(gateway, "--vm", "10.0.1.5", "--to", f"{SERVER}:{ECHO}/tcp")
    assert said[0] == "Drop"
    assert vm2.peer("Tcp", SERVER, patience=0.5) == "TimeoutError"
    assert gateway.stop() == 0


def test_a_stand_in_for_an_address_that_the_host_has_is_refused_by_name(fresh: Topology) -> None:
    gateway = Gateway(fresh)
    template = [str(DATA / "template.json"), "--parameters", str(DATA / "template.parameters.json")]
    with pytest.raises(AssertionError, match=OUTSIDE):
        imported(gateway, *template, "--parameter", f"network={NETWORK}")
