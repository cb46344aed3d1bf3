"""A flow has two keys, as conntrack has: ``original`` (what the VM sends) and ``reply``.

A key is the 12 bytes of the wire themselves: source address, destination address, source port,
destination port, in network order, as they stand at offset 12 of a packet without IP options. So
the look-up of a packet is a slice and a dict hit, and the flow needs no copies of its addresses:

    original  private -> remote      key[0:4] private   key[4:8] remote   key[8:10]  key[10:12]
    reply     remote  -> public      key[0:4] remote    key[4:8] public   key[8:10]  key[10:12]

ICMP echo has its identifier in the place of the port of the side that asks and 0 for the other;
protocols without ports have 0 for both. Flows that are neither TCP nor UDP have a 13th byte, the
protocol, so that one pair of dicts holds them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from gateway.core.accounting import Traffic
from gateway.core.sequence import Numbers
from gateway.core.tcp import CLOSING, ENDED, State
from gateway.model.profile import Method

if TYPE_CHECKING:
    from gateway.core.allotment import Machine
    from gateway.core.nsg import Judgement
    from gateway.core.ports import Ports
    from gateway.core.timers import Bucket

ICMP, TCP, UDP = 1, 6, 17

PORTS = tuple(number.to_bytes(2, "big") for number in range(1 << 16))
"""Every port in network order: flows share these objects."""
NUMBERS = tuple(range(1 << 16))
"""The numbers of 16 bits, likewise: an object of its own for each would be memory, and a miss."""

_original = Struct("!8B2H").unpack_from  # private, remote, private port, remote port
_public = Struct("!4x4B2xH").unpack_from  # of a reply key: public, public port


class Flow:
    """One translated conversation. Counters are of IP packets and their whole length in bytes."""

    __slots__ = (
        "awaiting_removal",
        "bucket",
        "bytes_in",
        "bytes_out",
        "created",
        "id",
        "inbound",
        "ip_delta",
        "judgements",
        "l4_delta",
        "last_seen",
        "machine",
        "method",
        "offloaded",
        "original",
        "packets_in",
        "packets_out",
        "pool",
        "private",
        "private_port",
        "protocol",
        "public",
        "public_port",
        "reply",
        "slot",
        "state",
        "timeout",
    )

    def __init__(
        self,
        protocol: int,
        original: bytes,
        reply: bytes,
        machine: Machine,
        public: bytes,
        method: Method,
        pool: Ports | None,
        timeout: float,
        now: float,
        *,
        inbound: bool = False,
        judgements: tuple[Judgement, ...] = (),
    ) -> None:
        self.id = 0
        self.slot = -1
        self.protocol = protocol
        self.original = original
        self.reply = reply
        self.machine = machine
        self.method = method
        self.pool = pool  # None: no SNAT port is held (instance-level public IP)
        self.state = State.OPENING
        self.timeout = timeout
        self.created = now
        self.last_seen = now
        self.bucket: Bucket | None = None
        self.packets_out = 0
        self.bytes_out = 0
        self.packets_in = 0
        self.bytes_in = 0
        # What rewriting puts in, at hand as it goes on the wire; shared objects, no copies.
        self.private = machine.address
        self.private_port = PORTS[original[8] << 8 | original[9]]
        self.public = public
        self.public_port = PORTS[reply[10] << 8 | reply[11]]
        self.awaiting_removal = False
        self.offloaded = False  # packets pass elsewhere (``offload.py``): fold before reading
        self.inbound = inbound  # the remote sent first
        self.judgements = judgements  # what the security groups said when the flow opened
        # RFC 1624 eqn. 3 in arithmetic modulo 65535: what the source's rewriting adds to the
        # checksums of IP and of the transport. The reply's rewriting takes the same away again.
        words = int.from_bytes
        addresses = words(original[0:4], "big") - words(reply[4:8], "big")
        ports = words(original[8:10], "big") - words(reply[10:12], "big")
        self.ip_delta = NUMBERS[addresses % 0xFFFF]
        self.l4_delta = NUMBERS[(addresses + ports) % 0xFFFF]

    @property
    def snat_port(self) -> int:
        """The translated source port (the ICMP identifier for echo), in host order."""
        return self.public_port[0] << 8 | self.public_port[1]

    @property
    def keeps_port(self) -> bool:
        """Whether it has one port (or ICMP identifier) on both sides: addresses change alone."""
        return self.public_port == self.private_port

    @property
    def state_name(self) -> str:
        """The listing's state: a flow that ended cools down while it holds a SNAT port."""
        if self.state in ENDED:
            return "Closed" if self.pool is None else "CoolDown"
        if self.state in CLOSING:
            return "Closing"
        if self.state is State.OPENING:
            answered = self.protocol != TCP and self.packets_in and self.packets_out
            return "Established" if answered else "Opening"
        return "Established"


class FlowRecord(NamedTuple):
    """A flow as a listing has it: plain values, seconds, ports in host order."""

    id: int
    protocol: int
    state: str
    direction: str
    method: str
    vm: str
    private_ip: str
    private_port: int
    public_ip: str | None
    public_port: int
    remote_ip: str
    remote_port: int
    packets_out: int
    bytes_out: int
    packets_in: int
    bytes_in: int
    age: float
    idle: float
    expires_in: float
    awaiting_removal: bool
    offloaded: bool


class FlowIndex:
    """Flows by original key and by reply key."""

    def __init__(self) -> None:
        self.tcp_original: dict[bytes, Flow] = {}
        self.tcp_reply: dict[bytes, Flow] = {}
        self.udp_original: dict[bytes, Flow] = {}
        self.udp_reply: dict[bytes, Flow] = {}
        self.other_original: dict[bytes, Flow] = {}
        self.other_reply: dict[bytes, Flow] = {}

    def originals(self, protocol: int) -> dict[bytes, Flow]:
        """The flows of ``protocol`` by original key."""
        if protocol == TCP:
            return self.tcp_original
        return self.udp_original if protocol == UDP else self.other_original

    def replies(self, protocol: int) -> dict[bytes, Flow]:
        """The flows of ``protocol`` by reply key."""
        if protocol == TCP:
            return self.tcp_reply
        return self.udp_reply if protocol == UDP else self.other_reply


class FlowTable(FlowIndex):
    """All flows, by original key, by reply key and by slot; at most ``maximum`` of them.

    Its own index is of the flows that are translated. Those between VMs, which are not, have
    another, ``lateral``: no packet that leaves or arrives by the outside interface finds one.
    """

    def __init__(self, maximum: int) -> None:
        super().__init__()
        self.lateral = FlowIndex()
        self.maximum = maximum
        self.traffic = Traffic()
        self.numbers = Numbers()
        self.to_be_reset: set[Flow] = set()
        """Whose ends are told when they idle out."""
        # Flows whose port was taken back, by original key and protocol: kept for the listing only.
        self.reclaimed: dict[tuple[int, bytes], Flow] = {}
        self.touched: set[int] | None = None
        """Slots whose flow is another one or has changed, for who writes flows down and takes them
        out again; None: nobody does."""
        # Slots let a listing walk the table in slices while it changes.
        self._slots: list[Flow | None] = []
        self._free_slots: list[int] = []
        self._opened = 0

    def __len__(self) -> int:
        return len(self._slots) - len(self._free_slots)

    def __iter__(self) -> Iterator[Flow]:
        return (flow for flow in self._slots if flow is not None)

    @property
    def is_full(self) -> bool:
        """Whether new flows must be refused."""
        return len(self) >= self.maximum

    @property
    def opened(self) -> int:
        """Flows ever opened."""
        return self._opened

    def index_of(self, method: Method) -> FlowIndex:
        """Where flows with this method are found."""
        return self.lateral if method is Method.VIRTUAL_NETWORK else self

    def add(self, flow: Flow) -> None:
        """Enter a flow under both keys, the reply first: two flows never share a public 5-tuple.

        The caller has made sure of room (``is_full``) and of an original key
        that no flow has.
        """
        index = self.index_of(flow.method)
        holder = index.replies(flow.protocol).setdefault(flow.reply, flow)
        if holder is not flow:
            raise AssertionError(f"two flows on one public tuple: {flow.reply.hex()}")
        index.originals(flow.protocol)[flow.original] = flow
        self._opened += 1
        flow.id = self._opened
        if self._free_slots:
            flow.slot = self._free_slots.pop()
            self._slots[flow.slot] = flow
            self.numbers.forget(flow.slot)
        else:
            flow.slot = len(self._slots)
            self._slots.append(flow)
            if flow.slot >= len(self.numbers.opening):
                self.numbers.make_room(flow.slot + 1)
        self.touch(flow)

    def touch(self, flow: Flow) -> None:
        """Note that a flow has changed."""
        if self.touched is not None:
            self.touched.add(flow.slot)

    def put_back(self, flow: Flow, slot: int, *, original: bool, reply: bool) -> None:
        """Enter a flow of an earlier process into its slot; slots come in ascending order.

        ``original``, ``reply``: under which keys, which no flow has, packets find it.
        """
        index = self.index_of(flow.method)
        if original:
            index.originals(flow.protocol)[flow.original] = flow
        if reply:
            index.replies(flow.protocol)[flow.reply] = flow
        if flow.awaiting_removal:
            self.reclaimed[flow.protocol, flow.original] = flow
        skipped = range(len(self._slots), slot)
        self._free_slots.extend(skipped)
        self._slots.extend([None] * len(skipped))
        self.numbers.make_room(slot + 1)
        self._slots.append(flow)
        flow.slot = slot

    def go_on_from(self, opened: int) -> None:
        """Number flows from here on."""
        self._opened = max(self._opened, opened)

    def detach_original(self, flow: Flow) -> None:
        """Let another flow have the original key; this one only holds its port from now on."""
        originals = self.index_of(flow.method).originals(flow.protocol)
        if originals.get(flow.original) is flow:
            del originals[flow.original]
            self.touch(flow)

    def attach_original(self, flow: Flow) -> None:
        """Give a detached flow its original key back; no other may have it."""
        self.originals(flow.protocol)[flow.original] = flow
        self.touch(flow)

    def detach_reply(self, flow: Flow) -> None:
        """Let another flow have the public 5-tuple."""
        replies = self.index_of(flow.method).replies(flow.protocol)
        if replies.get(flow.reply) is flow:
            del replies[flow.reply]
            self.touch(flow)

    def reclaim(self, flow: Flow) -> None:
        """Keep a flow for the listing alone: no packet finds it any more."""
        self.detach_original(flow)
        self.detach_reply(flow)
        flow.awaiting_removal = True
        self.reclaimed[flow.protocol, flow.original] = flow

    def remove(self, flow: Flow) -> None:
        """Forget a flow."""
        self.detach_original(flow)
        self.detach_reply(flow)
        if flow.awaiting_removal and self.reclaimed.get((flow.protocol, flow.original)) is flow:
            del self.reclaimed[flow.protocol, flow.original]
        self.traffic.ended(flow)
        if self.to_be_reset:
            self.to_be_reset.discard(flow)
        self.touch(flow)
        self._slots[flow.slot] = None
        self._free_slots.append(flow.slot)
        flow.slot = -1

    def at(self, slot: int) -> Flow | None:
        """The flow in a slot."""
        return self._slots[slot] if slot < len(self._slots) else None

    def slice(self, start: int, count: int) -> tuple[list[Flow], int | None]:
        """The flows in slots ``start`` to ``start + count``, and where to go on (None: done)."""
        following = start + count
        return (
            [flow for flow in self._slots[start:following] if flow is not None],
            following if following < len(self._slots) else None,
        )


def record(flow: Flow, now: float) -> FlowRecord:
    """The listing's view of a flow at Azure time ``now``.

    It is made for every flow of a listing, between packets: two look-ups of bytes and no keyword
    take a third of the time that the same takes with address objects and names.
    """
    a, b, c, d, e, f, g, h, private_port, remote_port = _original(flow.original)
    i, j, k, m, public_port = _public(flow.reply)
    expires_in = flow.last_seen + flow.timeout - now
    return FlowRecord(
        flow.id,
        flow.protocol,
        flow.state_name,
        "Inbound" if flow.inbound else "Outbound",
        flow.method.value,
        flow.machine.name,
        f"{a}.{b}.{c}.{d}",
        private_port,
        None if flow.method is Method.VIRTUAL_NETWORK else f"{i}.{j}.{k}.{m}",
        public_port,
        f"{e}.{f}.{g}.{h}",
        remote_port,
        flow.packets_out,
        flow.bytes_out,
        flow.packets_in,
        flow.bytes_in,
        now - flow.created,
        now - flow.last_seen,
        expires_in if expires_in > 0.0 else 0.0,
        flow.awaiting_removal,
        flow.offloaded,
    )
