"""Two ends as RFC 9293 has them, with the bare engine between them on a bad network.

Hypothesis loses, repeats and reorders segments before and behind the gateway, has the client give
up, forget its connection or come again from the same port, forges RSTs, and lets time pass. Then
the network is good again, and the client's exchange must end as it would without a gateway: an
exchange that completes, no reset, the port held as long as the connection lives and cooling down
after it, and one port a connection, however often its segments came.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.engine import Engine
from gateway.core.flows.tcp import ACK_FLAG, ENDED, FIN_FLAG, RST_FLAG, SYN_FLAG
from gateway.core.ingress import IngressPath
from tests.scenario import configuration

CONFIGURATION = configuration(
    """
gateway: {inside: [lan0], outside: wan0}
virtualNetwork:
  addressPrefixes: [10.0.0.0/16]
  subnets: [{name: web, addressPrefix: 10.0.1.0/24}, {name: data, addressPrefix: 10.0.2.0/24}]
publicIPAddresses: [{name: pip, ipAddress: 203.0.113.10}, {name: own, ipAddress: 203.0.113.30}]
defaultOutboundAccess: {publicIPAddresses: [pip]}
virtualMachines:
  - {name: vm1, privateIPAddress: 10.0.1.4}
  - {name: vm3, privateIPAddress: 10.0.1.6, publicIPAddress: own}
"""
)
# Client, server, and where packets of the one and of the other come in.
WAYS = {
    "outbound": ("10.0.1.4", "198.51.100.1", IngressPath.OUTBOUND, IngressPath.INBOUND),
    "inbound": ("198.51.100.1", "203.0.113.30", IngressPath.INBOUND, IngressPath.OUTBOUND),
    "lateral": ("10.0.1.4", "10.0.2.4", IngressPath.LATERAL, IngressPath.LATERAL),
}
WORD = 0xFFFFFFFF
REQUEST, RESPONSE, PIECE, WINDOW = 250, 350, 100, 65535
_PACKET = Struct("!BBHHHBBH8s4sIIBBHHH")


@dataclass(frozen=True)
class Segment:
    flags: int
    sequence: int
    acknowledged: int = 0
    size: int = 0

    @property
    def length(self) -> int:
        return self.size + bool(self.flags & SYN_FLAG) + bool(self.flags & FIN_FLAG)


def ahead(a: int, b: int) -> int:
    """By how much ``a`` is ahead of ``b``."""
    return (a - b + (1 << 31) & WORD) - (1 << 31)


@dataclass
class End:
    """One connection at one end. It sends ``size`` bytes, then a FIN once it may."""

    isn: int
    size: int
    state: str = "syn-sent"
    may_close: bool = False
    received: int = 0
    closed_by_other: bool = False
    was_reset: bool = False
    out: list[Segment] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.unacknowledged, self.next, self.expected = self.isn, self.isn + 1 & WORD, 0

    @property
    def end(self) -> int:
        """The number of its FIN."""
        return self.isn + 1 + self.size & WORD

    @property
    def is_closed(self) -> bool:
        """Its FIN was acknowledged, and it has had the other's."""
        return self.closed_by_other and ahead(self.unacknowledged, self.end) > 0

    def say(self, flags: int, sequence: int | None = None, size: int = 0) -> None:
        sequence = self.next if sequence is None else sequence
        self.out.append(Segment(flags, sequence, self.expected if flags & ACK_FLAG else 0, size))

    def send(self) -> None:
        """What is not acknowledged, for the first time or again."""
        if self.state == "syn-sent":
            self.say(SYN_FLAG, self.isn)
        elif self.state == "syn-received":
            self.say(SYN_FLAG | ACK_FLAG, self.isn)
        elif self.state == "synchronized":
            at = self.unacknowledged
            while (left := ahead(self.end, at)) > 0:
                size = min(PIECE, left)
                self.say(ACK_FLAG, at, size)
                at = at + size & WORD
            if at == self.end and self.may_close:
                self.say(ACK_FLAG | FIN_FLAG, at)
                at = at + 1 & WORD
            if ahead(at, self.next) > 0:
                self.next = at

    def receive(self, it: Segment) -> None:
        if self.state == "gone":
            refuse(self.out, it)
        elif self.state == "syn-sent":
            self._answered(it)
        else:
            self._go_on(it)

    def _answered(self, it: Segment) -> None:
        fits = it.flags & ACK_FLAG and it.acknowledged == self.next
        if it.flags & ACK_FLAG and not fits:
            if not it.flags & RST_FLAG:
                self.say(RST_FLAG, it.acknowledged)
        elif it.flags & RST_FLAG:
            if fits:
                self.was_reset, self.state = True, "gone"
        elif it.flags & SYN_FLAG and fits:
            self.expected, self.unacknowledged = it.sequence + 1 & WORD, it.acknowledged
            self.state = "synchronized"
            self.say(ACK_FLAG)
            self.send()

    def _go_on(self, it: Segment) -> None:
        beyond = ahead(it.sequence, self.expected)
        if it.flags & RST_FLAG:
            if beyond == 0:
                self.was_reset, self.state = True, "gone"
            elif 0 < beyond < WINDOW:
                self.say(ACK_FLAG)
            return
        if self.state == "syn-received" and it.flags & SYN_FLAG and beyond == -1:
            self.send()
            return
        if it.flags & SYN_FLAG or not 0 <= beyond < WINDOW or not it.flags & ACK_FLAG:
            self.say(ACK_FLAG)
            return
        if ahead(it.acknowledged, self.next) > 0:
            self.say(ACK_FLAG)
            return
        if self.state == "syn-received":
            if it.acknowledged != self.next:
                self.say(RST_FLAG, it.acknowledged)
                return
            self.state = "synchronized"
        if ahead(it.acknowledged, self.unacknowledged) > 0:
            self.unacknowledged = it.acknowledged
        if beyond == 0 and it.length:
            self.received += it.size
            self.expected = self.expected + it.length & WORD
            self.closed_by_other = self.closed_by_other or bool(it.flags & FIN_FLAG)
        if it.length:
            self.say(ACK_FLAG)


def refuse(out: list[Segment], it: Segment) -> None:
    """As a closed port does."""
    if it.flags & RST_FLAG:
        return
    if it.flags & ACK_FLAG:
        out.append(Segment(RST_FLAG, it.acknowledged))
    else:
        out.append(Segment(RST_FLAG | ACK_FLAG, 0, it.sequence + it.length & WORD))


class Server:
    """Listens. A connection for each endpoint that it is asked from."""

    def __init__(self, closes_first: bool) -> None:
        self.closes_first = closes_first
        self.connections: dict[bytes, End] = {}
        self.isn = 3_000_000_000

    def receive(self, peer: bytes, it: Segment) -> list[Segment]:
        end = self.connections.get(peer)
        if end is not None and end.is_closed:
            newer = it.flags & (SYN_FLAG | ACK_FLAG) == SYN_FLAG
            if not self.closes_first or (newer and ahead(it.sequence, end.expected) > 0):
                end = None  # CLOSED, or TIME-WAIT and a new connection
        if end is None or end.state == "gone":
            out: list[Segment] = []
            if it.flags & (SYN_FLAG | ACK_FLAG | RST_FLAG) != SYN_FLAG:
                refuse(out, it)
                return out
            self.isn = self.isn + 77_000_000 & WORD
            end = self.connections[peer] = End(self.isn, RESPONSE, "syn-received")
            end.expected = it.sequence + 1 & WORD
            end.send()
        else:
            end.receive(it)
        self.act(end)
        out, end.out = end.out, []
        return out

    def act(self, end: End) -> None:
        """Answer once asked; close then, or after the client."""
        done = end.received == REQUEST and (self.closes_first or end.closed_by_other)
        if end.state == "synchronized" and done and not end.may_close:
            end.may_close = True
            end.send()


class Net:
    """client - (a) - gateway - (b) - server, both ways; ``way``: how the client comes in."""

    def __init__(self, way: str, closes_first: bool) -> None:
        self.engine = Engine(CONFIGURATION, seed=1)
        self.now = 0.0
        self.server = Server(closes_first)
        self.isn = 1_000_000_000
        self.connections = 0
        client, server, *self.arrivals = WAYS[way]
        self.key = _address(client) + _address(server) + b"\x12\x34\x01\xbb"
        # To the gateway from the client and from the server, and from it to each: packets.
        self.queues: list[list[bytes]] = [[], [], [], []]
        self.connect()

    def connect(self) -> None:
        self.isn = self.isn + 91_000_000 & WORD
        self.client = End(self.isn, REQUEST, may_close=not self.server.closes_first)
        self.connections += 1
        self.client.send()
        self.flush()

    def flush(self) -> None:
        for segment in self.client.out:
            self.queues[0].append(_packet(self.key, segment))
        self.client.out.clear()

    def deliver(self, queue: int, packet: bytes) -> None:
        if queue < 2:
            verdict = self.engine.handle(packet, self.arrivals[queue], self.now)
            if verdict is not None:
                self.queues[3 - queue].append(verdict)
        elif queue == 2:
            self.client.receive(_segment(packet))
            if self.client.closed_by_other and not self.client.may_close:
                self.client.may_close = True
                self.client.send()
            self.flush()
        else:
            back = packet[16:20] + packet[12:16] + packet[22:24] + packet[20:22]
            for segment in self.server.receive(packet[12:24], _segment(packet)):
                self.queues[1].append(_packet(back, segment))

    def timers(self, which: int) -> None:
        """What was not acknowledged is sent again."""
        if which == 0:
            self.client.send()
            self.flush()
            return
        for peer, end in self.server.connections.items():
            if end.state in ("syn-received", "synchronized"):
                end.send()
                back = peer[4:8] + peer[0:4] + peer[10:12] + peer[8:10]
                self.queues[1] += [_packet(back, segment) for segment in end.out]
                end.out.clear()

    def step(self, what: str, number: int) -> None:
        queue = number % 4
        waiting = self.queues[queue]
        at = min(number // 4 % 3, len(waiting) - 1)
        if what == "deliver" and waiting:
            self.deliver(queue, waiting.pop(at))
        elif what == "drop" and waiting:
            waiting.pop(at)
        elif what == "repeat" and waiting:
            waiting.append(waiting[at])
        elif what == "timer":
            self.timers(number % 2)
        elif what == "wait":
            self.wait(20.0)
        elif what == "again" and (self.client.is_closed or self.client.state == "gone"):
            self.connect()
        elif what == "abort" and self.client.state == "synchronized":
            self.client.say(RST_FLAG | ACK_FLAG)
            self.client.state = "gone"
            self.flush()
        elif what == "forget":
            self.client.out.clear()
            self.connect()
        elif what == "forge":
            self.forge(number)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        while self.engine.expire(self.now):
            pass

    def forge(self, number: int) -> None:
        """An RST that neither end would take, before or behind the gateway."""
        sequence = (number * 2_654_435_761 + 1_500_000_000) % 1_000_000_000 + 1_900_000_000
        for peer in list(self.server.connections):
            back = peer[4:8] + peer[0:4] + peer[10:12] + peer[8:10]
            self.queues[1].append(_packet(back, Segment(RST_FLAG, sequence & WORD)))
        self.queues[0].append(_packet(self.key, Segment(RST_FLAG, sequence & WORD)))

    def settle(self) -> None:
        """A good network, until the client has had what it asked for."""
        if self.client.state == "gone":
            self.connect()
        for _ in range(40):
            self.timers(0)
            self.timers(1)
            for _ in range(4):
                for queue in (0, 3, 1, 2):
                    waiting, self.queues[queue] = self.queues[queue], []
                    for packet in waiting:
                        self.deliver(queue, packet)
            self.wait(1.0)
            if self.client.is_closed:
                return


def _address(text: str) -> bytes:
    return bytes(int(number) for number in text.split("."))


def _packet(key: bytes, it: Segment) -> bytes:
    head = _PACKET.pack(
        0x45, 0, 40 + it.size, 0, 0x4000, 64, 6, 0, key[:8], key[8:],
        it.sequence, it.acknowledged, 0x50, it.flags, 65535, 0, 0,
    )  # fmt: skip
    return head + bytes(it.size)


def _segment(packet: bytes) -> Segment:
    *_, sequence, acknowledged, _, flags, _, _, _ = _PACKET.unpack_from(packet)
    return Segment(flags, sequence, acknowledged, len(packet) - 40)


HARMLESS = ["deliver"] * 8 + ["drop", "repeat", "timer", "again"]
REST = ["abort", "forget", "forge"]
numbers = st.integers(0, 11)


def steps(kinds: list[str]) -> st.SearchStrategy[list[tuple[str, int]]]:
    return st.lists(st.tuples(st.sampled_from(kinds), numbers), max_size=60)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=250, deadline=None)
@example(
    schedule=[("deliver", 0), ("deliver", 3), ("deliver", 1), ("deliver", 2)], closes_first=False
)
@given(schedule=steps(HARMLESS), closes_first=st.booleans())
def test_what_is_lost_repeated_or_late_costs_no_exchange_and_no_second_port(
    way: str, schedule: list[tuple[str, int]], closes_first: bool
) -> None:
    """The example: the SYN-ACK is repeated when the client has sent its request and its FIN."""
    net = Net(way, closes_first)
    for what, number in schedule:
        net.step(what, number)
    net.settle()
    client = net.client
    assert (client.was_reset, client.received, client.is_closed) == (False, RESPONSE, True)
    assert net.engine.flows.opened == net.connections
    live = [flow for flow in net.engine.flows if flow.state not in ENDED]
    assert live == []  # their ports are held, or were


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=250, deadline=None)
@given(
    schedule=steps([*HARMLESS, *REST]),
    closes_first=st.booleans(),
    waits=st.sets(st.integers(0, 59), max_size=6),
)
def test_whatever_came_before_and_whoever_forges_an_exchange_completes(
    way: str, schedule: list[tuple[str, int]], closes_first: bool, waits: set[int]
) -> None:
    """The client aborted, or has forgotten its connections, or somebody forges RSTs."""
    net = Net(way, closes_first)
    for position, (what, number) in enumerate(schedule):
        if position in waits:
            net.wait(20.0)
        net.step(what, number)
    net.settle()
    client = net.client
    assert (client.was_reset, client.received, client.is_closed) == (False, RESPONSE, True)
