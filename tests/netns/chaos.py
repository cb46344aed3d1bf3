"""The trial of a leak: others do to the host what they do, and nothing private leaves.

Faults in a random order, from a seed, under load: rules flushed in every usual way, an ACCEPT in
front of ours, restarts, reloads, kills, addresses that go and come back. The wire on the internet's
side is captured all the while: no packet there may have an address of the virtual network at either
end, and no ICMP error may quote one. At the end the gateway must serve its VMs as before.

``run(gateway, ...)`` is what ``tests/netns/test_chaos.py`` and ``scripts/trial-chaos`` have in
common; ``python -m tests.netns.chaos`` is the latter.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from scapy.all import ICMP, IP

from tests.netns import gateway as settings
from tests.netns.gateway import Gateway
from tests.netns.topology import INSIDE, OUTSIDE, ROUTER, SERVER, Topology, eventually

RATE = 2400
"""Datagrams a second of each of two VMs; TCP connections come on top."""
PRIVATE = "10."
TABLES = ("raw", "mangle", "nat", "filter")


@dataclass
class Outcome:
    """``private``: packets outside with a private address at either end, or quoting one."""

    faults: dict[str, int]
    private: int
    first: str
    sent: int
    seconds: float
    outside: int
    """Packets that came to the internet's side."""
    dropped_by_guard: int
    served: bool


class Chaos:
    """Does to a gateway's host what its name is."""

    def __init__(self, gateway: Gateway, chance: random.Random) -> None:
        self._gateway, self._net, self._chance = gateway, gateway.net, chance
        self.faults: dict[str, Callable[[], None]] = {
            "flush ruleset": self._flush,
            "flush a table": self._flush_table,
            "restore of others' rules": self._restore,
            "two flushes": self._two_flushes,
            "accept in front": self._accept,
            "sigterm": self._sigterm,
            "reload": self._reload,
            "sigkill": self._sigkill,
            "sigkill and flush": self._sigkill_and_flush,
            "inside address": self._inside_address,
            "outside address": self._outside_address,
            "guard removed": self._guard_removed,
        }

    def _shell(self, text: str) -> None:
        self._net.run("gw", "sh", "-c", text)

    def _pause(self, longest: float) -> None:
        time.sleep(self._chance.uniform(0, longest))

    def _flush(self) -> None:
        self._shell("nft flush ruleset")

    def _flush_table(self) -> None:
        self._shell(f"iptables -t {self._chance.choice(TABLES)} -F")

    def _restore(self) -> None:
        rules = "".join(f"*{table}\\nCOMMIT\\n" for table in TABLES)
        self._shell(f"printf '{rules}' | iptables-restore")

    def _two_flushes(self) -> None:
        self._flush()
        self._pause(0.3)
        self._flush()

    def _accept(self) -> None:
        table = self._chance.choice(("mangle", "filter"))
        chains = ("FORWARD", "POSTROUTING") if table == "mangle" else ("FORWARD", "INPUT")
        for chain in chains:
            self._shell(f"iptables -t {table} -I {chain} -j ACCEPT")
        self._pause(1)
        for chain in chains:
            self._shell(f"iptables -t {table} -D {chain} -j ACCEPT || true")

    def _sigterm(self) -> None:
        assert self._gateway.stop() == 0
        self._pause(1)
        self._gateway.start()

    def _reload(self) -> None:
        network = self._gateway.configuration["virtualNetwork"]
        network["addressPrefixes"] = ["10.0.0.0/16", "10.7.0.0/16"][: self._chance.randint(1, 2)]
        self._gateway.reload()

    def _sigkill(self) -> None:
        self._gateway.kill()
        self._pause(1)
        self._gateway.start()

    def _sigkill_and_flush(self) -> None:
        self._gateway.kill()
        self._flush()
        self._pause(1)
        self._gateway.start()

    def _inside_address(self) -> None:
        self._net.ip("gw", f"addr del {INSIDE}/24 dev lan0")
        self._pause(1)
        self._net.ip("gw", f"addr add {INSIDE}/24 dev lan0")

    def _outside_address(self) -> None:
        self._net.ip("gw", f"addr del {OUTSIDE}/24 dev wan0")
        self._pause(1)
        self._net.ip("gw", f"addr add {OUTSIDE}/24 dev wan0")
        self._net.ip("gw", f"route replace default via {ROUTER}")

    def _guard_removed(self) -> None:
        self._shell("tc filter del dev wan0 egress")
        if self._chance.random() < 0.5:
            self._shell("tc qdisc del dev wan0 clsact || true")


def run(gateway: Gateway, *, faults: int, seed: int, forwarding: str, pause: float) -> Outcome:
    """``faults`` of them, each after up to ``pause`` seconds. ``forwarding``: the host's own."""
    net, chance = gateway.net, random.Random(seed)
    net.sysctl("gw", "net/ipv4/ip_forward", forwarding)
    gateway.start()
    capture = net.capture("internet", "eth0", "ip and (net 10.0.0.0/8 or icmp)")
    outside = received(net)
    chaos = Chaos(gateway, chance)
    for vm, ports in (("vm1", 300), ("vm3", None)):
        net.client(vm).keep_sending(SERVER, rate=RATE, ports=ports)
        net.client(vm).keep_connecting(SERVER)
    began = time.monotonic()
    done: Counter[str] = Counter()
    names = list(chaos.faults)
    order = [names[n % len(names)] for n in range(faults)]  # of each as many
    chance.shuffle(order)
    for name in order:
        chaos._pause(pause)
        chaos.faults[name]()
        done[name] += 1
    served = all(
        eventually(lambda vm=vm: net.client(vm).peer("Udp", SERVER, patience=0.5) != "TimeoutError")  # type: ignore[misc]
        for vm in ("vm1", "vm3")
    )
    seconds = time.monotonic() - began
    outside = received(net) - outside
    sent = sum(load.get("sent", 0) for vm in ("vm1", "vm3") for load in net.client(vm).stop())
    found = [frame for frame in capture.packets() if is_private(frame)]
    dropped = gateway.status()["guard"]["dropped"]
    assert gateway.stop() == 0
    return Outcome(
        faults=dict(sorted(done.items())),
        private=len(found),
        first=found[0].summary() if found else "",
        sent=sent,
        seconds=round(seconds, 1),
        outside=outside,
        dropped_by_guard=dropped,
        served=served,
    )


def received(net: Topology) -> int:
    """What has come to the internet's side of the wire."""
    return int(net.run("internet", "cat", "/sys/class/net/eth0/statistics/rx_packets"))


def is_private(frame: Any) -> bool:
    """Whether a frame has a private address at either end, or quotes one."""
    ends = [frame[IP].src, frame[IP].dst]
    if ICMP in frame and "IP in ICMP" in frame:
        quote = frame["IP in ICMP"]
        ends += [quote.src, quote.dst]
    return any(end.startswith(PRIVATE) for end in ends)


def main() -> None:
    """Both modes, with the host's own forwarding on and off before; one line of JSON each."""
    parser = argparse.ArgumentParser(prog="trial-chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=100, help="in each of the four trials")
    parser.add_argument("--seed", type=int, default=2017)
    parser.add_argument("--mode", choices=("on", "off"), help="of the fast path, only this one")
    parser.add_argument("--pause", type=float, default=1.0, help="between two faults, at most")
    arguments = parser.parse_args()
    good = True
    for mode in ("on", "off") if arguments.mode is None else (arguments.mode,):
        for forwarding in ("1", "0"):
            settings.fast_path = mode
            with Topology() as net:
                seen = run(
                    Gateway(net),
                    faults=arguments.faults,
                    seed=arguments.seed,
                    forwarding=forwarding,
                    pause=arguments.pause,
                )
            about = {"fastPath": mode, "forwardingBefore": forwarding, "seed": arguments.seed}
            print(json.dumps(about | asdict(seen)), flush=True)
            good = good and seen.private == 0 and seen.served
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
