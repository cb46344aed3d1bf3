"""The gateway's image: what is in it, and what its processes may do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.private_docker import PrivateDocker
from tests.netns.topology import eventually

NET_ADMIN, NET_RAW = 1 << 12, 1 << 13
CONFIGURATION = """
gateway: {inside: [lan0], outside: wan0}
virtualNetwork: {addressPrefixes: [10.77.0.0/16], subnets: [{name: a, addressPrefix: 10.77.1.0/24}]}
publicIPAddresses: [{name: p, ipAddress: 192.0.2.10}]
defaultOutboundAccess: {publicIPAddresses: [p]}
"""
PROCESSES = """
import json, pathlib
for path in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        line = (path / "cmdline").read_bytes().split(b"\\0")
        fields = dict(l.split(":", 1) for l in (path / "status").read_text().splitlines())
    except OSError:
        continue
    if line[2:3] == [b"run"]:
        print(json.dumps([int(fields["Uid"].split()[1]), int(fields["CapEff"], 16), int(fields["CapPrm"], 16)]))
"""


def test_it_has_no_compiler_no_pip_and_no_lists(images: PrivateDocker) -> None:
    looked = "command -v gcc clang pip pip3 curl; ls /var/lib/apt/lists; ls -d /wheels /source"
    said = images.cli("run", "--rm", "--entrypoint", "sh", "snatgw", "-c", looked, status=None)
    assert not [line for line in said.splitlines() if not line.startswith("ls: cannot access")]
    base, image = (
        int(images.cli("image", "inspect", "-f", "{{.Size}}", name))
        for name in ("debian:12-slim", "snatgw")
    )
    assert image - base < 150 << 20


def test_any_other_command_is_snatgws(images: PrivateDocker, tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIGURATION.replace("wan0", "lan0"))
    mount = f"{tmp_path}:/etc/snatgw:ro"
    command = ("run", "--rm", "-v", mount, "snatgw", "check", "-c", "/etc/snatgw/gateway.yaml")
    said = images.cli(*command, status=1)
    assert "gateway.outside" in said
    assert "Usage: snatgw" in images.cli("run", "--rm", "snatgw", "--help")


@pytest.fixture
def networks(images: PrivateDocker) -> Iterator[PrivateDocker]:
    images.cli("network", "create", "--subnet", "10.77.1.0/24", "test-inside")
    images.cli("network", "create", "--subnet", "192.0.2.0/24", "test-outside")
    yield images
    images.cli("rm", "--force", "test-gateway", status=None)
    images.cli("network", "rm", "test-inside", "test-outside")


def start(docker: PrivateDocker, configuration: Path, *options: str) -> None:
    docker.cli(
        *("create", "--name", "test-gateway", "--cap-drop", "ALL", *options),
        *("--security-opt", "no-new-privileges:true", "--read-only", "--tmpfs", "/run"),
        *("--tmpfs", "/run/snatgw-api", "--tmpfs", "/var/lib/snatgw", "--network", "test-inside"),
        *("-v", f"{configuration}:/etc/snatgw:ro", "snatgw"),
    )
    docker.cli("network", "connect", "test-outside", "test-gateway")
    docker.cli("start", "test-gateway")


def said(docker: PrivateDocker) -> str:
    return docker.cli("logs", "test-gateway")


def privileges(docker: PrivateDocker) -> list[tuple[int, int, int]]:
    """(user, effective, permitted capabilities) of the engine, the supervisor and the API process."""
    listed = docker.cli("exec", "test-gateway", "/opt/snatgw/bin/python", "-c", PROCESSES)
    return sorted(tuple(json.loads(line)) for line in listed.splitlines())


COMPOSED = ("NET_ADMIN", "NET_RAW", "CHOWN", "DAC_READ_SEARCH", "KILL", "SETGID", "SETUID")


@pytest.mark.parametrize(
    ("capabilities", "api_user"), [(COMPOSED, 848), (("NET_ADMIN", "NET_RAW"), 0)]
)
def test_each_process_keeps_what_it_needs(
    networks: PrivateDocker, tmp_path: Path, capabilities: tuple[str, ...], api_user: int
) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIGURATION)
    start(networks, tmp_path, *(f"--cap-add={name}" for name in capabilities))
    eventually(lambda: said(networks), lambda text: "ready:" in text)
    engine = (0, NET_ADMIN | NET_RAW, NET_ADMIN | NET_RAW)
    found = eventually(lambda: privileges(networks), lambda processes: len(processes) == 3)
    assert engine in found
    assert (api_user, 0, 0) in found
    assert "nothing changed" in networks.cli("exec", "test-gateway", "snatgw", "reload")
    networks.cli("stop", "test-gateway")
    assert networks.cli("inspect", "-f", "{{.State.ExitCode}}", "test-gateway").strip() == "0"


def test_what_is_missing_is_said_in_a_line(networks: PrivateDocker, tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(CONFIGURATION.replace("10.77.", "10.66."))
    start(networks, tmp_path, "--cap-add=NET_ADMIN", "--cap-add=NET_RAW")
    text = eventually(lambda: said(networks))
    assert text.startswith("snatgw: gateway.inside = lan0: 1 wanted, 0 of this container's")
    assert len(text.splitlines()) == 1
