"""A Docker of the tests' own, which the machine does not notice.

``dockerd`` runs in network, mount and process namespaces of its own: its bridges and rules are
there, and when its first process ends, all of its containers and mounts are gone. What it writes is
in the given directory. slirp4netns, a user's process, is its way to package mirrors.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests import reaper

PATIENCE = 60.0
ROOT = Path(__file__).parents[2]

_SETUP = """
set -e
ip link set lo up
# A Docker that this machine may have, and its settings, are out of sight.
for place in /run/containerd /run/docker /etc/docker; do
    [ ! -d $place ] || mount -t tmpfs none $place
done
exec dockerd --config-file "$1/daemon.json" --data-root "$1/data" --exec-root "$1/exec" \
    --pidfile "$1/pid" --host "unix://$1/docker.sock" --cgroup-parent "$2" \
    --exec-opt native.cgroupdriver=cgroupfs
"""
# However a test run ends, killed or not, it leaves no Docker behind.
_UNTIL_WE_END = ("setpriv", "--pdeathsig", "KILL")


class CannotRunError(Exception):
    """Why there is no dockerd, with the last lines that it said."""


class PrivateDocker:
    """``with PrivateDocker(directory) as docker:``; the directory is removed with it.

    ``network``: the file of a network namespace to run in, instead of one of its own with a way out.
    """

    def __init__(self, directory: Path, network: Path | None = None) -> None:
        self.directory = directory
        self._network = network
        self._cgroup = f"snatgw-test-{os.getpid()}"
        self._log = directory / "dockerd.log"
        self._unshare: subprocess.Popen[bytes] | None = None
        self._slirp: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[str]] = []
        self.pid = 0
        """dockerd's, as this process sees it."""

    def __enter__(self) -> PrivateDocker:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def cli(self, *arguments: str, status: int | None = 0) -> str:
        """``docker …``: what it prints. ``status`` None: whatever it exits with."""
        return self.run(["docker", *arguments], status)

    def compose(self, project: Path, *arguments: str, status: int | None = 0) -> str:
        """``docker-compose -f …/docker/compose.yaml …`` of a copy of this repository."""
        file = str(project / "docker" / "compose.yaml")
        return self.run(["docker-compose", "--ansi", "never", "-f", file, *arguments], status)

    def host(self, *command: str, status: int | None = 0) -> str:
        """Run a command in dockerd's network."""
        return self.run(self._inside(command), status)

    # As tests.netns.topology.Capture wants it of a topology; there is one network only.
    def start(self, _namespace: str, *command: str) -> subprocess.Popen[str]:
        """Start a process in dockerd's network; it ends with dockerd at last."""
        process = subprocess.Popen(
            self._inside(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._started.append(process)
        return process

    def python(self, _namespace: str, code: str) -> str:
        return self.host(sys.executable, "-c", code)

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "DOCKER_HOST": f"unix://{self.directory}/docker.sock",
            "DOCKER_CONFIG": str(self.directory / "client"),
            "PIP_NO_INDEX": "1",  # a build's argument: docker/wheels has all
        }

    def bridge(self, network: str) -> str:
        """The name of a network's bridge."""
        return "br-" + self.cli("network", "inspect", "-f", "{{.Id}}", network)[:12]

    def _inside(self, command: tuple[str, ...]) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-n", *command]

    def run(self, command: list[str], status: int | None) -> str:
        """Any command that talks to this Docker; what it prints on both outputs."""
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
            env=self.environment(),
        )
        wrong = status is not None and done.returncode != status
        assert not wrong, f"{command}: status {done.returncode}: {done.stdout[-4000:]}"
        return done.stdout

    def _start(self) -> None:
        reaper.tell("directory", self.directory)
        (self.directory / "client").mkdir()
        (self.directory / "daemon.json").write_text("{}\n")
        missing = [
            program
            for program in ("dockerd", "docker", "docker-compose", "unshare", "slirp4netns")
            if shutil.which(program) is None
        ]
        if missing:
            raise CannotRunError(f"not installed: {', '.join(missing)}")
        with self._log.open("wb") as log:
            there = ("--net",) if self._network is None else ()
            enter = ("nsenter", f"--net={self._network}") if self._network is not None else ()
            self._unshare = subprocess.Popen(
                [
                    *_UNTIL_WE_END,
                    *enter,
                    *("unshare", *there, "--mount", "--pid", "--fork", "--mount-proc"),
                    *("--kill-child", "sh", "-c", _SETUP, "sh"),
                    *(str(self.directory), self._cgroup),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._wait_for_dockerd(self._unshare)
            if self._network is not None:
                return
            self._slirp = subprocess.Popen(
                [
                    *_UNTIL_WE_END,
                    *("slirp4netns", "--configure", "--disable-host-loopback"),
                    *("--netns-type=path", f"/proc/{self.pid}/ns/net", "tap0"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + PATIENCE
        while "tap0" not in self.host("ip", "-4", "route", "show", "default"):
            if time.monotonic() > end or self._slirp.poll() is not None:
                raise CannotRunError(
                    f"slirp4netns has no outbound connectivity: {self._last_lines()}"
                )
            time.sleep(0.05)

    def _wait_for_dockerd(self, unshare: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + PATIENCE
        while unshare.poll() is None and time.monotonic() < end:
            children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
            if children:
                self.pid = int(children[0])
            if self.pid and self.cli("info", "-f", "up", status=None).strip() == "up":
                return
            time.sleep(0.1)
        raise CannotRunError(self._last_lines())

    def _last_lines(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    def _stop(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if self._slirp is not None:
            self._slirp.terminate()
            self._slirp.wait()
        if self._unshare is not None:
            if self.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGTERM)
            try:
                self._unshare.wait(20)
            except subprocess.TimeoutExpired:
                self._unshare.kill()  # and its child with it: first process of its namespace
                self._unshare.wait()
        for group in self._cgroups():
            with contextlib.suppress(OSError):
                group.rmdir()
        shutil.rmtree(self.directory)

    def _cgroups(self) -> Iterator[Path]:
        """The cgroups that dockerd made, in whichever hierarchies, the inner ones first."""
        for pattern in (self._cgroup, f"*/{self._cgroup}"):
            for top in Path("/sys/fs/cgroup").glob(pattern):
                for path, _, _ in os.walk(top, topdown=False):
                    yield Path(path)
