"""The same traffic through both modes and the kernel's masquerade: clients see the same.

Not the same are only what Azure's rules explain (``EXPLAINED``), and these exactly so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.netns.gateway import Gateway
from tests.netns.topology import VMS, Topology

COUNT = 25
SEED = "differential"
EXPLAINED = {("vm1", "ping"), ("vm2", "ping")}
"""An echo through SNAT is dropped (docs/fidelity.md A8); vm3 has a public IP of its own."""


@pytest.fixture(autouse=True, scope="module")
def mode() -> None:
    """Both modes are in the test."""


def masquerade(net: Topology) -> None:
    net.sysctl("gw", "net/ipv4/ip_forward", "1")
    net.run("gw", "sh", "-c", "iptables -t nat -A POSTROUTING -o wan0 -j MASQUERADE")


@pytest.fixture
def networks() -> Iterator[dict[str, Topology]]:
    with ExitStack() as stack:
        found = {name: stack.enter_context(Topology()) for name in ("kernel", "on", "off")}
        for net in found.values():
            servers = net.start("internet", sys.executable, "-m", "tests.netns.exchanges", "serve")
            assert servers.stdout is not None
            assert servers.stdout.readline() == "up\n"
            for router in ("internet", "narrow", "gw"):  # three VMs with one address ask more
                net.sysctl(router, "net/ipv4/icmp_ratelimit", "0")
        masquerade(found["kernel"])
        gateways = [Gateway(found[mode], fastPath=mode) for mode in ("on", "off")]
        for gateway in gateways:
            gateway.start()
        yield found
        for gateway in gateways:
            assert gateway.losses() == {}
            assert gateway.stop() == 0


def exchanges(net: Topology, vm: str) -> list[list[Any]]:
    command = [sys.executable, "-m", "tests.netns.exchanges", SEED + vm, str(COUNT)]
    seen: list[list[Any]] = json.loads(net.run(vm, *command))
    return seen


def test_clients_see_what_they_see_behind_masquerade(networks: dict[str, Topology]) -> None:
    seen: dict[str, dict[str, list[list[Any]]]] = {}
    for name, net in networks.items():
        with ThreadPoolExecutor() as pool:
            lists = pool.map(lambda vm, net=net: exchanges(net, vm), VMS)
            seen[name] = dict(zip(VMS, lists, strict=True))
    for mode in ("on", "off"):
        for vm, expected in seen["kernel"].items():
            different = [
                (kernel, ours)
                for kernel, ours in zip(expected, seen[mode][vm], strict=True)
                if kernel != ours
            ]
            kinds = {(vm, kernel[0]) for kernel, _ in different}
            assert kinds == {pair for pair in EXPLAINED if pair[0] == vm}, (mode, different)
    # What it would be worth nothing without.
    came_to = {(kind, str(result)) for kind, _, result in seen["kernel"]["vm1"]}
    for wanted in (
        ("put_off", "ECONNRESET"),
        ("tcp_closed", "ECONNREFUSED"),
        ("udp_closed", "ECONNREFUSED"),
        ("too_far", "EHOSTUNREACH"),
        ("too_large", "EMSGSIZE"),
        ("half_closed", "that is all"),
        ("ping", "0"),
    ):
        assert wanted in came_to
