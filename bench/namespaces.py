"""The wires: for each way of forwarding a sender (the VM), a gateway and a receiver (the internet).

All of them stand side by side for the whole run, so that the measurements can take turns every few
seconds. Names carry this process's id; what a killed run left is removed by the next one. The
host's own network is never touched: interfaces are made inside the namespaces.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREFIX = "snatgw-bench-"
NETNS = Path("/run/netns")

VM_ADDRESS = "10.0.0.4"
VM_NETWORK = "10.0.0.0/16"
GATEWAY_INSIDE = "10.0.0.1"
GATEWAY_OUTSIDE = "203.0.113.1"
PUBLIC_IP = "203.0.113.10"
NEXT_HOP = "203.0.113.254"
INTERNET = "198.18.0.0/15"
"""Benchmark range (RFC 2544): every address of it is the receiver's own."""
DISCARD = 9
"""The port on which the receiver (and, for answers, the VM) drops what arrives."""

MACS = {
    "vm0": "02:00:00:00:00:01",
    "lan0": "02:00:00:00:00:02",
    "wan0": "02:00:00:00:00:03",
    "net0": "02:00:00:00:00:04",
}


class BenchError(Exception):
    """Why the benchmark cannot go on, in one line."""


def run(command: Sequence[str], *, text: str = "", timeout: float = 30) -> str:
    """A command's standard output. Raises BenchError with its last word if it fails."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=timeout, check=False
        )
    except FileNotFoundError:
        raise BenchError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(command)}: no end after {timeout:.0f} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        why = said[-1] if said else f"exit status {done.returncode}"
        raise BenchError(f"{' '.join(command)}: {why}")
    return done.stdout


@dataclass(frozen=True)
class Wires:
    """Three namespaces in a row: vm0 — lan0, wan0 — net0."""

    name: str

    @property
    def vm(self) -> str:
        return f"{PREFIX}{os.getpid()}-{self.name}-vm"

    @property
    def gateway(self) -> str:
        return f"{PREFIX}{os.getpid()}-{self.name}-gw"

    @property
    def internet(self) -> str:
        return f"{PREFIX}{os.getpid()}-{self.name}-net"

    def build(self) -> None:
        """Make the namespaces, wires, addresses and routes; forwarding is left off."""
        for namespace in (self.vm, self.gateway, self.internet):
            run(["ip", "netns", "add", namespace])
            quiet = ["net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"]
            run([*inside(namespace), "sysctl", "-qw", *quiet])
            run(["ip", "-n", namespace, "link", "set", "lo", "up"])
        self._wire(self.vm, "vm0", f"{VM_ADDRESS}/16", "lan0", f"{GATEWAY_INSIDE}/16")
        self._wire(self.internet, "net0", f"{NEXT_HOP}/24", "wan0", f"{GATEWAY_OUTSIDE}/24")
        run(["ip", "-n", self.vm, "route", "add", "default", "via", GATEWAY_INSIDE])
        run(["ip", "-n", self.gateway, "route", "add", "default", "via", NEXT_HOP])
        run(["ip", "-n", self.internet, "route", "add", "local", INTERNET, "dev", "lo"])
        run(["ip", "-n", self.internet, "route", "add", VM_NETWORK, "via", GATEWAY_OUTSIDE])
        # What is only counted must cost the far end as little as possible, and wake nobody.
        for protocol in ("udp", "tcp"):
            for namespace, port in ((self.vm, "--sport"), (self.internet, "--dport")):
                rule = ["-p", protocol, port, str(DISCARD), "-j", "DROP"]
                run([*inside(namespace), "iptables", "-t", "raw", "-A", "PREROUTING", *rule])

    def _wire(self, far: str, far_if: str, far_ip: str, near_if: str, near_ip: str) -> None:
        peer = ["peer", "name", near_if, "address", MACS[near_if], "netns", self.gateway]
        add = ["link", "add", far_if, "address", MACS[far_if], "type", "veth", *peer]
        run(["ip", "-n", far, *add])
        for namespace, interface, address in (
            (far, far_if, far_ip),
            (self.gateway, near_if, near_ip),
        ):
            run(["ip", "-n", namespace, "addr", "add", address, "dev", interface])
            run(["ip", "-n", namespace, "link", "set", interface, "up"])


def inside(namespace: str) -> list[str]:
    """What goes in front of a command to run it in a namespace."""
    return ["ip", "netns", "exec", namespace]


@contextmanager
def wires(names: Sequence[str]) -> Iterator[dict[str, Wires]]:
    """The wires of these names, removed at the end whatever happens."""
    remove_left_over()
    built = {name: Wires(name) for name in names}
    try:
        for item in built.values():
            item.build()
        yield built
    finally:
        _remove(f"{PREFIX}{os.getpid()}-")


def remove_left_over() -> None:
    """Remove the namespaces of benchmarks that are no longer running."""
    if not NETNS.is_dir():
        return
    owners = {path.name.split("-")[2] for path in NETNS.glob(f"{PREFIX}*-*")}
    for owner in owners:
        if not Path(f"/proc/{owner}").exists():
            _remove(f"{PREFIX}{owner}-")


def _remove(prefix: str) -> None:
    for path in sorted(NETNS.glob(f"{prefix}*")):
        subprocess.run(["ip", "netns", "del", path.name], check=False, capture_output=True)
