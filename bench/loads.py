"""Runs the loads: the C programs, compiled once a run, and iperf3; their answers as figures.

Pinned loads keep the sender on processor 0; the process that packets pass through is on the last
one (``Forwarder.settle``). On a machine with one processor everything shares it.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.forwarders import DROP, Forwarder, stop
from bench.namespaces import MACS, NETNS, VM_ADDRESS, BenchError, Wires, inside, run

SENDER_CPU = 0
PACKETS_CPU = (os.cpu_count() or 1) - 1
PORT, IPERF_PORT = 7000, 5201
SERVER = "198.18.0.1"
TOLERATED = 10_000
"""Connections of which one may fail. About one in 500,000 does, whatever forwards: the receiver's
kernel may find no socket for data that comes while its other processor puts the new connection in
the place of the half-open one (``inet_ehash_insert``), and answers with an RST."""
SERVERS = 256  # addresses that the connecting client takes in turn
LIBRARY_FLAGS = ("-O2", "-Wall", "-Wextra")


@dataclass(frozen=True)
class Rate:
    """What a flood came to. ``processor``: seconds of processor time that the sender had."""

    sent: int
    received: int
    seconds: float
    lost: int
    processor: float

    @property
    def cost(self) -> float:
        """The sender's processor time for a packet, in microseconds: with all that the kernel does
        before the sender goes on, which is everything where no process forwards."""
        return self.processor * 1e6 / self.sent if self.sent else 0.0

    @property
    def per_second(self) -> float:
        return self.received / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Drain:
    """Microseconds of processor time a packet, of the first decile of the bursts.

    ``filling``: the sender's, with the kernel's queue; ``draining``: the forwarding process's.
    """

    bursts: int
    lost: int
    filling: float
    draining: float


class Loads:
    """The programs that make load, ready to run."""

    def __init__(self, directory: Path) -> None:
        source = Path(__file__).parent
        self._flood, self._clients = directory / "flood", directory / "clients"
        for program in (self._flood, self._clients):
            file = str(source / f"{program.name}.c")
            run(["gcc", *LIBRARY_FLAGS, "-o", str(program), file], timeout=60)

    def flood(
        self,
        gateway: Forwarder,
        *,
        seconds: float,
        flows: int = 1,
        to: str = SERVER,
        reply: bool = False,
        once: bool = False,
        syn: bool = False,
        source: str = VM_ADDRESS,
        per_source: int = 0,
        per_destination: int = 0,
        rate: float = 0,
        first_port: int = 1024,
    ) -> Rate:
        """UDP datagrams in 64-byte frames (or SYNs) of ``flows`` flows, without losses.

        ``once``: one packet per flow, then done. ``rate``: packets a second, instead of as many as
        get through. ``per_source``: flows of one source address; then the next address sends.
        ``per_destination``: the same for the address that they go to.
        """
        command = [
            *self._flood_command(gateway, flows, reply),
            *("--source", source, "--to", to),
            *("--per-source", str(per_source), "--per-destination", str(per_destination)),
            *("--first-port", str(first_port)),
            *("--seconds", str(seconds), "--rate", str(rate)),
            *(["--once"] if once else []),
            *(["--syn"] if syn else []),
        ]
        gateway.settle(PACKETS_CPU, SENDER_CPU)
        return Rate(**_answer(command, seconds))

    def drain(self, gateway: Forwarder, *, seconds: float, flows: int, reply: bool) -> Drain:
        """Bursts that wait until the forwarding process is let go on."""
        gateway.settle(PACKETS_CPU, SENDER_CPU)
        command = [
            *self._flood_command(gateway, flows, reply),
            *("--source", VM_ADDRESS, "--to", SERVER),
            *("--drain", str(gateway.pid), "--seconds", str(seconds)),
        ]
        drain = Drain(**_answer(command, seconds))
        if not drain.bursts:
            raise BenchError(f"{gateway.name}: no burst arrived whole")
        return drain

    def _flood_command(self, gateway: Forwarder, flows: int, reply: bool) -> list[str]:
        wires = gateway.wires
        dropped = gateway.name == DROP
        far = (wires.gateway, "lan0") if dropped else (wires.internet, "net0")
        return [
            *("taskset", "-c", str(SENDER_CPU), str(self._flood)),
            *("--near", f"{NETNS / wires.vm},vm0", "--near-mac", MACS["lan0"]),
            *("--far", f"{NETNS / far[0]},{far[1]}", "--far-mac", MACS["wan0"]),
            *("--flows", str(flows)),
            *(["--reply"] if reply else []),
        ]

    @contextmanager
    def servers(self, wires: Wires) -> Iterator[None]:
        """The receiver's servers: the echoing one and iperf3's."""
        commands = [
            [str(self._clients), "serve", str(PORT)],
            ["iperf3", "-s", "-p", str(IPERF_PORT)],
        ]
        started = []
        try:
            for command in commands:
                started.append(
                    subprocess.Popen(
                        [*inside(wires.internet), *command],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                )
            _wait_for_listeners(wires, (PORT, IPERF_PORT))
            yield
        finally:
            for process in started:
                stop(process)

    def connect(self, gateway: Forwarder, seconds: float) -> dict[str, float]:
        """Connect, a byte there and back, close; one at a time."""
        arguments = ["connect", SERVER, str(SERVERS), str(PORT), str(seconds)]
        return self._client(gateway, arguments, seconds)

    def ask(
        self, gateway: Forwarder, seconds: float, pinned: int | None = None
    ) -> dict[str, float]:
        """A byte there and back on one connection; the client on processor ``pinned``."""
        return self._client(gateway, ["ask", SERVER, str(PORT), str(seconds)], seconds, pinned)

    def _client(
        self,
        gateway: Forwarder,
        arguments: Sequence[str],
        seconds: float,
        pinned: int | None = None,
    ) -> dict[str, float]:
        if pinned is None:
            gateway.roam()
        else:
            gateway.settle(PACKETS_CPU, SENDER_CPU)
        prefix = [] if pinned is None else ["taskset", "-c", str(pinned)]
        command = [*inside(gateway.wires.vm), *prefix, str(self._clients), *arguments]
        said: dict[str, Any] = _answer(command, seconds)
        if said["failed"] * TOLERATED > said["count"]:
            raise BenchError(f"{gateway.name}: {said['failed']} connections failed: {said['why']}")
        return said

    def bulk(self, gateway: Forwarder, seconds: float, *, download: bool) -> float:
        """One TCP stream of iperf3; bits a second that the receiving end counted."""
        gateway.roam()
        options = ["-R"] if download else []
        client = ["iperf3", "-J", "-c", SERVER, "-p", str(IPERF_PORT), "-t", str(seconds), *options]
        said = _answer([*inside(gateway.wires.vm), *client], seconds)
        return float(said["end"]["sum_received"]["bits_per_second"])


def _answer(command: Sequence[str], seconds: float) -> Any:
    text = run(command, timeout=seconds + 30)
    try:
        return json.loads(text)
    except ValueError:
        raise BenchError(f"{command[0]}: unexpected answer: {text[:200]!r}") from None


def _wait_for_listeners(wires: Wires, ports: Sequence[int]) -> None:
    for _ in range(100):
        text = run([*inside(wires.internet), "cat", "/proc/net/tcp", "/proc/net/tcp6"])
        if all(f":{port:04X} " in text for port in ports):
            return
        time.sleep(0.05)
    raise BenchError(f"the servers in {wires.internet} do not listen")
