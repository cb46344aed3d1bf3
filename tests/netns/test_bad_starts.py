"""Starts that cannot be: a clear line for each reason, exit status 1, nothing changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.netns.datapath.conftest import host_state
from tests.netns.gateway import Gateway
from tests.netns.topology import Topology


@pytest.fixture(scope="module")
def host() -> Iterator[Topology]:
    with Topology() as net:
        yield net


@pytest.fixture
def gateway(host: Topology) -> Iterator[Gateway]:
    before = host_state(host)
    gateway = Gateway(host)
    yield gateway
    assert host_state(host) == before
    assert not gateway.api.exists()
    assert not gateway.state.exists()


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        pytest.param(
            lambda c: c["gateway"].update(outside="wan7"),
            ["wan7: there is no such interface (gateway.outside)"],
            id="no outside interface",
        ),
        pytest.param(
            lambda c: c["gateway"].update(inside=["lan0", "lan7"], outside="wan7"),
            [
                "lan7: there is no such interface (gateway.inside)",
                "wan7: there is no such interface (gateway.outside)",
            ],
            id="two missing interfaces, both said",
        ),
        pytest.param(
            lambda c: c["publicIPAddresses"][0].update(ipAddress="203.0.113.1"),
            [
                (
                    "203.0.113.1 is this host's own address on wan0: the gateway would take all "
                    "of the host's packets; choose an address that no interface has"
                )
            ],
            id="the host's own address",
        ),
    ],
)
def test_what_this_host_does_not_offer(gateway: Gateway, change: Change, lines: list[str]) -> None:
    change(gateway.configuration)
    gateway.write()
    said = [line.removeprefix("snatgw: ") for line in gateway.refused()]
    assert said == lines


def test_an_interface_that_is_down(host: Topology, gateway: Gateway) -> None:
    host.ip("gw", "link set lan0 down")
    gateway.write()
    try:
        assert gateway.refused() == ["snatgw: lan0 is down: ip link set lan0 up"]
    finally:
        host.ip("gw", "link set lan0 up")


def test_missing_capabilities(gateway: Gateway) -> None:
    gateway.write()
    said = gateway.refused(wrapper=("setpriv", "--bounding-set=-net_admin,-net_raw"))
    assert said == [
        "snatgw: this process lacks CAP_NET_ADMIN: run it as root",
        "snatgw: this process lacks CAP_NET_RAW: run it as root",
    ]


def test_an_absent_file(gateway: Gateway) -> None:
    (line,) = gateway.refused()
    assert str(gateway.file) in line
    assert "no such file" in line.lower()


def test_an_unreadable_file(gateway: Gateway) -> None:
    gateway.write()
    gateway.file.chmod(0)
    (line,) = gateway.refused(wrapper=("setpriv", "--bounding-set=-dac_override,-dac_read_search"))
    assert str(gateway.file) in line
    assert "permission denied" in line.lower()


def test_a_directory_for_a_file(gateway: Gateway) -> None:
    gateway.file.mkdir()
    (line,) = gateway.refused()
    assert str(gateway.file) in line
    assert "directory" in line.lower()


def test_a_file_with_two_mistakes(gateway: Gateway) -> None:
    gateway.configuration["gateway"]["outsied"] = "wan0"
    gateway.configuration["virtualMachines"][0]["privateIPAddress"] = "10.0.1.999"
    gateway.write()
    said = gateway.refused()
    assert len(said) == 2, said
    assert all(str(gateway.file) in line for line in said)
    assert "outsied" in said[0] + said[1]
    assert "outside" in said[0] + said[1]
    assert "10.0.1.999" in said[0] + said[1]


def test_text_that_is_no_yaml(gateway: Gateway) -> None:
    gateway.write("gateway: [unclosed\n")
    said = gateway.refused()
    assert len(said) == 1, said
    assert str(gateway.file) in said[0]


def test_flags_for_an_interface_that_is_not_there(gateway: Gateway) -> None:
    said = gateway.refused("--inside", "lan7", "--outside", "wan0", "--public-ip", "203.0.113.50")
    assert said == ["snatgw: lan7: there is no such interface"]


def test_check_host_names_what_is_missing_and_passes_what_is_right(gateway: Gateway) -> None:
    gateway.write()
    gateway.configuration["gateway"]["outside"] = "wan7"

    def check(*wrapper: str) -> tuple[int, str]:
        command = (
            "sh",
            "-c",
            f"{gateway.python} -m gateway check -c {gateway.file} --host 2>&1; echo $?",
        )
        *lines, status = gateway.net.run("gw", *wrapper, *command).splitlines()
        return int(status), "\n".join(lines)

    status, said = check()
    assert status == 0, said
    assert "this kernel has nfnetlink_queue" in said
    gateway.write()
    status, said = check("setpriv", "--bounding-set=-net_admin")
    assert status == 1, said
    assert "lacks CAP_NET_ADMIN" in said
    assert "wan7: there is no such interface" in said


@pytest.mark.parametrize("as_json", [False, True])
def test_check_tells_on_standard_error_what_would_stop_a_start(
    host: Topology, gateway: Gateway, as_json: bool
) -> None:
    gateway.configuration["gateway"]["outside"] = "wan7"
    gateway.write()
    flags = ["check", "-c", str(gateway.file), "--host", *(["--json"] if as_json else [])]
    done = subprocess.run(
        host.command("gw", sys.executable, "-m", "gateway", *flags),
        capture_output=True, text=True, timeout=60, check=False, cwd=host.root,
    )  # fmt: skip
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if ": warning: " not in line]
    assert [line.removeprefix("✗ ").removeprefix("NO  ") for line in said] == [
        "wan7: there is no such interface (gateway.outside)"
    ]
    assert "lan0 is up" in done.stdout
    if as_json:
        objects = [json.loads(line) for line in done.stdout.splitlines()]
        assert [o["sentence"] for o in objects if o.get("ok") is False] == [
            "wan7: there is no such interface (gateway.outside)"
        ]
    else:
        assert "wan7" not in done.stdout.partition("\n")[2]
