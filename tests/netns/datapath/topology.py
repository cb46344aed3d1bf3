"""Network namespaces for a test: made by it, gone after it, whatever happened in between.

An interrupt may come at any moment, in the middle of set-up too: ``remove`` takes what is there.
Where the tests cannot remove anything any more, ``tests/reaper.py`` does.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from tests import reaper

_serial = itertools.count()


class Namespaces:
    """Builds namespaces and wires; names are the test's, the kernel sees them with a prefix."""

    root = Path(__file__).parents[3]
    """Where processes start, so that they find the program and the tests."""
    standing: ClassVar[list[Namespaces]] = []
    """All that were made and are not removed yet."""

    def __init__(self) -> None:
        self._prefix = f"snatgw-dp{os.getpid()}-{next(_serial)}-"
        self._names: list[str] = []
        self._processes: list[subprocess.Popen[str]] = []
        self.standing.append(self)

    def add(self, *names: str) -> None:
        for name in names:
            reaper.tell("namespace", self._prefix + name)
            self._names.append(name)  # before it is there: it may be there when this is interrupted
            self._ip("netns", "add", self._prefix + name)
            self.ip(name, "link set lo up")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)

    def file(self, namespace: str) -> Path:
        """By which others may enter it."""
        return Path("/run/netns") / (self._prefix + namespace)

    def wire(self, near: str, far: str) -> None:
        """``wire("gw/lan0 10.0.1.1/24", "vm/eth0 10.0.1.4/24")``: a veth pair, both ends up."""
        ends = []
        for end in (near, far):
            place, *addresses = end.split()
            namespace, interface = place.split("/")
            ends.append((namespace, interface, addresses))
        (namespace, interface, _), (peer, peer_interface, _) = ends
        self.ip(
            namespace,
            f"link add {interface} type veth peer name {peer_interface} netns {self._prefix}{peer}",
        )
        for namespace, interface, addresses in ends:
            for address in addresses:
                self.ip(namespace, f"addr add {address} dev {interface}")
            self.ip(namespace, f"link set {interface} up")

    def ip(self, namespace: str, command: str) -> str:
        return self._ip("-n", self._prefix + namespace, *command.split())

    def run(self, namespace: str, *command: str, check: bool = True) -> str:
        """Run a command there and return what it printed; with ``check`` it must succeed."""
        done = subprocess.run(
            self._inside(namespace, command),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def python(self, namespace: str, code: str, *arguments: str, before: str = "") -> str:
        """Run Python code there; ``before`` is shell to run first, in the same mount namespace."""
        command = (sys.executable, "-c", code, *arguments)
        if before:
            command = ("sh", "-c", before + ' && exec "$@"', "sh", *command)
        return self.run(namespace, *command)

    def start(self, namespace: str, *command: str) -> subprocess.Popen[str]:
        """Start a process there, talked to over pipes; killed at the end."""
        process = subprocess.Popen(
            self._inside(namespace, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=self.root,
        )
        self._processes.append(process)
        return process

    def sysctl(self, namespace: str, name: str, value: str) -> None:
        path = "/proc/sys/" + name
        self.run(namespace, "sh", "-c", f"echo {value} > {path}")

    def remove(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        # With what runs there still: a daemon's children, what a shell left in the background.
        for name in reversed(self._names):
            reaper.remove_namespace(self._prefix + name)
        with contextlib.suppress(ValueError):
            self.standing.remove(self)

    def command(self, namespace: str, *command: str) -> list[str]:
        """The command line that runs a command in a namespace."""
        return self._inside(namespace, command)

    def running(self, namespace: str) -> str:
        """The names of the programs that run there."""
        found = self._ip("netns", "pids", self._prefix + namespace).split()
        names = []
        for process in found:
            with contextlib.suppress(OSError):
                names.append(Path(f"/proc/{process}/comm").read_text().strip())
        return " ".join(sorted(names)) or "none"

    def _inside(self, namespace: str, command: tuple[str, ...]) -> list[str]:
        return ["ip", "netns", "exec", self._prefix + namespace, *command]

    @staticmethod
    def _ip(*arguments: str) -> str:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
        return done.stdout
