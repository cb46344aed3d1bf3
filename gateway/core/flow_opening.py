"""Opening a flow: room, a SNAT port or the VM's own public IP, and what the flow then looks like.

``FlowLifecycle`` enters what is opened here into its table; a dry run (``dry_run.py``) keeps it to
itself. It reads no packets: it is given keys and times. What is not opened is answered with a
``DropReason``.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from gateway.core.flows.flow import PORTS, Flow
from gateway.core.flows.table import FlowLookup
from gateway.core.flows.tcp import ENDED
from gateway.core.inbound.listeners import Listener
from gateway.core.policy.nsg import RuleMatch
from gateway.core.snat.allocations import PortAllocation, Vm
from gateway.core.snat.port_pool import Ports
from gateway.model.profile import Method, Profile
from gateway.schema.drop_reasons import DropReason
from gateway.schema.protocols import TCP, UDP


class Table(FlowLookup, Protocol):
    """Flows by their keys, and how many there may be."""

    @property
    def maximum(self) -> int:
        """How many flows there may be."""

    def __len__(self) -> int: ...


class Allocator(Protocol):
    """Finds a port for a flow with this original key: ``PortAllocator`` (``port_selection.py``)."""

    def take(
        self, machine: Vm, protocol: int, original: bytes, now: float, /
    ) -> tuple[PortAllocation, int] | DropReason:
        """Hold a port: of which allocation, and which; or why there is none."""


T = TypeVar("T", bound=Table)


class Opening(Generic[T]):
    """Opens flows of all three kinds."""

    profile: Profile
    half_open_timeout: float

    table: T
    allocator: Allocator

    def enter(
        self, flow: Flow, superseded: Flow | None, other: Flow | None = None, *, reset: bool = False
    ) -> Flow:
        """Have the flow from now on; ``superseded`` and ``other`` make way for it.

        ``reset``: both ends are to get an RST if it idles out.
        """
        raise NotImplementedError

    def step_back(self, flow: Flow) -> None:
        """Have a live UDP flow leave the VM's endpoint to another, and go on delivering."""
        raise NotImplementedError

    def open(
        self,
        protocol: int,
        original: bytes,
        machine: Vm,
        rule_matches: tuple[RuleMatch, ...],
        now: float,
        *,
        superseded: Flow | None = None,
    ) -> Flow | DropReason:
        """A flow for a VM's packet to outside; ``original`` has no live flow.

        ``superseded``, here and below: the flow that makes way for it. Where none can be opened,
        that one stays as it is.
        """
        if not self.has_room(superseded):
            return DropReason.FLOW_TABLE_FULL
        method = machine.method_of(protocol)
        if method is None:
            return DropReason.NO_OUTBOUND_METHOD
        pool: Ports | None = None
        reset = False
        if method is Method.INSTANCE_LEVEL_PUBLIC_IP:
            assert machine.instance is not None
            public, port, timeout = machine.instance, original[8:10], machine.idle_timeout
        else:
            held = self.allocator.take(machine, protocol, original, now)
            if not isinstance(held, tuple):
                return held
            allocation, number = held
            pool = allocation.pools[protocol]
            public, port = pool.address, PORTS[number]
            method, timeout = allocation.flow_policy.method, allocation.flow_policy.idle_timeout
            reset = allocation.flow_policy.tcp_reset
            if method is Method.NAT_GATEWAY and protocol == TCP:
                timeout = min(timeout, self.half_open_timeout)
        # An echo's identifier stands on the asking side; its reply key has it on that side too.
        reply = original[4:8] + public + original[10:12] + port + original[12:]
        return self.enter(
            Flow(
                protocol,
                original,
                reply,
                machine,
                public,
                method,
                pool,
                timeout,
                now,
                rule_matches=rule_matches,
            ),
            superseded,
            reset=reset,
        )

    def open_inbound(
        self,
        protocol: int,
        reply: bytes,
        machine: Vm,
        rule_matches: tuple[RuleMatch, ...],
        listener: Listener | None,
        now: float,
        *,
        superseded: Flow | None = None,
    ) -> Flow | DropReason:
        """A flow for a packet from outside: to a VM's own public IP, one to one, or by a rule."""
        reason = self.reason_against_inbound(protocol, reply, machine, listener, superseded)
        if reason is not None:
            return reason
        original = _arriving_at(reply, machine, listener)
        other = self.table.originals(protocol).get(original)
        if other is not None and other is not superseded and other.state not in ENDED:
            self.step_back(other)
            other = None
        if listener is None:
            method, timeout = Method.INSTANCE_LEVEL_PUBLIC_IP, machine.idle_timeout
        else:
            method, timeout = listener.method, listener.idle_timeout
        return self.enter(
            Flow(
                protocol,
                original,
                reply,
                machine,
                reply[4:8],
                method,
                None,
                timeout,
                now,
                inbound=True,
                rule_matches=rule_matches,
            ),
            superseded,
            other,
            reset=listener is not None and listener.tcp_reset,
        )

    def open_lateral(
        self,
        protocol: int,
        original: bytes,
        machine: Vm,
        rule_matches: tuple[RuleMatch, ...],
        now: float,
        *,
        superseded: Flow | None = None,
    ) -> Flow | DropReason:
        """A flow from one VM to another: watched, not translated."""
        if not self.has_room(superseded):
            return DropReason.FLOW_TABLE_FULL
        reply = original[4:8] + original[0:4] + original[10:12] + original[8:10] + original[12:]
        return self.enter(
            Flow(
                protocol,
                original,
                reply,
                machine,
                machine.address,
                Method.VIRTUAL_NETWORK,
                None,
                self.profile.idle_timeout,
                now,
                rule_matches=rule_matches,
            ),
            superseded,
        )

    def has_room(self, *superseded: Flow | None, flows: int = 1) -> bool:
        """Whether flows more can be; one that is superseded and holds no port leaves its place."""
        room = self.table.maximum - len(self.table)
        if room >= flows:
            return True
        left = {flow for flow in superseded if flow is not None and flow.pool is None}
        return room + len(left) >= flows

    def reason_against_inbound(
        self,
        protocol: int,
        reply: bytes,
        machine: Vm,
        listener: Listener | None,
        *superseded: Flow | None,
        flows: int = 1,
    ) -> DropReason | None:
        """Why ``open_inbound`` would not open; None: it would. ``flows``: to be opened."""
        other = self.table.originals(protocol).get(_arriving_at(reply, machine, listener))
        live = other is not None and other not in superseded and other.state not in ENDED
        if live and protocol != UDP:
            return DropReason.PRIVATE_ENDPOINT_IN_USE
        ended = None if live else other
        room = self.has_room(*superseded, ended, flows=flows)
        return None if room else DropReason.FLOW_TABLE_FULL


def _arriving_at(reply: bytes, machine: Vm, listener: Listener | None) -> bytes:
    """The original key of a flow that a packet from outside opens."""
    port = reply[10:12] if listener is None else listener.backend_port
    return machine.address + reply[0:4] + port + reply[8:10] + reply[12:]
