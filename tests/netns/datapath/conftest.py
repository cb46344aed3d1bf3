"""A VM, a gateway, the outside; and the gateway's process as a test talks to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.netns.datapath.topology import Namespaces
from tests.netns.networks import REMOTE as REMOTE
from tests.netns.networks import VM as VM
from tests.netns.networks import build_small

PUBLIC = "203.0.113.10"
PLAN = {
    "inside": ["lan0"],
    "outside": "wan0",
    "pairs": {PUBLIC: VM},
    "prefixes": ["10.0.0.0/16"],
}
READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys"
"""A shell command, for ``before``: as containers have it."""


@pytest.fixture(autouse=True, scope="module")
def mode() -> None:
    """Once is enough here: no flow is carried by anything else."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        raise pytest.UsageError("tests/netns needs root: sudo scripts/test")


class Gateway:
    """``one_to_one.py`` in a namespace."""

    def __init__(
        self, net: Namespaces, namespace: str = "gw", before: str = "true", **plan: object
    ) -> None:
        """``before``: a shell command to run first, in the same mount namespace."""
        self._process = net.start(
            namespace,
            "sh",
            "-c",
            before + ' && exec "$@"',
            "sh",
            sys.executable,
            "-m",
            "tests.netns.datapath.one_to_one",
            json.dumps(PLAN | plan),
        )
        assert self._process.stdout is not None
        self.greeting = json.loads(self._process.stdout.readline())
        """``ready``, or the problems for which there is no gateway."""

    def ask(self, command: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        return json.loads(self._process.stdout.readline())

    def kill(self) -> None:
        """Die as by SIGKILL: nothing is cleaned up."""
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        self.ask("remove")
        assert self._process.wait(10) == 0


@pytest.fixture
def net() -> Iterator[Namespaces]:
    """The small network (``networks.py``)."""
    namespaces = Namespaces()
    try:
        build_small(namespaces)
        yield namespaces
    finally:
        namespaces.remove()


@pytest.fixture
def gateway(net: Namespaces) -> Gateway:
    started = Gateway(net)
    assert started.greeting == "ready"
    return started


class Capture:
    """tcpdump on an interface; ``lines`` stops it and tells what it saw."""

    def __init__(self, net: Namespaces, namespace: str, interface: str, expression: str) -> None:
        self._process = net.start(
            namespace, "sh", "-c",
            f"exec tcpdump --immediate-mode -nlU -i {interface} '{expression}' 2>&1",
        )  # fmt: skip
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("listening"):
                return
        raise AssertionError("tcpdump did not start")

    def lines(self) -> list[str]:
        self._process.terminate()
        assert self._process.stdout is not None
        return [line for line in self._process.stdout if " IP " in line or " ARP" in line]


def host_state(net: Namespaces, namespace: str = "gw") -> dict[str, str]:
    """What the gateway may change; built-in chains that are merely empty do not count."""
    rules = re.compile(r"^(\*|-A|:.* - )", re.M)
    saved = {
        command: "\n".join(
            re.sub(r" \[.*", "", line)
            for line in net.run(namespace, command).splitlines()
            if rules.match(line) and not line.startswith("*")
        )
        for command in ("iptables-save", "ip6tables-save")
    }
    values = "for f in $(find /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/neigh -type f); do echo $f $(cat $f); done"
    return saved | {
        "routes": net.ip(namespace, "-4 route show table all").replace(" linkdown", ""),
        "neighbours": net.ip(namespace, "neigh show proxy"),
        "addresses": net.ip(namespace, "-4 addr show"),
        "sysctls": net.run(namespace, "sh", "-c", values),
        "ip_forward": net.run(namespace, "cat", "/proc/sys/net/ipv4/ip_forward"),
    }


UDP_ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 7)); print("up", flush=True)
while True:
    data, peer = s.recvfrom(65535); s.sendto(data, peer); print(peer[0], len(data), flush=True)
"""
UDP_ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(float(sys.argv[3]))
s.connect((sys.argv[1], 7)); data = bytes(i & 255 for i in range(int(sys.argv[2])))
try:
    s.send(data); print("whole" if s.recv(65535) == data else "changed")
except OSError as error:
    print(type(error).__name__)
"""


def udp_echo(net: Namespaces, namespace: str) -> subprocess.Popen[str]:
    process = net.start(namespace, sys.executable, "-c", UDP_ECHO)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def udp_ask(
    net: Namespaces, namespace: str, address: str, size: int = 100, patience: float = 5
) -> str:
    """``whole`` if the echo server there gave back what it got, else what happened."""
    return net.python(namespace, UDP_ASK, address, str(size), str(patience)).strip()
