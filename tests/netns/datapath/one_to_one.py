"""A gateway with the real datapath and no engine: one VM, one public IP, one to one.

Run in a namespace; takes a plan as JSON, prints ``"ready"`` or problems, then answers a JSON line for each line
that it reads: ``statistics``, ``seen`` (packets as [arrival, length]), ``pause``, ``resume``,
``raise`` (the handler fails from now on), ``update IP VM``, ``refresh``,
``dropped`` (packets by reason, by rules), ``guard`` (what became of it), ``told`` (of all that it dropped), ``remove``, ``leave`` (the same, expecting another start).
"""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from ipaddress import IPv4Address, IPv4Network

from scapy.all import ICMP, IP, TCP, UDP
from scapy.layers.inet import IPerror

from gateway.core.ingress import IngressPath
from gateway.datapath.errors import DatapathError
from gateway.datapath.host.addresses_and_routes import find_link
from gateway.datapath.host.diversion import Diversion
from gateway.datapath.host.interface_lock import InterfaceLocks
from gateway.datapath.host.netfilter_rules import DiversionPlan, QueueNumbers
from gateway.datapath.queue import PacketQueue


class OneToOne:
    """Public addresses to VMs and back."""

    def __init__(self, pairs: dict[str, str]) -> None:
        self.pairs = pairs
        self.seen: list[tuple[str, int]] = []
        self.failing = False

    def handle(self, arrival: IngressPath, payload: bytes, now: float) -> bytes | None:
        self.seen.append((arrival.name, len(payload)))
        if self.failing:
            raise ValueError("on purpose")
        if arrival == IngressPath.LATERAL:
            return payload if payload[16:17] == b"\x0a" else None  # inside, or elsewhere
        packet = IP(payload)
        public_of = {vm: public for public, vm in self.pairs.items()}
        if arrival == IngressPath.LOCAL_ERROR:
            if IPerror not in packet or packet[IPerror].dst not in public_of:
                return payload
            packet[IPerror].dst = public_of[packet[IPerror].dst]
            return finished(packet)
        if arrival in (IngressPath.OUTBOUND, IngressPath.HAIRPIN):
            if packet.src not in public_of:
                return None
            packet.src = public_of[packet.src]
        if arrival in (IngressPath.INBOUND, IngressPath.HAIRPIN):
            packet.dst = self.pairs[packet.dst]
        return finished(packet)


def finished(packet: IP) -> bytes:
    """The packet with fresh checksums."""
    for layer in (IP, IPerror, TCP, UDP, ICMP):
        if layer in packet:
            del packet[layer].chksum
    return bytes(packet)


def plan_from(text: str, queues: QueueNumbers) -> tuple[DiversionPlan, dict[str, str]]:
    data = json.loads(text)
    pairs = data["pairs"]
    plan = DiversionPlan(
        tuple(data["inside"]),
        data["outside"],
        tuple(map(IPv4Address, pairs)),
        tuple(map(IPv4Network, data["prefixes"])),
        queues,
    )
    return plan, pairs


def lines() -> Iterator[str]:
    """Lines of standard input as they come, None in between: ``select`` and buffers do not mix."""
    text = b""
    while chunk := os.read(0, 4096):
        text += chunk
        *whole, text = text.split(b"\n")
        yield from (line.decode() for line in whole)


def main() -> None:
    document = json.loads(sys.argv[1])

    def numbers() -> tuple[list[int], int]:
        links = [find_link(name) for name in (*document["inside"], document["outside"])]
        *inside, outside = (0 if link is None else link.index for link in links)
        return inside, outside

    nat = OneToOne({})
    claims = InterfaceLocks([*document["inside"], document["outside"]])
    queue = PacketQueue([partial(nat.handle, arrival) for arrival in IngressPath], *numbers())
    queue.open()
    plan, nat.pairs = plan_from(sys.argv[1], queue.numbers)

    def renewed(interface: str) -> None:
        queue.interfaces_are(*numbers())

    diversion = Diversion(plan, renewed)
    try:
        diversion.install()
    except DatapathError as error:
        print(json.dumps(error.problems), flush=True)
        return
    print('"ready"', flush=True)
    poll = select.poll()
    poll.register(0, select.POLLIN)
    for queued in queue.descriptors():
        poll.register(queued, select.POLLIN)
    commands = lines()
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in queue.descriptors():
                queue.drain(descriptor, 64, 0.0)
                continue
            answer: object = None
            command, *arguments = (next(commands, "end")).split()
            match command:
                case "end":
                    return
                case "statistics":
                    answer = asdict(queue.statistics()) | {"lastError": queue.last_error}
                case "seen":
                    answer = nat.seen
                case "numbers":
                    answer = asdict(queue.numbers)
                case "pause":
                    for queued in queue.descriptors():
                        poll.unregister(queued)
                case "resume":
                    for queued in queue.descriptors():
                        poll.register(queued, select.POLLIN)
                case "raise":
                    nat.failing = True
                case "update":
                    nat.pairs = {arguments[0]: arguments[1]}
                    text = json.dumps(json.loads(sys.argv[1]) | {"pairs": nat.pairs})
                    diversion.update(plan_from(text, queue.numbers)[0])
                case "refresh":
                    answer = diversion.refresh()
                case "dropped":
                    dropped = diversion.dropped_by_rules()
                    answer = {reason.value: packets for reason, packets in dropped.items()}
                case "guard":
                    guard = diversion.guard
                    answer = {
                        "problem": diversion.no_guard,
                        "restored": diversion.guards_restored,
                        "gained": diversion.guards_gained,
                        "kind": None if guard is None else type(guard).__name__,
                        "dropped": None if guard is None else guard.dropped(),
                        "meanwhile": None if guard is None else guard.meanwhile,
                        "shared": None if guard is None else guard.shared,
                    }
                case "told":
                    assert diversion.guard is not None
                    diversion.guard.told()
                case "remove" | "leave":
                    diversion.leave_guard = command == "leave"
                    diversion.remove()
                    queue.close()
                    claims.close()
                    print("null", flush=True)
                    return
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
