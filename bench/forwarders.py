"""The ways of forwarding that are compared, each in a gateway namespace of its own.

``drop``        not a way of forwarding: what arrives is dropped at once (raw/PREROUTING), which
                leaves the sender's own cost
``plain``       the kernel forwards; no netfilter rule at all                        (a)
``masquerade``  the kernel forwards and masquerades: connection tracking and NAT     (b)
``nfqueue``     ``bare_queue.py`` on the same hooks as the gateway: outbound in
                mangle/FORWARD, inbound in mangle/PREROUTING, no tracking            (c)
``snatgw``      the real daemon, ``snatgw run``, default SNAT, ``fastPath: off``        (d)
``fast``        the same with ``fastPath: on``: eBPF carries live flows              (e)

And two other programs of user space. They do not stand between two interfaces: each makes a tap
device in the VM's namespace, in the place of its wire, and opens sockets of its own in the
gateway's. Both as rootless Podman starts them, with an MTU of 65,520:

``slirp4netns``  TCP and UDP end in a TCP/IP stack of its own, libslirp             (f)
``pasta``        between the tap device and sockets, without a stack of its own     (g)
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.namespaces import (
    DISCARD,
    NETNS,
    PUBLIC_IP,
    VM_NETWORK,
    BenchError,
    Wires,
    inside,
    run,
)

ROOT = Path(__file__).resolve().parent.parent
QUEUE = 7
START_PATIENCE = 20.0  # seconds until a program must say that it is ready
FAST = "fast"
FORWARDERS = ("plain", "masquerade", "nfqueue", "snatgw", FAST)
DROP = "drop"
OTHERS = ("slirp4netns", "pasta")
LETTERS = dict(zip((*FORWARDERS, *OTHERS), "abcdefg", strict=True))
HTTP = "127.0.0.1:8480"
"""Where the daemon's dashboard and metrics are, in its own namespace."""

CONFIGURATION = """\
gateway:
  inside: [lan0]
  outside: wan0
  fastPath: {fast_path}
  maximumFlows: 1500000
  http: {http}
  stateDirectory: {state}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{{name: vms, addressPrefix: 10.0.0.0/16}}]
publicIPAddresses: [{{name: pip, ipAddress: {public_ip}}}]
defaultOutboundAccess: {{publicIPAddresses: [pip]}}
"""


@dataclass
class Forwarder:
    """A gateway that is up. ``pid``: the process on the packets' path, if there is one."""

    name: str
    wires: Wires
    pid: int | None = None
    api: Path | None = None
    others: list[int] = field(default_factory=list)  # its processes that packets do not wait for

    def settle(self, packets: int, rest: int) -> None:
        """Keep the packets' process on one processor and the rest of it on another."""
        if self.pid is not None:
            os.sched_setaffinity(self.pid, {packets})
            for other in self.others:
                os.sched_setaffinity(other, {rest})

    def roam(self) -> None:
        """Let the scheduler choose."""
        for pid in (self.pid, *self.others):
            if pid is not None:
                os.sched_setaffinity(pid, range(os.cpu_count() or 1))


@contextmanager
def forwarder(wires: Wires, directory: Path) -> Iterator[Forwarder]:
    """Bring up the forwarder that the wires are named after; take it down at the end."""
    with ExitStack() as stack:
        result = Forwarder(wires.name, wires)
        _START[wires.name](result, directory, stack)
        yield result


def _drop(gateway: Forwarder, directory: Path, stack: ExitStack) -> None:
    rule = f"-i lan0 -p udp --dport {DISCARD} -j DROP"
    _restore(gateway, f"*raw\n-A PREROUTING {rule}\nCOMMIT\n")


def _plain(gateway: Forwarder, directory: Path, stack: ExitStack) -> None:
    _forward(gateway)


def _masquerade(gateway: Forwarder, directory: Path, stack: ExitStack) -> None:
    _restore(gateway, "*nat\n-A POSTROUTING -o wan0 -j MASQUERADE\nCOMMIT\n")
    _forward(gateway)


def _nfqueue(gateway: Forwarder, directory: Path, stack: ExitStack) -> None:
    program = [sys.executable, str(Path(__file__).with_name("bare_queue.py")), str(QUEUE)]
    gateway.pid = _start(gateway, program, "ready", directory, stack)
    queue = f"-j NFQUEUE --queue-num {QUEUE}"
    _restore(
        gateway,
        "*mangle\n"
        f"-A PREROUTING -i wan0 -d {VM_NETWORK} {queue}\n"
        f"-A FORWARD -i lan0 -o wan0 {queue}\n"
        "COMMIT\n*raw\n"
        "-A PREROUTING -i lan0 -j CT --notrack\n"
        f"-A PREROUTING -i wan0 -d {VM_NETWORK} -j CT --notrack\n"
        "COMMIT\n",
    )
    _forward(gateway)


def _snatgw(gateway: Forwarder, directory: Path, stack: ExitStack) -> None:
    own = directory / gateway.name
    own.mkdir(mode=0o755)
    file, gateway.api = own / "gateway.yaml", own / "api.sock"
    path = "on" if gateway.name == FAST else "off"
    text = CONFIGURATION.format(state=own / "state", public_ip=PUBLIC_IP, fast_path=path, http=HTTP)
    file.write_text(text)
    program = [sys.executable, "-m", "gateway", "run", "-c", str(file), "--api", str(gateway.api)]
    gateway.pid = _start(gateway, program, "ready", directory, stack)
    gateway.others = list(_descendants(gateway.pid))


def _slirp4netns(gateway: Forwarder, directory: Path, stack: ExitStack) -> None:
    program = ["slirp4netns", "--netns-type=path", "--configure", "--mtu=65520"]
    options = ["--disable-host-loopback", str(NETNS / gateway.wires.vm), "tap0"]
    _start_tap(gateway, [*program, *options], directory, stack)


def _pasta(gateway: Forwarder, directory: Path, stack: ExitStack) -> None:
    no_ports = [word for option in "tuTU" for word in (f"-{option}", "none")]
    program = ["pasta", "--foreground", "--config-net", "--runas", "0", *no_ports]
    _start_tap(gateway, [*program, "--netns", str(NETNS / gateway.wires.vm)], directory, stack)


_START: dict[str, Callable[[Forwarder, Path, ExitStack], None]] = {
    DROP: _drop,
    "plain": _plain,
    "masquerade": _masquerade,
    "nfqueue": _nfqueue,
    "snatgw": _snatgw,
    FAST: _snatgw,
    "slirp4netns": _slirp4netns,
    "pasta": _pasta,
}


def _forward(gateway: Forwarder) -> None:
    run([*inside(gateway.wires.gateway), "sysctl", "-qw", "net.ipv4.ip_forward=1"])


def _restore(gateway: Forwarder, text: str) -> None:
    run([*inside(gateway.wires.gateway), "iptables-restore"], text=text)


def _start(
    gateway: Forwarder, program: Sequence[str], ready: str, directory: Path, stack: ExitStack
) -> int:
    """Start a program in the gateway and wait for the line that starts with ``ready``."""
    log = directory / f"{gateway.name}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*inside(gateway.wires.gateway), *program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    stack.callback(stop, process)
    assert process.stdout is not None
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline() if waiting.select(START_PATIENCE) else b""
    if not line.startswith(ready.encode()):
        said = log.read_text().strip().splitlines() or [f"not ready after {START_PATIENCE:.0f} s"]
        raise BenchError(f"{' '.join(program)}: {said[-1]}")
    return process.pid  # `ip netns exec` becomes the program: the same process


def _start_tap(
    gateway: Forwarder, program: Sequence[str], directory: Path, stack: ExitStack
) -> None:
    """Start a program that gives the VM a tap device, and wait for the default route by it."""
    run(["ip", "-n", gateway.wires.gateway, "link", "del", "lan0"])
    log = directory / f"{gateway.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*inside(gateway.wires.gateway), *program],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    stack.callback(stop, process)
    end = time.monotonic() + START_PATIENCE
    while not run(["ip", "-n", gateway.wires.vm, "route", "show", "default"]):
        if process.poll() is not None or time.monotonic() > end:
            said = log.read_text(errors="replace").strip().splitlines() or ["no route in the VM"]
            raise BenchError(f"{gateway.name}: {said[-1]}")
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that this benchmark started: asked first, then made to."""
    process.terminate()
    try:
        process.wait(8)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from _descendants(int(child))
