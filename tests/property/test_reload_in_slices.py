"""A reload in slices, with packets in between, ends as one that is made at once.

``test_engine.py`` has reloads begin and go on among everything else that can happen, and looks at
every moment whether a port is held by its flows alone. Here is what comes out in the end.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP

from gateway.core.engine import Engine
from gateway.core.flows.flow import Flow
from gateway.core.ingress import IngressPath
from gateway.core.reload import flow_eviction, preparation
from gateway.core.reload.resolved import resolve
from gateway.model.configuration import Configuration
from tests.property.test_engine import CONFIGURATIONS, CURRENT, MACHINES, REMOTES, listed_ports

WORLDS = [list(CONFIGURATIONS.values()), list(CURRENT.values())]
FIRST_PACKETS = [
    bytes(IP(src=vm, dst=remote) / layer)
    for vm in MACHINES
    for remote in REMOTES
    for port in (1, 2, 3)
    for layer in (TCP(sport=port, dport=port, flags="S"), UDP(sport=port, dport=53))
]


def begun(configuration: Configuration, packets: list[int]) -> Engine:
    engine = Engine(configuration, seed=5)
    for number in packets:
        engine.handle(FIRST_PACKETS[number], IngressPath.OUTBOUND, 0.0)
    return engine


def reply(flow: Flow) -> bytes:
    """A packet from outside to a flow."""
    word = int.from_bytes
    key = flow.reply
    source, public = (".".join(map(str, key[n : n + 4])) for n in (0, 4))
    sport, dport = word(key[8:10], "big"), word(key[10:12], "big")
    layer = (
        TCP(sport=sport, dport=dport, flags="SA")
        if flow.protocol == 6
        else UDP(sport=sport, dport=dport)
    )
    return bytes(IP(src=source, dst=public) / layer)


def seen(engine: Engine) -> list[Any]:
    """What an operator sees of it."""
    return [
        [record for records in engine.flow_records(lambda: 1.0, 1000) for record in records],
        listed_ports(engine, 1.0),
        engine.balancer.targets(),
        [
            (one.key, one.rule, list(one.members), [m.machine.name for m in one.healthy])
            for one in engine.balancer.listeners()
        ],
        engine.security_records(),
        engine.status(1.0),
        {name: (m.address, m.tcp, m.udp) for name, m in engine.outbound.machines.items()},
    ]


@given(
    world=st.sampled_from(WORLDS),
    first=st.integers(0, 6),
    chosen=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    packets=st.lists(st.integers(0, len(FIRST_PACKETS) - 1), max_size=60),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_comes_out_is_the_same(
    world: list[Configuration], first: int, chosen: list[int], packets: list[int]
) -> None:
    at_once, in_slices = (begun(world[first % len(world)], packets) for _ in range(2))
    for number in chosen:
        after = world[number % len(world)]
        changes = at_once.reconfigure(after, 1.0)
        survivors = [flow.reply for flow in at_once.flows if not flow.awaiting_removal]
        going_on = [flow for flow in in_slices.flows if flow.reply in survivors]
        steps = in_slices.reconfiguring(resolve(after), lambda: 1.0)
        sent: list[bytes] = []
        told: list[str] | None = None
        packets_between = cycle(map(reply, going_on)) if going_on else cycle([b"noise"])
        with (
            patch.object(flow_eviction, "SLICE", 4),
            patch.object(flow_eviction, "LAST", 1),
            patch.object(preparation, "SLICE", 2),
        ):
            while told is None:
                packet = next(packets_between)
                sent.append(packet)
                in_slices.handle(packet, IngressPath.INBOUND, 1.0)
                try:
                    next(steps)
                except StopIteration as finished:
                    told = finished.value
        for packet in sent:
            at_once.handle(packet, IngressPath.INBOUND, 1.0)
        assert told == changes
        assert seen(in_slices) == seen(at_once)
