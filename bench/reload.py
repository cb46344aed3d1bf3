"""Reloads of a gateway with 2,000 VMs: for how long packets wait, at most, while one is under way.

``python -m bench.reload 3`` prints one JSON object: for each kind of change the longest time in
milliseconds that the loop did not come back to packets. The reader is a process
of its own, as in the daemon; loop, reader's output, engine, probes' targets and the saved
state are the daemon's. The host is left out: its rules and addresses change only where public IPs,
prefixes or probes come or go. Packets of live flows wait all the time. Processor time of this
process counts, so that what else the host does does not. Each figure is the median of the rounds.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, cast

from gateway.core.engine import Engine
from gateway.daemon.engine_process.event_loop import EventLoop
from gateway.daemon.engine_process.host import Diverted
from gateway.daemon.engine_process.probe_supervisor import ProbeSupervisor
from gateway.daemon.engine_process.requests_reload import ReloadRequests
from gateway.daemon.engine_process.state_writer import StateWriter
from gateway.model.configuration import Configuration
from gateway.model.reading.load import load

VMS, BALANCERS, FRONTENDS = 2_000, 4, 16
FLOWS = 20_000
RULES = 50
LIMIT = 5.0  # milliseconds
PATIENCE = 60.0  # seconds for one reload


def document(*, vms: int = VMS, rules: int = RULES, ports: int = 1024) -> dict[str, Any]:
    """2,000 VMs behind four load balancers, each with a probe, outbound ports and an SSH port."""
    machines = [
        {"name": f"vm{n}", "privateIPAddress": f"10.0.{n // 250}.{n % 250 + 4}"} for n in range(vms)
    ]
    return {
        "gateway": {"profile": "azure-current", "inside": ["lan0"], "outside": "wan0"},
        "virtualNetwork": {
            "addressPrefixes": ["10.0.0.0/16"],
            "subnets": [
                {"name": f"s{n}", "addressPrefix": f"10.0.{n}.0/24", "networkSecurityGroup": "nsg"}
                for n in range(VMS // 250 + 1)
            ],
        },
        "publicIPAddresses": [
            {"name": f"p{n}", "ipAddress": f"203.0.113.{n + 1}"}
            for n in range(BALANCERS * FRONTENDS)
        ],
        "virtualMachines": machines,
        "loadBalancers": [_balancer(number, machines, ports) for number in range(BALANCERS)],
        "networkSecurityGroups": [{"name": "nsg", "securityRules": [*map(_rule, range(rules))]}],
    }


def _balancer(number: int, machines: list[dict[str, str]], ports: int) -> dict[str, Any]:
    members = [machine["name"] for machine in machines[number::BALANCERS]]
    frontends = [f"fe{n}" for n in range(FRONTENDS)]
    place = {"frontendIPConfiguration": "fe0", "protocol": "Tcp"}
    return {
        "name": f"lb{number}",
        "sku": "Standard",
        "frontendIPConfigurations": [
            {"name": name, "publicIPAddress": f"p{number * FRONTENDS + n}"}
            for n, name in enumerate(frontends)
        ],
        "backendAddressPools": [{"name": "pool", "virtualMachines": members}],
        "probes": [{"name": "probe", "protocol": "Tcp", "port": 80}],
        "loadBalancingRules": [
            {
                "name": "web",
                **place,
                "backendAddressPool": "pool",
                "probe": "probe",
                "frontendPort": 80,
                "backendPort": 80,
                "disableOutboundSnat": True,
            }
        ],
        "inboundNatRules": [
            {
                "name": f"ssh{n}",
                **place,
                "frontendPort": 50_000 + n,
                "virtualMachine": name,
                "backendPort": 22,
            }
            for n, name in enumerate(members)
        ],
        "outboundRules": [
            {
                "name": "out",
                "frontendIPConfigurations": frontends[1:],
                "backendAddressPool": "pool",
                "protocol": "All",
                "allocatedOutboundPorts": ports,
            }
        ],
    }


def _rule(number: int) -> dict[str, Any]:
    return {
        "name": f"rule{number}",
        "priority": 100 + number,
        "direction": "Outbound",
        "access": "Deny",
        "protocol": "Tcp",
        "sourceAddressPrefix": "*",
        "sourcePortRange": "*",
        "destinationAddressPrefix": f"192.0.2.{number}",
        "destinationPortRange": "25",
    }


CHANGES = {
    "vm": ("one VM more", document(vms=VMS + 1), LIMIT),
    "rule": ("one security rule more", document(rules=RULES + 1), LIMIT),
    "ports": ("other SNAT ports for every VM", document(ports=512), None),
}
"""What a reload changes, and the most that it may take; after each, another one takes it back."""


class Traffic:
    """Packets of live flows, which wait whenever the loop asks; notes when it does."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._latest = 0.0
        self.longest = 0.0
        self._packets: list[bytes] = []

    def open(self, flows: int) -> None:
        """Have flows of all VMs; their first packets are what is sent again and again."""
        for number in range(flows):
            vm, port = number % VMS, 1024 + number // VMS
            packet = _datagram(vm // 250, vm % 250 + 4, port)
            if self._engine.handle(packet, 0, 0.0) is None:
                raise SystemExit(f"bench.reload: flow {number} was dropped")
            if len(self._packets) < 1000:
                self._packets.append(packet)

    def begin(self) -> None:
        """Forget what was before."""
        self.longest, self._latest = 0.0, time.thread_time()

    def descriptors(self) -> tuple[int, ...]:
        return ()

    def drain(self, descriptor: int, limit: int, now: float) -> int:
        """Never asked: there is no descriptor."""
        return 0

    def tick(self) -> None:
        """A few packets a turn, and how long the last ones were ago."""
        began = time.thread_time()
        self.longest = max(self.longest, began - self._latest)
        for packet in self._packets[:8]:
            self._engine.handle(packet, 0, 0.0)
        self._latest = time.thread_time()


def _datagram(third: int, fourth: int, port: int) -> bytes:
    header = b"\x45\0\0\x20\0\0\0\0\x40\x11\0\0" + bytes((10, 0, third, fourth, 198, 51, 100, 1))
    return header + port.to_bytes(2, "big") + b"\0\x35\0\x0c\0\0data"


class _NoHost:
    """A host on which nothing has to change."""

    def with_real_names(self, configuration: Configuration) -> Configuration:
        return configuration

    def change(self, configuration: Configuration) -> None:
        pass


def measure(rounds: int) -> dict[str, float]:
    """The longest stops in milliseconds, by kind of change."""
    with tempfile.TemporaryDirectory(prefix="snatgw-bench-") as name:
        directory = Path(name)
        file = directory / "gateway.json"
        file.write_text(json.dumps(document()))
        configuration = load(file).configuration
        if configuration is None:
            raise SystemExit("bench.reload: its configuration is not valid")
        engine = Engine(configuration, seed=1)
        traffic = Traffic(engine)
        traffic.open(FLOWS)
        writer = StateWriter.open(directory)
        writer.begin(engine, None, base=0.0, scale=1.0)
        stops: dict[str, list[float]] = {kind: [] for kind in CHANGES}
        for _ in range(rounds):
            for kind, (_, after, _limit) in CHANGES.items():
                there = _reload(engine, writer, traffic, file, after)
                back = _reload(engine, writer, traffic, file, document())
                stops[kind].append(max(there, back))
        writer.close()
        return {kind: median(values) * 1e3 for kind, values in stops.items()}


def _reload(
    engine: Engine, writer: StateWriter, traffic: Traffic, file: Path, after: dict[str, Any]
) -> float:
    """The longest time in seconds that packets waited."""
    file.write_text(json.dumps(after))
    loop = EventLoop(lambda real: real)
    loop.packets_from(traffic)
    loop.every_tick(traffic.tick)
    probes = ProbeSupervisor(engine, loop, lambda control: None)
    command = [sys.executable, "-m", "gateway.daemon.reader", str(file)]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE)
    ended: list[str] = []

    def read() -> int:
        assert reader.stdout is not None
        return os.dup(reader.stdout.fileno())

    def post(event: str, _level: str, _about: dict[str, Any]) -> None:
        ended.append(event)
        loop.stop()

    reload = ReloadRequests(
        engine,
        cast(Diverted, _NoHost()),
        file,
        loop,
        read=read,
        parts=(probes.reconfiguring, writer.reconfiguring),
        post=post,
    )
    reload.on_hangup()
    traffic.begin()
    with contextlib.redirect_stderr(io.StringIO()):
        loop.run()
    assert reader.stdout is not None
    reader.stdout.close()
    reader.wait(PATIENCE)
    if ended != ["Reloaded"]:
        raise SystemExit(f"bench.reload: {ended}")
    return traffic.longest


if __name__ == "__main__":
    gc.disable()
    print(json.dumps(measure(int(sys.argv[1]))))
