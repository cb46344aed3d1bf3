"""``snatgw run`` in a namespace, and what its command line says about it."""

from __future__ import annotations

import copy
import itertools
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.netns.topology import Topology, eventually

_serial = itertools.count()

DEFAULT, FRONTENDS, INSTANCE = "203.0.113.40", ("203.0.113.10", "203.0.113.11"), "203.0.113.30"

fast_path = "auto"
"""``gateway.fastPath`` of every configuration; ``conftest.py`` sets it."""

# vm1 stands alone, vm2 is behind a load balancer with two frontends, vm3 has an address of its own.
CONFIGURATION: dict[str, Any] = {
    "gateway": {"inside": ["lan0"], "outside": "wan0"},
    "virtualNetwork": {
        "addressPrefixes": ["10.0.0.0/16"],
        "subnets": [{"name": "web", "addressPrefix": "10.0.1.0/24"}],
    },
    "publicIPAddresses": [
        {"name": "pip-a", "ipAddress": FRONTENDS[0]},
        {"name": "pip-b", "ipAddress": FRONTENDS[1]},
        {"name": "pip-vm3", "ipAddress": INSTANCE},
        {"name": "pip-default", "ipAddress": DEFAULT},
    ],
    "defaultOutboundAccess": {"publicIPAddresses": ["pip-default"]},
    "virtualMachines": [
        {"name": "vm1", "privateIPAddress": "10.0.1.4"},
        {"name": "vm2", "privateIPAddress": "10.0.1.5"},
        {"name": "vm3", "privateIPAddress": "10.0.1.6", "publicIPAddress": "pip-vm3"},
    ],
    "loadBalancers": [
        {
            "name": "lb",
            "frontendIPConfigurations": [
                {"name": "fe1", "publicIPAddress": "pip-a"},
                {"name": "fe2", "publicIPAddress": "pip-b"},
            ],
            "backendAddressPools": [{"name": "pool", "virtualMachines": ["vm2"]}],
            "loadBalancingRules": [
                {
                    "name": f"rule{number}",
                    "frontendIPConfiguration": f"fe{number}",
                    "backendAddressPool": "pool",
                    "protocol": "Tcp",
                    "frontendPort": 80,
                    "backendPort": (80, 8080)[number - 1],
                }
                for number in (1, 2)
            ],
        }
    ],
}


def configuration(**settings: Any) -> dict[str, Any]:
    """The configuration above, the caller's own, with other settings of ``gateway``."""
    document = copy.deepcopy(CONFIGURATION)
    document["gateway"] |= {"fastPath": fast_path} | settings
    return document


class Gateway:
    """A daemon. It is started by ``start`` (or ``refused``), and ended by the topology at last."""

    def __init__(self, net: Topology, namespace: str = "gw", **settings: Any) -> None:
        number = next(_serial)
        self.net, self.namespace = net, namespace
        self.api = net.directory / f"api{number}.sock"
        self.file = net.directory / f"gateway{number}.yaml"
        self.state = net.directory / f"state{number}"
        self.errors = net.directory / f"errors{number}"
        self.configuration = configuration(**({"stateDirectory": str(self.state)} | settings))
        self.process: subprocess.Popen[str] | None = None
        self.python = sys.executable
        self.wrapper: tuple[str, ...] = ()  # a command line that runs the daemon's
        self.root = Path(__file__).parents[2]

    def write(self, document: Any = None) -> None:
        """The file: a document, as it is if it is text; without one the configuration."""
        document = self.configuration if document is None else document
        text = document if isinstance(document, str) else yaml.safe_dump(document)
        self.file.write_text(text)

    def start(self, *flags: str) -> str:
        """Run it, with its file unless flags are given, and wait; its ``ready`` line."""
        if not flags:
            self.write()
        self._run(self._flags(*flags), *self.wrapper)
        assert self.process is not None
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if readable else ""
        assert line.startswith("ready"), f"{line!r}; {self.errors.read_text()}"
        return line.strip()

    def _flags(self, *flags: str) -> list[str]:
        return ["run", *(flags or ("-c", str(self.file))), "--api", str(self.api)]

    def _run(self, arguments: list[str], *wrapper: str) -> None:
        with self.errors.open("a") as errors:
            self.process = subprocess.Popen(
                self.net.command(
                    self.namespace, *wrapper, sys.executable, "-m", "gateway", *arguments
                ),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=self.root,
                env={**os.environ, "PYTHONPATH": str(self.root)},
                start_new_session=True,  # a process group, as a terminal makes one
            )

    def begin(self) -> subprocess.Popen[str]:
        """Run it with the file as it is, and do not wait."""
        self._run(self._flags())
        assert self.process is not None
        return self.process

    def refused(self, *flags: str, wrapper: tuple[str, ...] = ()) -> list[str]:
        """Run it where it must not start: exit status 1; its reasons, one a line."""
        self._run(self._flags(*flags), *wrapper)
        assert self.process is not None
        output, _ = self.process.communicate(timeout=60)
        said = self.errors.read_text()
        assert (self.process.returncode, output) == (1, ""), said
        return [line for line in said.splitlines() if ": warning: " not in line]

    def cli(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments, "--api", str(self.api)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == status, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def _list(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.cli(*arguments, "--json").stdout.splitlines()]

    def flows(self, *arguments: str) -> list[dict[str, Any]]:
        return self._list("flows", *arguments)

    def ports(self, vm: str, protocol: str) -> dict[str, Any]:
        """The one record of a VM that has one public IP."""
        (found,) = (p for p in self._list("ports", "--vm", vm) if p["protocol"] == protocol)
        return found

    def events(self, *arguments: str) -> list[dict[str, Any]]:
        return self._list("events", *arguments)

    def event(self, **wanted: Any) -> dict[str, Any]:
        """The first event with these members or properties, waited for."""

        def matching() -> list[dict[str, Any]]:
            return [e for e in self.events() if wanted.items() <= _flat(e).items()]

        return eventually(matching)[0]

    def status(self) -> dict[str, Any]:
        return json.loads(self.cli("status", "--json").stdout)

    def document(self, *arguments: str) -> dict[str, Any]:
        """The one object that a command prints."""
        return json.loads(self.cli(*arguments, "--json").stdout)

    def try_status(self) -> dict[str, Any]:
        """The same, or nothing while nobody answers."""
        command = [self.python, "-m", "gateway", "status", "--json", "--api", str(self.api)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else {}

    def losses(self) -> dict[str, int]:
        """What must be zero: packets that never reached the engine, and the engine's mistakes."""
        queue = self.status()["queue"]
        names = ("kernelDropped", "socketDropped", "overflows", "handlerErrors")
        return {name: queue[name] for name in names if queue[name]}

    def reload(self) -> list[str]:
        """Apply the configuration as it is now; what changed."""
        self.write()
        changes: list[str] = json.loads(self.cli("reload", "--json").stdout)["changes"]
        return changes

    def stop(self) -> int:
        """SIGTERM; the exit status, which must come in the contract's 5 seconds."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def kill(self) -> None:
        """SIGKILL, at whatever it does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _flat(event: dict[str, Any]) -> dict[str, Any]:
    members = {**event, **event["properties"]}
    return {name: value for name, value in members.items() if isinstance(value, str | int)}
