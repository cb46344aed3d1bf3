"""docs/docker.md's ways to put one's own containers behind the gateway, and its pitfalls."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docker.lab import DEFAULT, DNS, FRONTENDS, WEB, Lab

ASK = ("curl", "-s", "-m", "5", f"http://{WEB}/")
PROJECT = """
services:
  app:
    image: snatgw-lab
    entrypoint: [sleep, "600"]
    stop_grace_period: 1s
    dns: [{dns}]
    networks: {{vnet: {{ipv4_address: 10.0.1.77}}}}
networks:
  vnet: {{external: true, name: snatgw-vnet}}
"""


def run(lab: Lab, *options: str) -> str:
    return lab.docker.cli(
        "run", "--rm", *options, "--entrypoint", ASK[0], "snatgw-lab", *ASK[1:], status=None
    )


def test_any_container_on_the_network_is_a_standalone_vm(lab: Lab) -> None:
    assert run(lab, "--network", "snatgw-vnet", "--cap-drop", "ALL").startswith(
        f"You are {DEFAULT}:"
    )
    strangers = {flow["vm"] for flow in lab.snatgw("flows") if flow["vm"].startswith("10.")}
    assert strangers
    assert all(int(vm.rpartition(".")[2]) >= 128 for vm in strangers)


def test_another_compose_project(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(PROJECT.format(dns=DNS))
    compose = ["docker-compose", "--ansi", "never", "-p", "own", "-f", str(file)]
    lab.docker.run([*compose, "up", "-d"], 0)
    try:
        ask = [*compose, "exec", "-T", "app", *ASK[:-1], "http://web.example/"]
        assert lab.docker.run(ask, 0).startswith(f"You are {DEFAULT}:")
        assert lab.snatgw("flows", "--vm", "10.0.1.77")
    finally:
        lab.docker.run([*compose, "down"], 0)


def test_a_container_in_another_ones_network_shares_its_way_out(lab: Lab) -> None:
    said = run(lab, "--network", f"container:{lab.container('vm2')}")
    assert said.removeprefix("You are ").partition(":")[0] in FRONTENDS


@pytest.mark.parametrize(
    ("name", "options", "gateway"),
    [
        ("app", (), "172."),  # sorts before snatgw-vnet: Docker's own gateway wins
        ("app-internal", ("--internal",), "10.0.1.1"),
        ("zone", (), "10.0.1.1"),
    ],
)
def test_of_two_networks_the_first_by_name_has_the_default_route(
    lab: Lab, name: str, options: tuple[str, ...], gateway: str
) -> None:
    docker = lab.docker
    docker.cli("network", "create", *options, name)
    show = ("--entrypoint", "ip", "snatgw-lab", "route", "show", "default")
    docker.cli("create", "--name", "two", "--network", "snatgw-vnet", *show)
    try:
        docker.cli("network", "connect", name, "two")
        assert docker.cli("start", "-a", "two").split()[2].startswith(gateway)
    finally:
        docker.cli("rm", "-f", "two")
        docker.cli("network", "rm", name)
