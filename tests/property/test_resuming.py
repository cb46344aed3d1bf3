"""A restart that nobody notices, and records that are not what they were."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP

from gateway.core.engine import Engine
from gateway.core.ingress import IngressPath
from gateway.core.persistence.flow_record import SIZE, pack, unpack
from gateway.core.persistence.restore import resume_flow, resume_state
from gateway.core.persistence.snapshot import save
from gateway.model.configuration import Configuration
from gateway.schema.records import FlowRecord
from tests.property.test_engine import CONFIGURATIONS, CURRENT, MACHINES, listed_ports

REMOTES = ["198.51.100.1", "198.51.100.2"]
# Where the choice of frontend and port is nobody's but the rules'.
CERTAIN = [CURRENT["rule"], CURRENT["rules"], CURRENT["linked"]]
ANY = [*CONFIGURATIONS.values(), *CURRENT.values()]

step = st.tuples(
    st.sampled_from(["out", "out", "out", "out", "back", "back", "wait"]),
    st.sampled_from(list(MACHINES)),
    st.sampled_from([*REMOTES, REMOTES[0]]),
    st.integers(1, 2),
    st.just(1),
    st.sampled_from(["S", "S", "S", "FA", "R", "udp", "udp", "echo"]),
)


def flows_of(engine: Engine, now: float) -> list[FlowRecord]:
    """The listing of flows."""
    return [record for records in engine.flow_records(lambda: now, 1000) for record in records]


Step = tuple[str, str, str, int, int, str]


def play(engine: Engine, steps: list[Step], now: float) -> tuple[list[bytes | None], float]:
    """What becomes of packets, and the time afterwards."""
    verdicts: list[bytes | None] = []
    for what, vm, to, sport, dport, kind in steps:
        if what == "wait":
            now += sport * 33.3
            while engine.expire(now):
                pass
            continue
        flows = sorted(engine.flows, key=lambda flow: flow.id)
        if what == "back" and flows:
            flow = flows[sport * dport % len(flows)]
            if flow.protocol not in (6, 17):
                continue
            src, dst = (".".join(map(str, flow.reply[at : at + 4])) for at in (0, 4))
            ports = (int.from_bytes(flow.reply[at : at + 2], "big") for at in (8, 10))
            layer: Any = _layer(kind if flow.protocol == 6 else "udp", *ports)
            packet = bytes(IP(src=src, dst=dst) / layer)
            verdicts.append(engine.handle(packet, IngressPath.INBOUND, now))
            continue
        packet = bytes(IP(src=vm, dst=to) / _layer(kind, sport, dport))
        verdicts.append(engine.handle(packet, IngressPath.OUTBOUND, now))
    return verdicts, now


def _layer(kind: str, sport: int, dport: int) -> Any:
    if kind == "echo":
        return ICMP(id=sport, seq=1)
    if kind == "udp":
        return UDP(sport=sport, dport=dport)
    return TCP(sport=sport, dport=dport, flags=kind)


def resumed(before: Engine, now: float) -> tuple[Engine, list[tuple[int, bytes]]]:
    """An engine of the same configuration with its state, and the flows to come."""
    after = Engine(before.configuration, seed=3, now=now)
    (state,) = (state for state in save(before) if state is not None)
    resume_state(after, state)
    records = [(f.slot, pack(f, before.flows, lambda flow: (0, 0, 0, 0))) for f in before.flows]
    return after, sorted(records)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(CERTAIN), st.lists(step, min_size=20, max_size=60), st.lists(step, max_size=30)
)
def test_the_same_packets_have_the_same_fate_afterwards(
    configuration: Configuration, first: list[Step], then: list[Step]
) -> None:
    before = Engine(configuration, seed=3)
    _, now = play(before, first, 0.0)
    after, records = resumed(before, now)
    for slot, record in records:
        saved = unpack(record)
        assert saved is not None
        assert resume_flow(after, slot, saved, lambda flow, seen: False, now) is not None
    assert flows_of(after, now) == flows_of(before, now)
    assert listed_ports(after, now) == listed_ports(before, now)
    verdicts, later = play(before, then, now)
    assert play(after, then, now) == (verdicts, later)
    # the same flows; which slot of those that were free a new one got is nobody's business
    assert sorted(flows_of(after, later)) == sorted(flows_of(before, later))
    assert listed_ports(after, later) == listed_ports(before, later)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(ANY),
    st.lists(step, min_size=10, max_size=50),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, SIZE - 1), st.integers(0, 255))),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40))),
)
def test_records_that_are_not_what_they_were_break_nothing(
    configuration: Configuration,
    steps: list[Step],
    spoilt: list[tuple[int, int, int]],
    doubled: list[tuple[int, int]],
) -> None:
    """Bytes changed (with or without a checksum that fits), records doubled: refused or right."""
    before = Engine(configuration, seed=3)
    _, now = play(before, steps, 0.0)
    after, records = resumed(before, now)
    data = [bytearray(record) for _, record in records]
    for number, at, value in spoilt:
        if data:
            data[number % len(data)][at] = value
    for source, target in doubled:
        if data:
            data[target % len(data)][:] = data[source % len(data)]
    slot = -1
    for record in data:
        slot += 1
        for attempt in (bytes(record), _with_checksum(record)):
            saved = unpack(attempt)
            if saved is not None and resume_flow(after, slot, saved, lambda flow, seen: False, now):
                break
    live = [flow for flow in after.flows if not flow.awaiting_removal]
    found = [
        f for f in live if after.flows.index_of(f.method).replies(f.protocol).get(f.reply) is f
    ]
    assert len({(flow.protocol, flow.reply) for flow in found}) == len(found)
    held: dict[int, int] = {}
    for flow in live:
        if flow.pool is not None:
            held[id(flow.pool)] = held.get(id(flow.pool), 0) + 1
    for public in after.outbound.addresses.values():
        for allocation in (*public.current, *public.retired):
            for pool in allocation.pools.values():
                assert pool.held == held.get(id(pool), 0)
    while after.expire(now + 1e9):
        pass
    assert [flow for flow in after.flows if flow.last_seen + flow.timeout < now] == []


def _with_checksum(record: bytearray) -> bytes:
    from zlib import crc32

    return crc32(bytes(record[4:])).to_bytes(4, "little") + bytes(record[4:])
