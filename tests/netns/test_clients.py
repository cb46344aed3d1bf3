"""Programs that people use, through the gateway."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.netns.gateway import DEFAULT, INSTANCE, Gateway
from tests.netns.topology import SERVER, SERVER2, SERVER3, Topology, eventually

MEGABYTE = 1 << 20


def serve_file(net: Topology, address: str, size: int) -> str:
    """nginx on the internet with a file ``large`` of random bytes; its SHA-256."""
    digest = hashlib.sha256()
    root = net.directory / "www"
    root.mkdir()
    with (root / "large").open("wb") as file:
        for _ in range(size // MEGABYTE):
            block = os.urandom(MEGABYTE)
            digest.update(block)
            file.write(block)
    configuration = net.directory / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {net.directory}/nginx.pid; error_log stderr;\n"
        "events { }\n"
        f"http {{ access_log off; sendfile on; server {{ listen {address}:80; root {root}; }} }}\n"
    )
    net.start("internet", "nginx", "-c", str(configuration), "-e", "stderr")
    return digest.hexdigest()


def test_curl_downloads_200_megabytes_unchanged(town: Gateway, tmp_path: Path) -> None:
    wanted = serve_file(town.net, SERVER, 200 * MEGABYTE)
    for vm in ("vm1", "vm3"):
        digest = eventually(
            lambda vm=vm: town.net.run(  # type: ignore[misc]
                vm, "sh", "-c", f"curl -sSf --max-time 100 http://{SERVER}/large | sha256sum", check=False
            )  # until nginx is up: curl's failure gives the digest of nothing
        , lambda line: not line.startswith(hashlib.sha256().hexdigest()))  # fmt: skip
        assert digest.split()[0] == wanted, vm


@pytest.mark.parametrize(("vm", "seen"), [("vm1", DEFAULT), ("vm3", INSTANCE)])
@pytest.mark.parametrize("protocol", ["+notcp", "+tcp"])
def test_dig_learns_its_public_ip(town: Gateway, vm: str, seen: str, protocol: str) -> None:
    answer = town.net.run(vm, "dig", "+short", protocol, "myip.opendns.com", f"@{SERVER2}")
    assert answer.strip() == seen


@pytest.mark.parametrize("flags", [[], ["-R"], ["-u", "-b", "50M"], ["-u", "-b", "50M", "-R"]])
def test_iperf3(town: Gateway, flags: list[str]) -> None:
    """TCP from and to the VM, UDP from and to the VM: it ends well and data came through."""
    server = town.net.start(
        "internet", "iperf3", "-s", "-1", "-B", SERVER3, "-p", "5201", "--forceflush"
    )
    assert server.stdout is not None
    while "listening" not in server.stdout.readline():
        pass
    report = json.loads(town.net.run("vm1", "iperf3", "-c", SERVER3, "-t", "2", "--json", *flags))
    assert "error" not in report
    end = report["end"]
    if "-u" in flags:
        assert end["sum_received"]["packets"] > end["sum_received"]["lost_packets"]
    assert end["sum_received"]["bytes"] > MEGABYTE


def test_large_datagrams_are_echoed_whole(town: Gateway) -> None:
    """Up to an IP packet of 65,531 bytes: a netlink attribute, which carries it, has no more."""
    for vm in ("vm1", "vm2", "vm3"):
        for size in (1, 1472, 1473, 8000, 60000, 65503):
            assert town.net.client(vm).echo(SERVER, size) == "whole", (vm, size)


def test_a_datagram_that_netlink_cannot_carry_is_counted(town: Gateway) -> None:
    before = town.status()["drops"].get("Malformed", 0)
    assert town.net.client("vm1").echo(SERVER, 65507, patience=0.3) == "TimeoutError"
    assert town.status()["drops"]["Malformed"] == before + 1


def test_datagrams_on_jumbo_links_stay_whole(fresh: Topology) -> None:
    """8,900 bytes in one frame: more than the queue's binding reads by itself."""
    for namespace, interface in (
        ("vm1", "eth0"), ("lan", "vm1"), ("lan", "gw"), ("lan", "br0"),
        ("gw", "lan0"), ("gw", "wan0"), ("internet", "eth0"),
    ):  # fmt: skip
        fresh.ip(namespace, f"link set {interface} mtu 9000")
    gateway = Gateway(fresh)
    gateway.start()
    wire = fresh.capture("internet", "eth0", "udp")
    assert fresh.client("vm1").echo(SERVER, 8900) == "whole"
    assert fresh.client("vm1").upload(SERVER, 20 * MEGABYTE)
    assert fresh.client("vm1").download(SERVER, 20 * MEGABYTE)
    assert [len(frame) for frame in wire.packets()] == [8942, 8942]
    assert gateway.losses() == {}
