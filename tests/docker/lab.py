"""What tests ask of the compose lab: commands in its services, and what crosses its bridges."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from scapy.all import Packet

from tests.docker.private_docker import PrivateDocker
from tests.netns.topology import Capture, eventually

WEB, ECHO, DNS = "198.51.100.10", "198.51.100.7", "198.51.100.53"
DEFAULT, FRONTENDS, INSTANCE = "203.0.113.10", {"203.0.113.20", "203.0.113.21"}, "203.0.113.30"
VMS = {"vm1": {DEFAULT}, "vm2": FRONTENDS, "vm3": {INSTANCE}}
PRIVATE = "net 10.0.0.0/8"


class Lab:
    def __init__(self, docker: PrivateDocker, project: Path) -> None:
        self.docker, self.project = docker, project
        self._containers: dict[str, str] = {}

    def compose(self, *arguments: str, status: int | None = 0) -> str:
        return self.docker.compose(self.project, *arguments, status=status)

    def run(self, service: str, *command: str, status: int | None = 0) -> str:
        """A command in a service's container, which must end with that status."""
        return self.docker.cli("exec", self.container(service), *command, status=status)

    def start(self, service: str, *command: str) -> subprocess.Popen[str]:
        """As a stranger types it, and not waited for; it is ended with the lab."""
        file = str(self.project / "docker" / "compose.yaml")
        return subprocess.Popen(
            ["docker-compose", "-f", file, "exec", "-T", service, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self.docker.environment(),
        )

    def snatgw(self, *arguments: str) -> list[dict[str, Any]]:
        """`snatgw … --json` in the gateway's container."""
        return [
            json.loads(line)
            for line in self.run("gateway", "snatgw", *arguments, "--json").splitlines()
        ]

    def container(self, service: str) -> str:
        """Its id, which stays through restarts."""
        if service not in self._containers:
            self._containers[service] = self.compose("ps", "-q", service).strip()
        return self._containers[service]

    def inspect(self, service: str, template: str) -> str:
        return self.docker.cli("inspect", "-f", template, self.container(service)).strip()

    def wait_until_healthy(self) -> None:
        eventually(lambda: self.inspect("gateway", "{{.State.Health.Status}}") == "healthy")

    def seen_by_the_web(self, vm: str, patience: int = 10) -> str:
        """The address that the web server sees; empty without an answer in so many seconds."""
        said = self.run(vm, "curl", "-s", "-m", str(patience), f"http://{WEB}/", status=None)
        return said.removeprefix("You are ").partition(":")[0]

    def capture(self, interface: str, expression: str = "") -> Capture:
        """tcpdump in Docker's network; on a bridge it sees all that crosses it."""
        return Capture(self.docker, "", interface, expression)  # type: ignore[arg-type]

    def capture_network(self, network: str, expression: str = "") -> Capture:
        return self.capture(self.docker.bridge(network), expression)


def lines(packets: list[Packet]) -> list[str]:
    return [packet.summary() for packet in packets]
