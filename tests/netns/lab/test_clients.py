"""Real clients in the lab's VMs reach the lab's internet, each by its own outbound method."""

import hashlib
import json
import os
import subprocess
import sys
import time

import pytest

from gateway.lab import topology, webroot
from tests.netns.lab.conftest import Commands

SEEN_AS = [
    ("vm1", {topology.DEFAULT_PUBLIC_IP}),
    ("vm2", set(topology.FRONTENDS)),
    ("vm3", {topology.INSTANCE_LEVEL_PUBLIC_IP}),
]


@pytest.mark.parametrize(("vm", "addresses"), SEEN_AS)
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_dns_answers_the_public_address(
    up: Commands, vm: str, addresses: set[str], transport: str
) -> None:
    query = ("dig", "+short", transport, "myip.opendns.com", "@resolver1.opendns.com")
    seen = {up.output(vm, *query)}
    for _ in range(40):
        if seen >= addresses:
            break
        seen.add(up.output(vm, *query))
    assert seen == addresses


@pytest.mark.parametrize(("vm", "addresses"), SEEN_AS)
def test_azures_own_example_works_as_printed(up: Commands, vm: str, addresses: set[str]) -> None:
    printed = up.output(vm, "nslookup", "myip.opendns.com", "resolver1.opendns.com")
    assert "208.67.222.222#53" in printed
    assert any(f"Name:\tmyip.opendns.com\nAddress: {address}" in printed for address in addresses)


@pytest.mark.parametrize("vm", ["vm1", "vm2", "vm3"])
@pytest.mark.parametrize("server", ["web1.example", "web2.example"])
def test_web_servers_serve_a_page(up: Commands, vm: str, server: str) -> None:
    assert "Hello from the lab" in up.output(vm, "curl", "-sS", f"http://{server}/")


def test_the_large_file_arrives_whole(up: Commands) -> None:
    command = up.line("exec", "vm1", "curl", "-sS", f"http://web2.example/{webroot.LARGE_NAME}")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        digest = hashlib.file_digest(curl.stdout, "sha256").hexdigest()  # type: ignore[arg-type]
    assert digest == webroot.LARGE_SHA256


def test_iperf3_server_answers(up: Commands) -> None:
    report = json.loads(up.output("vm3", "iperf3", "-J", "-n", "1M", "-c", "iperf.example"))
    assert report["end"]["sum_received"]["bytes"] > 0


@pytest.mark.parametrize("vm", ["vm1", "vm2", "vm3"])
def test_a_60_kb_datagram_is_echoed(up: Commands, vm: str) -> None:
    program = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.settimeout(10)\n"
        "s.connect(('echo.example', 7))\n"
        "data = bytes(range(250)) * 240\n"
        "s.send(data)\n"
        "assert s.recv(1 << 16) == data\n"
    )
    up.output(vm, sys.executable, "-c", program)


def test_names_that_the_internet_does_not_have(up: Commands) -> None:
    assert "NXDOMAIN" in up.output("vm1", "dig", "www.example.org")


@pytest.mark.parametrize(("vm", "addresses"), SEEN_AS)
def test_flows_lists_what_a_vm_did(up: Commands, vm: str, addresses: set[str]) -> None:
    up.output(vm, "curl", "-sS", "http://web1.example/")
    time.sleep(0.3)  # a snapshot is shared by whoever asks within a quarter of a second
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "flows", "--vm", vm, "--remote", f"{topology.WEB[0]}:80", "--json"],
        env={**os.environ, "SNATGW_API": str(up.lab.api_socket)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    flows = [json.loads(line) for line in done.stdout.splitlines()]
    assert flows
    assert {flow["public"]["ip"] for flow in flows} <= addresses


def test_the_internet_reaches_the_web_servers_behind_the_frontend(up: Commands) -> None:
    for vm in topology.WEB_POOL:
        _wait_until(up, vm, "Up")
    assert _answers(up, "http://app.example/", 16) == set(topology.WEB_POOL)
    assert _answers(up, "http://app.example:8085/", 2) == {"vm5"}
    seen_by_the_server = up.output(
        "internet", "curl", "-sS", "--interface", topology.WEB[0], "http://app.example/"
    )
    assert f" sees {topology.WEB[0]}:" in seen_by_the_server


def _answers(up: Commands, url: str, count: int) -> set[str]:
    """The VMs that answer the internet's curl."""
    found = set()
    for _ in range(count):
        done = up("exec", "internet", "curl", "-s", "-m", "5", url)
        found.add(done.stdout.partition(" ")[0])
    return found


def test_a_backend_that_says_it_is_sick_is_left_out_until_it_is_well(up: Commands) -> None:
    try:
        up.output("vm4", "curl", "-sS", "http://localhost/sick")
        _wait_until(up, "vm4", "Down")
        assert _answers(up, "http://app.example/", 8) == {"vm5"}
    finally:
        up.output("vm4", "curl", "-sS", "http://localhost/well")
    _wait_until(up, "vm4", "Up")
    assert _answers(up, "http://app.example/", 16) == set(topology.WEB_POOL)


def _wait_until(up: Commands, vm: str, status: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "health", "--vm", vm, "--json"],
            env={**os.environ, "SNATGW_API": str(up.lab.api_socket)},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        (found,) = (json.loads(line) for line in done.stdout.splitlines() if '"http"' in line)
        if found["status"] == status:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
