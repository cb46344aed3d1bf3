"""The engine by itself: no kernel, no packets on wires, one process per measurement.

``python -m bench.engine_only memory 1000000`` (or ``packets``, ``filling``) prints one JSON object.
The garbage collector is off, as in the daemon. Times are processor time of ``Engine.handle`` as the
daemon calls it; where a thing is measured several times the median counts.
"""

from __future__ import annotations

import gc
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from gateway.core.engine import Engine
from gateway.core.ingress import IngressPath
from gateway.core.snat.port_pool import PortPool
from gateway.model.configuration import Configuration
from gateway.model.profile import AZURE_2017, PROFILES

OUT, IN = int(IngressPath.OUTBOUND), int(IngressPath.INBOUND)
SYN, SYN_ACK, ACK = 0x02, 0x12, 0x10
TCP, UDP = 6, 17
FIRST_VM, FIRST_DESTINATION = int(IPv4Address("10.0.0.4")), int(IPv4Address("198.18.0.1"))
DESTINATIONS = 1000
ALL_PORTS = 64_000
PAGE = 4096


def engine(maximum_flows: int = 2_000_000) -> Engine:
    """A gateway with default SNAT for whoever is in 10.0.0.0/16."""
    return Engine(
        Configuration.model_validate(
            {
                "gateway": {"inside": ["lan0"], "outside": "wan0", "maximumFlows": maximum_flows},
                "virtualNetwork": {
                    "addressPrefixes": ["10.0.0.0/16"],
                    "subnets": [{"name": "vms", "addressPrefix": "10.0.0.0/16"}],
                },
                "publicIPAddresses": [{"name": "pip", "ipAddress": "203.0.113.10"}],
                "defaultOutboundAccess": {"publicIPAddresses": ["pip"]},
            }
        ),
        seed=1,
    )


def packet(protocol: int, key: bytes, flags: int = ACK, payload: int = 0) -> bytes:
    """A packet with the addresses and ports of ``key`` (12 bytes, as on the wire).

    Its checksums are wrong: the engine updates them and does not look whether they were right.
    """
    if protocol == TCP:
        rest = bytes(8) + bytes((0x50, flags)) + bytes(6 + payload)
    else:
        rest = (8 + payload).to_bytes(2, "big") + b"\x12\x34" + bytes(payload)
    total = 20 + 4 + len(rest)
    head = b"\x45\0" + total.to_bytes(2, "big") + b"\0\0\x40\0\x40" + bytes((protocol,))
    return head + b"\x12\x34" + key + rest


def key(vm: int, destination: int, port: int, to: int = 443) -> bytes:
    """VM number, destination number, source port, destination port as an original key."""
    return (
        (FIRST_VM + vm).to_bytes(4, "big")
        + (FIRST_DESTINATION + destination).to_bytes(4, "big")
        + port.to_bytes(2, "big")
        + to.to_bytes(2, "big")
    )


def answer_key(sent: bytes) -> bytes:
    """The key of the answer to a packet as it left."""
    return sent[16:20] + sent[12:16] + sent[22:24] + sent[20:22]


def must(verdict: bytes | None) -> bytes:
    """A packet that had to pass."""
    if verdict is None:
        raise SystemExit("engine_only: the engine refused a packet that it should have passed")
    return verdict


# -- memory


def memory(flows: int) -> dict[str, Any]:
    """Resident bytes that ``flows`` flows add: half TCP, half UDP, one VM, 1,000 destinations.

    Each flow was opened, answered, and sent 500 bytes each way once: counters have values, times
    differ from turn to turn (a turn of the daemon's loop is 64 packets).
    """
    gateway = engine()
    _converse(gateway, TCP, 0, 900, 0.0)  # one of everything is there before
    ports = flows // DESTINATIONS // 2
    gc.collect()
    before = _resident()
    now, turn = 1.0, 0
    for destination in range(DESTINATIONS):
        for number in range(ports):
            turn += 1
            if not turn % 16:
                now += 0.0001
            _converse(gateway, TCP, destination, 1024 + number, now)
            _converse(gateway, UDP, destination, 1024 + number, now)
    after = _resident()
    opened = len(gateway.flows) - 1
    if opened != 2 * ports * DESTINATIONS:
        raise SystemExit(f"engine_only: {opened} flows instead of {flows}")
    return {"flows": opened, "bytesPerFlow": (after - before) / opened}


def _converse(gateway: Engine, protocol: int, destination: int, port: int, now: float) -> None:
    original = key(0, destination, port)
    handle = gateway.handle
    if protocol == TCP:
        back = answer_key(must(handle(packet(TCP, original, SYN), OUT, now)))
        must(handle(packet(TCP, back, SYN_ACK), IN, now))
        must(handle(packet(TCP, original, ACK, 500), OUT, now))
        must(handle(packet(TCP, back, ACK, 500), IN, now))
    else:
        back = answer_key(must(handle(packet(UDP, original, 0, 500), OUT, now)))
        must(handle(packet(UDP, back, 0, 500), IN, now))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


# -- time


def packets(repeats: int) -> dict[str, Any]:
    """Microseconds a packet of 1,000 established flows; per new flow; per expired flow."""
    gateway = engine()
    result: dict[str, Any] = {}
    for name, protocol, size in (("tcp", TCP, 6), ("udp", UDP, 18)):
        ways: dict[int, list[bytes]] = {OUT: [], IN: []}
        for number in range(1000):
            original = key(0, 0, 1024 + number)
            back = answer_key(must(gateway.handle(packet(protocol, original, SYN, 0), OUT, 0.0)))
            must(gateway.handle(packet(protocol, back, SYN_ACK, 0), IN, 0.0))
            ways[OUT].append(packet(protocol, original, ACK, size))
            ways[IN].append(packet(protocol, back, ACK, size))
        for way, list_of_packets in ways.items():
            direction = "out" if way == OUT else "in"
            times = [_established(gateway, list_of_packets, way) for _ in range(repeats)]
            result[f"{name}_{direction}"] = median(times)
    opening, expiring = [], []
    for _ in range(max(3, repeats // 4)):
        opened, expired = _live_and_die()
        opening.append(opened)
        expiring.append(expired)
    return result | {"new_flow": median(opening), "expired_flow": median(expiring)}


def _established(gateway: Engine, list_of_packets: Sequence[bytes], way: int) -> float:
    handle, rounds = gateway.handle, 20
    start = process_time()
    for _ in range(rounds):
        for one in list_of_packets:
            handle(one, way, 1.0)
    return (process_time() - start) * 1e6 / rounds / len(list_of_packets)


def _live_and_die() -> tuple[float, float]:
    """62 VMs open 1,024 TCP flows each to one destination; then the idle timeout comes."""
    gateway = engine()
    opening = [packet(TCP, key(vm, 0, 1024 + n), SYN) for vm in range(62) for n in range(1024)]
    handle = gateway.handle
    start = process_time()
    for one in opening:
        handle(one, OUT, 0.0)
    opened = process_time() - start
    if len(gateway.flows) != len(opening):
        raise SystemExit(f"engine_only: {len(gateway.flows)} flows opened of {len(opening)}")
    start = process_time()
    while gateway.expire(10_000.0, 256):
        pass
    expired = process_time() - start
    if len(gateway.flows):
        raise SystemExit(f"engine_only: {len(gateway.flows)} flows did not expire")
    return opened * 1e6 / len(opening), expired * 1e6 / len(opening)


# -- filling


def filling(repeats: int) -> dict[str, Any]:
    """Microseconds a port: the first 1,000 and the last 1,000 of 64,000.

    ``pool``: ``PortPool.take`` on a fresh pool. ``holes``: the same on a pool whose ports came back
    in random order, the allocator's other form. ``engine``: the SYNs of one VM through the engine,
    with a profile that allocates a VM all 64,000 ports.
    """
    result = {}
    measures: dict[str, Callable[[], tuple[float, float]]] = {
        "pool": _fill_pool,
        "holes": _fill_holes,
        "engine": _fill_engine,
    }
    for name, measure in measures.items():
        figures = [measure() for _ in range(repeats)]
        first, last = (median(column) for column in zip(*figures, strict=True))
        result[name] = {"first": first, "last": last}
    return result


def _edges(take: Callable[[int], object], count: int) -> tuple[float, float]:
    times = []
    for begin, end in ((0, 1000), (1000, count - 1000), (count - 1000, count)):
        start = process_time()
        for number in range(begin, end):
            if not take(number):
                raise SystemExit(f"engine_only: port {number} of {count} was refused")
        times.append((process_time() - start) * 1e6 / (end - begin))
    return times[0], times[2]


def _fill_pool() -> tuple[float, float]:
    pool, destination = _pool(), bytes(4)
    return _edges(lambda _: pool.take(destination), ALL_PORTS)


def _fill_holes() -> tuple[float, float]:
    pool, destination = _pool(), bytes(4)
    held = [pool.take(destination) for _ in range(ALL_PORTS)]
    random.Random(1).shuffle(held)
    for port in held[1:]:
        pool.release(destination, port)
    return _edges(lambda _: pool.take(destination), ALL_PORTS - 1)


def _pool() -> PortPool:
    first = AZURE_2017.first_snat_port
    return PortPool(IPv4Address("203.0.113.10").packed, [range(first, first + ALL_PORTS)])


def _fill_engine() -> tuple[float, float]:
    PROFILES[AZURE_2017.name] = replace(AZURE_2017, preallocation=((50, ALL_PORTS),))
    try:
        gateway = engine()
    finally:
        PROFILES[AZURE_2017.name] = AZURE_2017
    syns = [packet(TCP, key(0, 0, 1024 + number), SYN) for number in range(ALL_PORTS)]
    return _edges(lambda number: gateway.handle(syns[number], OUT, 0.0), ALL_PORTS)


def main() -> None:
    measure = {"memory": memory, "packets": packets, "filling": filling}[sys.argv[1]]
    gc.collect()
    gc.freeze()
    gc.disable()
    print(json.dumps(measure(int(sys.argv[2]))))


if __name__ == "__main__":
    main()
