"""The trial of a restart: iperf3 and many idle connections across it, and what became of them.

``trial(gateway, restart, seconds)`` is what `tests/netns/test_restart.py` and
`scripts/trial-restart` have in common; ``python -m tests.netns.restarting`` is the latter.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from tests.netns import gateway as settings
from tests.netns.gateway import Gateway
from tests.netns.topology import SERVER, SERVER2, Topology, eventually

IDLE = 1000


@dataclass
class Outcome:
    """What was seen. ``standstill``: seconds of iperf3 in which nothing arrived."""

    idle: int
    echoed: int
    failed: int
    same_ports: bool
    standstill: int
    intervals: int
    gigabits: float
    iperf_error: str
    down: float
    """Seconds from the signal to the next ``ready``."""


def by_sigterm(gateway: Gateway) -> None:
    assert gateway.stop() == 0
    gateway.start()


def by_sigkill(gateway: Gateway) -> None:
    gateway.kill()
    gateway.start()


def by_upgrade(gateway: Gateway) -> None:
    """Another VM, a rule more and a longer time-out in the file."""
    assert gateway.stop() == 0
    machines = gateway.configuration["virtualMachines"]
    machines.append({"name": "vm9", "privateIPAddress": "10.0.1.9"})
    gateway.configuration["gateway"]["icmpEcho"] = "translate"
    gateway.start()


WAYS: dict[str, Callable[[Gateway], None]] = {
    "sigterm": by_sigterm,
    "sigkill": by_sigkill,
    "upgrade": by_upgrade,
}


def trial(gateway: Gateway, restart: Callable[[Gateway], None], seconds: int) -> Outcome:
    """Restart in the middle of ``seconds`` of iperf3 from vm3; the idle connections are vm3's."""
    net = gateway.net
    vm = net.client("vm3")  # has all ports of an address
    vm.open(IDLE, SERVER)
    eventually(vm.connections, lambda seen: seen["connected"] == IDLE)
    assert vm.talk() == IDLE
    before = ports_of(gateway)
    net.start("internet", "iperf3", "-s", "-1", "-B", SERVER2)
    eventually(lambda: "5201" in net.run("internet", "ss", "-Hltn"))
    iperf = net.start("vm3", "iperf3", "-c", SERVER2, "-J", "-i", "1", "-t", str(seconds))
    time.sleep(seconds * 0.4)
    began = time.monotonic()
    restart(gateway)
    down = time.monotonic() - began
    assert iperf.stdout is not None
    said = json.loads(iperf.stdout.read())
    echoed = vm.talk_all()
    seen = vm.connections()
    sums = [interval["sum"] for interval in said["intervals"]]
    return Outcome(
        idle=IDLE,
        echoed=echoed,
        failed=seen["failed"],
        same_ports=before == ports_of(gateway),
        standstill=sum(one["bytes"] == 0 for one in sums),
        intervals=len(sums),
        gigabits=round(sum(one["bits_per_second"] for one in sums) / max(len(sums), 1) / 1e9, 2),
        iperf_error=said.get("error", ""),
        down=round(down, 2),
    )


def ports_of(gateway: Gateway) -> set[tuple[int, int]]:
    """Private and public ports of the idle connections, as the gateway has them."""
    flows = gateway.flows("--remote", f"{SERVER}:7", "--limit", str(2 * IDLE))
    return {(flow["private"]["port"], flow["public"]["port"]) for flow in flows}


def main() -> None:
    """Every way, in both modes; one line of JSON each."""
    parser = argparse.ArgumentParser(prog="trial-restart", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of iperf3, for each trial")
    parser.add_argument("--way", choices=WAYS, help="only this one")
    arguments = parser.parse_args()
    good = True
    for mode in ("on", "off"):
        for name, restart in WAYS.items():
            if arguments.way not in (None, name):
                continue
            settings.fast_path = mode
            with Topology() as net:
                gateway = Gateway(net)
                gateway.start()
                seen = trial(gateway, restart, arguments.seconds)
                print(json.dumps({"fastPath": mode, "way": name} | asdict(seen)), flush=True)
                good = good and (seen.echoed, seen.failed, seen.same_ports) == (IDLE, 0, True)
                good = good and not seen.iperf_error and not (mode == "on" and seen.standstill)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
