"""Reports SNAT ports that run short: many dropped packets make few events.

One sampler for flows that found no port, one for VMs that use more of their ports than the profile
tolerates (``high_usage``). Which event Azure would write is the profile's and the method's.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from gateway.core.events import Event, EventThrottle, HighSnatPortUsage, PortsExhausted
from gateway.core.snat.allocations import PortAllocation
from gateway.core.snat.plan import FlowPolicy
from gateway.model.profile import ExhaustionEvent, Method, Profile
from gateway.schema.protocols import PROTOCOL_NAMES

BALANCED = frozenset({Method.LOAD_BALANCER, Method.OUTBOUND_RULE})

_Key = tuple[str, bytes, int]  # VM, public IP, protocol
_Refused = tuple[bytes, FlowPolicy, bytes, int]  # VM's address, flow_policy, remote
_Used = tuple[bytes, FlowPolicy, int, int]  # VM's address, flow_policy, used, allocated


class ExhaustionMonitor:
    """Records shortages and calls ``report``, at most once an interval for each of a kind."""

    def __init__(self, profile: Profile, maximum: int, report: Callable[[Event], None]) -> None:
        """``maximum`` bounds the kinds distinguished at a time."""
        self._shape = profile.exhaustion_event
        self._report = report
        interval = profile.exhaustion_event_interval
        self._exhausted = EventThrottle[_Key, _Refused](interval, maximum)
        self._high = EventThrottle[_Key, _Used](interval, maximum)

    @property
    def unsampled(self) -> int:
        """Occurrences that found no room among the kinds."""
        return self._exhausted.unsampled + self._high.unsampled

    def exhausted(
        self, allocation: PortAllocation, protocol: int, original: bytes, now: float
    ) -> None:
        """A flow with this original key found no port on an allocation."""
        key = allocation.machine.name, allocation.address, protocol
        remote = original[4:8], int.from_bytes(original[10:12], "big")
        detail = allocation.machine.address, allocation.flow_policy, *remote
        if self._exhausted.note(key, detail, now):
            self._report(self._exhaustion(key, detail, 1, now))

    def high(self, allocation: PortAllocation, protocol: int, now: float) -> None:
        """A flow got a port, and more than the profile's share of the allocation is in use."""
        if allocation.flow_policy.method not in BALANCED:
            return  # Azure has health events for load balancers alone
        pool = allocation.pools[protocol]
        key = allocation.machine.name, allocation.address, protocol
        detail = allocation.machine.address, allocation.flow_policy, pool.used, pool.count
        if self._high.note(key, detail, now):
            self._report(_usage(key, detail, now))

    def look(self, now: float) -> None:
        """Report what came together in intervals that are over."""
        for key, count, dropped in self._exhausted.due(now):
            self._report(self._exhaustion(key, dropped, count, now))
        for key, _, used in self._high.due(now):
            self._report(_usage(key, used, now))

    def _exhaustion(self, key: _Key, detail: _Refused, count: int, now: float) -> PortsExhausted:
        vm, public, protocol = key
        private, flow_policy, remote, port = detail
        shape: ExhaustionEvent | None = self._shape
        if shape is ExhaustionEvent.HEALTH and flow_policy.method not in BALANCED:
            shape = None
        return PortsExhausted(
            now,
            vm,
            _dotted(public),
            PROTOCOL_NAMES[protocol],
            _dotted(remote),
            port,
            count,
            _dotted(private),
            flow_policy.owner,
            shape,
        )


def _usage(key: _Key, detail: _Used, now: float) -> HighSnatPortUsage:
    vm, public, protocol = key
    private, flow_policy, used, allocated = detail
    return HighSnatPortUsage(
        now,
        vm,
        _dotted(public),
        PROTOCOL_NAMES[protocol],
        used,
        allocated,
        _dotted(private),
        flow_policy.owner,
    )


def _dotted(address: bytes) -> str:
    return str(IPv4Address(address))
