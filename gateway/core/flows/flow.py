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

from struct import Struct
from typing import TYPE_CHECKING

from gateway.core.flows.tcp import CLOSING, ENDED, SEGMENT_OF_FLAGS, TRANSITIONS, Side, State
from gateway.model.profile import Method
from gateway.schema.protocols import TCP
from gateway.schema.records import FlowRecord

if TYPE_CHECKING:
    from gateway.core.policy.nsg import RuleMatch
    from gateway.core.snat.allocations import Vm
    from gateway.core.snat.port_pool import Ports


PORTS = tuple(number.to_bytes(2, "big") for number in range(1 << 16))
"""Every port in network order: flows share these objects."""
NUMBERS = tuple(range(1 << 16))
"""The numbers of 16 bits, likewise: an object of its own for each would be memory, and a miss."""

_original = Struct("!8B2H").unpack_from  # private, remote, private port, remote port
_public = Struct("!4x4B2xH").unpack_from  # of a reply key: public, public port


_COUNTING = "established", "pipeline", "stages", "flow_tracking", "persistence.restore"
WRITERS: dict[str, tuple[str, ...]] = {
    # What the flow is. Set once, when it opens: a key never changes while the flow is in a table.
    "protocol": (),
    "original": (),
    "reply": (),
    "inbound": (),  # the remote sent first
    "method": (),
    "created": (),
    "private": (),  # what rewriting puts in, as it goes on the wire
    "private_port": (),
    "public": (),
    "public_port": (),
    "ip_delta": (),  # what rewriting adds to the checksums
    "l4_delta": (),
    # Where it stands: the table alone gives a number and a slot, -1 for a flow in no table. A flow
    # of an earlier process has its number from there.
    "id": ("flows.table", "persistence.restore"),
    "slot": ("flows.table",),
    "bucket": ("flows.expiry",),  # None: no timer is armed
    "awaiting_removal": ("flows.table", "persistence.restore"),  # listed only, until it times out
    # Whose it is. The pool is None from the start or once the port has gone to another flow; a
    # flow with a pool holds its port there, also in FINISHED and RESET (it cools down).
    "machine": ("persistence.restore",),
    "pool": ("flow_lifecycle", "persistence.restore"),
    "rule_matches": ("persistence.restore",),  # what the security groups said when it opened
    # How it lives. ``state`` has its legal writes in ``Flow``'s methods, below.
    "state": (),
    "timeout": ("flow_tracking", "flow_lifecycle"),  # with ``expiry.arm`` where it gets shorter
    "last_seen": ("established", "flow_tracking", "flow_lifecycle", "persistence.restore"),
    # While a flow is offloaded its packets pass elsewhere: ``Tracking.fold`` before these, and
    # ``last_seen``, are read.
    "offloaded": ("flow_tracking", "persistence.restore"),
    "packets_out": _COUNTING,
    "bytes_out": _COUNTING,
    "packets_in": _COUNTING,
    "bytes_in": _COUNTING,
}
"""A flow's fields, each with the modules of the core that may write it after the flow was made."""


class Flow:
    """One translated conversation. Counters are of IP packets and their whole length in bytes.

    The state is written here and nowhere else, by ``follow_segment`` (TCP, as its table has it),
    ``answer`` (all others: OPENING to ESTABLISHED), ``reopen`` (to OPENING, of any state: the
    caller sees to the port that cools down), ``finish`` (to FINISHED) and ``resume``.
    """

    __slots__ = tuple(WRITERS)

    def __init__(  # noqa: PLR0913
        self,
        protocol: int,
        original: bytes,
        reply: bytes,
        machine: Vm,
        public: bytes,
        method: Method,
        pool: Ports | None,
        timeout: float,
        now: float,
        *,
        inbound: bool = False,
        rule_matches: tuple[RuleMatch, ...] = (),
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
        self.rule_matches = rule_matches  # what the security groups said when the flow opened
        # RFC 1624 eqn. 3 in arithmetic modulo 65535: what the source's rewriting adds to the
        # checksums of IP and of the transport. The reply's rewriting takes the same away again.
        words = int.from_bytes
        addresses = words(original[0:4], "big") - words(reply[4:8], "big")
        ports = words(original[8:10], "big") - words(reply[10:12], "big")
        self.ip_delta = NUMBERS[addresses % 0xFFFF]
        self.l4_delta = NUMBERS[(addresses + ports) % 0xFFFF]

    # -- the state

    def follow_segment(self, side: Side, flags: int) -> State | None:
        """The state that a segment leads to by the table, which is the flow's from now on; None:
        it leads nowhere."""
        if self.inbound:
            side = Side.REPLY if side is Side.ORIGINAL else Side.ORIGINAL  # who sent first
        following = TRANSITIONS.get((self.state, side, SEGMENT_OF_FLAGS[flags & 7]))
        if following is not None:
            self.state = following
        return following

    def answer(self) -> None:
        """Of a flow that is not TCP's: the other side has sent, too."""
        self.state = State.ESTABLISHED

    def reopen(self) -> None:
        """Begin again, or leave the path that only established flows take."""
        self.state = State.OPENING

    def finish(self) -> None:
        """End, and hold the port for a while."""
        self.state = State.FINISHED

    def resume(self, state: State) -> None:
        """Go on where an earlier process was."""
        self.state = state

    # -- what follows from the fields

    @property
    def snat_port(self) -> int:
        """The translated source port (the ICMP identifier for echo), in host order."""
        return self.public_port[0] << 8 | self.public_port[1]

    @property
    def is_port_preserving(self) -> bool:
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


class Bucket(set[Flow]):
    """Flows to check when ``due`` (a count of ticks) has come."""

    __slots__ = ("due",)

    def __init__(self, due: int) -> None:
        super().__init__()
        self.due = due

    def __lt__(self, other: object) -> bool:  # heap order
        return isinstance(other, Bucket) and self.due < other.due
