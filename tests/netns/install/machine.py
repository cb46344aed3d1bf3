"""A Debian that boots: systemd as first process of a pid namespace, in a namespace of the topology.

Its files are this host's, with what `scripts/install --root` made on top; what is written there is
in memory and gone with it. Its units are the few that a service leans on, so that booting starts
nothing that would touch this host's devices; of /proc/sys it may write the network's part only.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType

from tests.netns.topology import Topology, eventually

# The whole life of the machine's file systems is in the mount namespace that this runs in.
BOOT = r"""
set -eu
top=$1 installed=$2 project=$3
mount --make-rprivate /
mount -t tmpfs tmpfs "$top"
mkdir "$top/new" "$top/work" "$top/root"
cp -a "$installed/." "$top/new"
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/new,workdir=$top/work" "$top/root"
cd "$top/root"
mount -t proc proc proc
mount --bind proc/sys/net proc/sys/net
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind /proc/sys/net proc/sys/net
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do
    touch "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/pts dev/shm
mount -t devpts devpts dev/pts
ln -s pts/ptmx dev/ptmx
for place in run tmp var/tmp var/log; do mount -t tmpfs tmpfs "$place"; done
mkdir -p "./$project"
mount --bind "$project" "./$project"
mkdir -p etc/units/sysinit.target.wants
for unit in basic.target sysinit.target multi-user.target network-online.target shutdown.target \
    sockets.target systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket
do
    cp "lib/systemd/system/$unit" etc/units
done
ln -s ../systemd-journald.service etc/units/sysinit.target.wants
: >etc/fstab
mkdir before
pivot_root . before
umount -l before
export container=other SYSTEMD_UNIT_PATH=/etc/units:/etc/systemd/system SYSTEMD_GENERATOR_PATH=/none
exec /lib/systemd/systemd --unit=multi-user.target --log-target=journal --show-status=no
"""


class Machine:
    """``with Machine(net, "gw", root) as machine:``; ``root`` is what was installed into."""

    def __init__(self, net: Topology, namespace: str, root: Path) -> None:
        self._net = net
        self._namespace = namespace
        self._root = root

    def __enter__(self) -> Machine:
        top = self._net.directory / "machine"
        top.mkdir(exist_ok=True)
        self._log = (self._net.directory / "boot").open("w+")
        self._keeper = subprocess.Popen(
            self._net.command(
                self._namespace,
                *("unshare", "--mount", "--pid", "--cgroup", "--uts", "--ipc"),
                *("--fork", "--kill-child"),
                *("sh", "-c", BOOT, "sh", str(top), str(self._root), str(self._net.root)),
            ),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd="/",
        )
        try:
            eventually(self._is_running)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._keeper.kill()
        self._keeper.wait()
        self._log.close()

    def run(self, *command: str, status: int = 0) -> str:
        """Run a command there; what it printed, standard error included."""
        done = self._run(*command)
        assert done.returncode == status, f"{command}: {done.returncode}: {done.stdout}"
        return done.stdout

    def shell(self, script: str) -> str:
        return self.run("bash", "-c", script)

    def journal(self) -> str:
        """What the service has said."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", "snatgw")

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        flags = ("--mount", "--pid", "--net", "--cgroup", "--uts", "--ipc")
        return subprocess.run(
            ["nsenter", "--target", self._first_process(), *flags, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
            cwd="/",
        )

    def _first_process(self) -> str:
        keeper = self._keeper.pid
        return Path(f"/proc/{keeper}/task/{keeper}/children").read_text().strip()

    def _is_running(self) -> bool:
        self._log.seek(0)
        assert self._keeper.poll() is None, self._log.read()
        if not self._first_process():
            return False
        return self._run("systemctl", "is-system-running").stdout.strip() == "running"
