"""The usual network with its servers and clients, for a test: ``networks.build_usual`` draws it.

``internet`` has servers on its addresses (``servers.py``), as ``far`` has.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from scapy.all import Packet, rdpcap

from tests import reaper
from tests.netns.datapath.topology import Namespaces
from tests.netns.networks import FAR as FAR
from tests.netns.networks import INSIDE as INSIDE
from tests.netns.networks import NARROW as NARROW
from tests.netns.networks import OUTSIDE as OUTSIDE
from tests.netns.networks import ROUTER as ROUTER
from tests.netns.networks import SERVER as SERVER
from tests.netns.networks import SERVER2 as SERVER2
from tests.netns.networks import SERVER3 as SERVER3
from tests.netns.networks import VMS as VMS
from tests.netns.networks import build_usual

DEADLINE = 60.0
MARK = 0x88B5  # an Ethernet type for local experiments
_serial = itertools.count()


def eventually(look: Callable[[], Any], wanted: Callable[[Any], Any] = bool) -> Any:
    """What ``look`` returns once it is ``wanted``; the last thing seen fails the test."""
    end = time.monotonic() + DEADLINE
    while not wanted(seen := look()):
        assert time.monotonic() < end, f"still {seen!r} after {DEADLINE} s"
        time.sleep(0.05)
    return seen


class Client:
    """``client.py`` in a namespace: ``vm.peer("Udp", SERVER)`` calls its function ``peer``."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            from tests.netns import client

            function = getattr(client, name)
            names = function.__code__.co_varnames[: function.__code__.co_argcount]
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            request = [name, dict(zip(names, arguments, strict=False)) | named]
            self._process.stdin.write(json.dumps(request) + "\n")
            line = self._process.stdout.readline()
            assert line, f"the client died in {name}{arguments}"
            return json.loads(line)

        return call


class Topology(Namespaces):
    """``with Topology() as net:`` builds it; everything is gone after it, whatever happened."""

    def __init__(self) -> None:
        super().__init__()
        self._prefix = self._prefix.replace("-dp", "-t")
        self._clients: dict[str, Client] = {}
        self.directory = Path(tempfile.mkdtemp(prefix=f"snatgw-test-{os.getpid()}-"))
        reaper.tell("directory", self.directory)
        self.directory.chmod(0o755)  # the daemon's API process is nobody

    def __enter__(self) -> Topology:
        try:
            self._build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def _build(self) -> None:
        build_usual(self)
        for namespace, addresses in (("internet", (SERVER, SERVER2, SERVER3)), ("far", (FAR,))):
            servers = self.start(namespace, sys.executable, "-m", "tests.netns.servers", *addresses)
            assert servers.stdout is not None
            assert servers.stdout.readline() == "up\n"

    def client(self, namespace: str) -> Client:
        """The programs of a VM (or of any other host)."""
        if namespace not in self._clients:
            process = self.start(namespace, sys.executable, "-m", "tests.netns.client")
            self._clients[namespace] = Client(process)
        return self._clients[namespace]

    def capture(self, namespace: str, interface: str, expression: str = "") -> Capture:
        return Capture(self, namespace, interface, expression)

    def remove(self) -> None:
        super().remove()
        shutil.rmtree(self.directory)

    def processes(self, namespace: str, module: str) -> list[str]:
        """Those that run a Python module there."""
        found = self._ip("netns", "pids", self._prefix + namespace).split()
        commands = {}
        for process in found:
            with contextlib.suppress(OSError):
                commands[process] = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        return [process for process, words in commands.items() if module.encode() in words]


class Capture:
    """tcpdump on an interface, from its making until ``packets`` is asked for."""

    def __init__(self, net: Topology, namespace: str, interface: str, expression: str) -> None:
        self._net, self._namespace, self._interface = net, namespace, interface
        self._file = net.directory / f"{next(_serial)}.pcap"
        wanted = f"({expression}) or ether proto {MARK}" if expression else ""
        self._process = net.start(
            namespace, "sh", "-c",
            f"exec tcpdump -Z root --immediate-mode -nU -i {interface} -B 16384 "
            f"-w {self._file} '{wanted}' 2>&1",
        )  # fmt: skip
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "listening on" in line:
                return
        raise AssertionError("tcpdump did not start")

    def packets(self) -> list[Packet]:
        """All frames so far, as scapy has them. A frame of our own marks the end, so that none
        is missed that is still on its way to the file."""
        frame = f"b'\\xff' * 12 + ({MARK}).to_bytes(2, 'big') + b'\\0' * 46"
        self._net.python(
            self._namespace,
            "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); "
            f"s.bind(('{self._interface}', 0)); s.send({frame})",
        )

        def read() -> list[Packet]:
            return list(rdpcap(str(self._file)))

        # Behind the mark others may follow, where packets go on meanwhile.
        seen = eventually(read, lambda frames: any(frame.type == MARK for frame in frames))
        self._process.terminate()
        return [frame for frame in seen if frame.type != MARK]

    def lines(self) -> list[str]:
        """The same, one line each."""
        return [packet.summary() for packet in self.packets()]
