"""``python -m tests.unit.daemon.pretended FILE SOCKET FAULTS``: a daemon on a pretended host.

Notes each step in the file ``steps`` beside the configuration. FAULTS is JSON: ``fail`` names the
step that fails, ``lose`` is how many packets the queue says that it lost.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.daemon.engine_process.host import GuardState
from gateway.daemon.start.startup import Start, run
from gateway.datapath.errors import DatapathError
from gateway.datapath.fastpath import FastPath
from gateway.datapath.host.host_probes import Finding
from gateway.datapath.host.netfilter_rules import QueueNumbers
from gateway.datapath.queue import PacketHandlers, QueueStatistics
from gateway.model.configuration import Configuration
from gateway.model.reading.load import load
from gateway.schema.drop_reasons import DropReason
from gateway.web.site import Site


class PretendedQueue:
    """A queue that never gets a packet."""

    numbers = QueueNumbers(1, 2)
    last_error = ""

    def __init__(self, lost: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._lost = lost
        self._looks = 0

    def descriptors(self) -> tuple[int, ...]:
        return (self._socket.fileno(),)

    def interfaces_are(self, inside: Iterable[int], outside: int) -> None:
        raise AssertionError("no interface is made again here")

    def drain(self, descriptor: int, limit: int, now: float) -> int:
        return 0

    def statistics(self) -> QueueStatistics:
        self._looks += 1
        lost = self._lost if self._looks > 1 else 0
        return QueueStatistics(0, 0, 0, 0, lost, 0, 0)


class PretendedDiverted:
    def __init__(self, configuration: Configuration, *, refuses: bool) -> None:
        self._configuration = configuration
        self._refuses = refuses
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._network = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._probes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    renewed: frozenset[str] = frozenset()

    def with_real_names(self, configuration: Configuration) -> Configuration:
        return configuration

    def change(self, configuration: Configuration) -> None:
        if self._refuses and configuration != self._configuration:
            raise DatapathError(["the kernel refuses"])

    def refresh(self) -> list[str]:
        return []

    def rules_restored(self) -> int:
        return 0

    firewall_said: tuple[str, ...] = ()

    def firewall(self) -> None:
        return None

    def dropped_by_rules(self) -> dict[DropReason, int]:
        return {}

    def rules_moved(self) -> int:
        return 0

    def look_at_rules(self) -> None:
        raise AssertionError("no rules change here")

    def guard(self) -> GuardState:
        return GuardState("this host only pretends")

    def guard_drops_reported(self) -> None:
        pass

    def guard_fileno(self) -> int:
        return os.dup(self._socket.fileno())

    def restore_guard(self) -> None:
        raise AssertionError("nobody takes it away here")

    def leave(self) -> None:
        pass

    def network_fileno(self) -> int:
        return self._network.fileno()

    def probes_fileno(self) -> int:
        return self._probes.fileno()

    def arp_document(self) -> dict[str, object]:
        return {}

    def answer_probes(self) -> None:
        raise AssertionError("nobody asks here")

    def look_at_network(self) -> bool:
        raise AssertionError("no network changes here")

    def restored(self) -> list[str]:
        return []

    def programmed(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._socket.fileno()


class PretendedHost:
    """Does nothing but write down what it was asked to do."""

    def __init__(self, steps: Path, fail: str | None, lose: int) -> None:
        self._steps = steps
        self._fail = fail
        self._lose = lose

    def _step(self, name: str) -> None:
        if name == self._fail:
            raise DatapathError([f"{name} one", f"{name} two"])
        with self._steps.open("a") as file:
            file.write(f"{name}\n")

    def with_real_names(self, configuration: Configuration) -> Configuration:
        return configuration

    def findings(self, configuration: Configuration) -> list[Finding]:
        if self._fail == "findings":
            with self._steps.open("a") as file:
                file.write("findings\n")
            return [Finding(w, False, f"findings {w}") for w in ("one", "two")]
        self._step("findings")
        return [Finding("all", True, "all is healthy")]

    @contextmanager
    def claim(self, configuration: Configuration) -> Iterator[object]:
        self._step("claim")
        try:
            yield None
        finally:
            self._step("released")

    @contextmanager
    def queue(
        self, configuration: Configuration, handlers: PacketHandlers, uncut: object
    ) -> Iterator[PretendedQueue]:
        self._step("queue")
        try:
            yield PretendedQueue(self._lose)
        finally:
            self._step("queue-closed")

    @contextmanager
    def fast_path(self, configuration: Configuration) -> Iterator[FastPath]:
        raise DatapathError(["this host only pretends"])
        yield

    @contextmanager
    def diversion(self, configuration: Configuration, queue: object) -> Iterator[PretendedDiverted]:
        self._step("diversion")
        if self._fail == "supervisor":
            (supervisor,) = children()
            os.kill(supervisor, signal.SIGKILL)
            os.waitpid(supervisor, 0)
        try:
            yield PretendedDiverted(configuration, refuses=self._fail == "divert")
        finally:
            self._step("diversion-removed")


def children() -> list[int]:
    """This process's."""
    pid = os.getpid()
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def main() -> int:
    file, api = Path(sys.argv[1]), Path(sys.argv[2])
    faults = json.loads(sys.argv[3])
    host = PretendedHost(file.parent / "steps", faults.get("fail"), int(faults.get("lose", 0)))
    return run(Start(lambda: load(file), file, api, Site.load()), host)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
