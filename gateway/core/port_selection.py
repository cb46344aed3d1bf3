"""The SNAT port allocator: which public IP and port a new flow's mapping gets (RFC 4787).

``port_pool.py`` and ``nat_gateway_pool.py`` have the ports of one VM on one public IP; this chooses
among those of a VM (docs/fidelity.md A2, D16, P4, P9). Port overloading is per destination: a port
serves several remote endpoints, never two flows of one public five-tuple. A flow without a port
gets a ``DropReason``, and the exhaustion monitor is notified.
"""

from __future__ import annotations

from copy import copy
from random import Random

from gateway.core.flows.counters import Connections
from gateway.core.flows.flow import Flow
from gateway.core.flows.tcp import ENDED
from gateway.core.observe.exhaustion import ExhaustionMonitor
from gateway.core.snat.allocation_manager import AllocationManager
from gateway.core.snat.allocations import PortAllocation, Vm
from gateway.core.snat.nat_gateway_pool import VmNatUsage, choose
from gateway.core.snat.port_pool import PortPool, Ports
from gateway.model.profile import DestinationScope, FrontendChoice, Method, Profile
from gateway.schema.drop_reasons import DropReason
from gateway.schema.protocols import ICMP, TCP, UDP


class _Endpoint:
    """The SNAT port that a private UDP endpoint holds, and toward how many remotes."""

    __slots__ = ("flows", "pool", "port")

    def __init__(self, pool: Ports, port: int) -> None:
        self.pool = pool
        self.port = port
        self.flows = 0


class PortAllocator:
    """Takes ports for flows, and takes them back. ``seed`` fixes the choice among frontends.

    ``watch`` is notified of every pool that has no port, or few; ``connections`` of failed
    attempts.
    """

    def __init__(
        self,
        profile: Profile,
        outbound: AllocationManager,
        seed: int | None,
        watch: ExhaustionMonitor,
        connections: Connections,
    ) -> None:
        self._profile = profile
        self._outbound = outbound
        self._random = Random(seed)  # noqa: S311 - repeatable on purpose
        self._watch = watch
        self._connections = connections
        self._high = profile.high_usage
        self._endpoints: dict[bytes, _Endpoint] = {}

    def destination(self, protocol: int, original: bytes) -> bytes:
        """What makes a SNAT port reusable: the remote address, or address and port (A1)."""
        profile = self._profile
        scope = profile.tcp_destination if protocol == TCP else profile.udp_destination
        if scope is DestinationScope.ADDRESS or protocol == ICMP:
            return original[4:8]
        return original[4:8] + original[10:12]

    def take(
        self, machine: Vm, protocol: int, original: bytes, now: float
    ) -> tuple[PortAllocation, int] | DropReason:
        """Hold a port for a flow with this original key: of which allocation, and which.

        ``foreseen`` foretells the same without holding it; a NAT gateway's ports are chosen in
        ``nat_gateway_pool.py``.
        """
        if machine.method_of(protocol) is Method.NAT_GATEWAY:
            return self._take_shared(machine, protocol, original, now)
        destination = self.destination(protocol, original)
        allocations = [a for a in machine.allocations if protocol in a.pools]
        if not allocations:
            return DropReason.DEFAULT_OUTBOUND_CAPACITY
        endpoint_key = original[0:4] + original[8:10]
        endpoint = self._endpoints.get(endpoint_key) if protocol == UDP else None
        if endpoint is not None:
            for allocation in allocations:
                pool = allocation.pools[protocol]
                if endpoint.pool is pool and pool.take_exactly(destination, endpoint.port):
                    endpoint.flows += 1
                    return allocation, endpoint.port
        if len(allocations) > 1 and self._profile.frontend_choice is FrontendChoice.RANDOM:
            self._random.shuffle(allocations)
        for allocation in allocations:
            pool = allocation.pools[protocol]
            if isinstance(pool, PortPool) and (port := pool.take(destination)):
                if protocol == UDP and endpoint is None:
                    endpoint = self._endpoints[endpoint_key] = _Endpoint(pool, port)
                    endpoint.flows = 1
                if self._high is not None and pool.used > self._high * pool.count:
                    self._watch.high(allocation, protocol, now)
                return allocation, port
        return self._no_port(allocations, protocol, original, now)

    def foreseen(
        self, machine: Vm, protocol: int, original: bytes
    ) -> tuple[PortAllocation, int] | DropReason:
        """What ``take`` would answer; nothing is held, counted or drawn."""
        every = self._outbound.foreseen_allocations(machine)
        allocations = [a for a in every if protocol in a.pools]
        destination = self.destination(protocol, original)
        if machine.method_of(protocol) is Method.NAT_GATEWAY:
            random = copy(self._random)
            shares = [
                pool for a in allocations if isinstance(pool := a.pools[protocol], VmNatUsage)
            ]
            number = choose(shares, destination, random)
            if number < 0:
                return DropReason.PORTS_EXHAUSTED
            return allocations[number], shares[number].shared.foreseen(destination, random)
        if not allocations:
            return DropReason.DEFAULT_OUTBOUND_CAPACITY
        pools = [(a, pool) for a in allocations if isinstance(pool := a.pools[protocol], PortPool)]
        endpoint = self._endpoints.get(original[0:4] + original[8:10]) if protocol == UDP else None
        for allocation, pool in pools:
            if endpoint is None or endpoint.pool is not pool:
                continue
            if pool.is_free(destination, endpoint.port):
                return allocation, endpoint.port
        if len(pools) > 1 and self._profile.frontend_choice is FrontendChoice.RANDOM:
            copy(self._random).shuffle(pools)
        for allocation, pool in pools:
            if port := pool.next_free(destination):
                return allocation, port
        return DropReason.PORTS_EXHAUSTED

    def _take_shared(
        self, machine: Vm, protocol: int, original: bytes, now: float
    ) -> tuple[PortAllocation, int] | DropReason:
        """A port of a NAT gateway, on any of its public IPs."""
        if not machine.allocations:
            self._outbound.share(machine)
        allocations = [a for a in machine.allocations if protocol in a.pools]
        shares = [pool for a in allocations if isinstance(pool := a.pools[protocol], VmNatUsage)]
        destination = self.destination(protocol, original)
        number = choose(shares, destination, self._random)
        if number < 0:
            reason = self._no_port(allocations, protocol, original, now)
            self._outbound.forget(machine)
            return reason
        return allocations[number], shares[number].take(destination, self._random)

    def _no_port(
        self, allocations: list[PortAllocation], protocol: int, original: bytes, now: float
    ) -> DropReason:
        for allocation in allocations:
            pool = allocation.pools[protocol]
            pool.failed += 1
            self._connections.failed(allocation.machine.name, pool.address, protocol)
            self._watch.exhausted(allocation, protocol, original, now)
        return DropReason.PORTS_EXHAUSTED

    def hold_again(self, flow: Flow, pool: Ports) -> bool:
        """Hold the port that a flow of an earlier process held; False: it is not free."""
        port = flow.snat_port
        if not pool.take_again(self.destination(flow.protocol, flow.original), port):
            return False
        if flow.state in ENDED:
            pool.cooling += 1
        if flow.protocol == UDP and isinstance(pool, PortPool):
            key = flow.original[0:4] + flow.original[8:10]
            endpoint = self._endpoints.setdefault(key, _Endpoint(pool, port))
            if endpoint.pool is pool and endpoint.port == port:
                endpoint.flows += 1
        return True

    def release(self, flow: Flow, pool: Ports) -> None:
        """Take back the port that a flow holds of ``pool``."""
        self.give_back(flow, pool)
        self.forget_port(flow, pool)

    def give_back(self, flow: Flow, pool: Ports) -> None:
        """Release the port alone; ``forget_port`` is to follow."""
        pool.release(self.destination(flow.protocol, flow.original), flow.snat_port)

    def forget_port(self, flow: Flow, pool: Ports) -> None:
        """Undo what else a flow's port of ``pool`` counts for: cooling, a UDP endpoint."""
        if flow.state in ENDED:
            pool.cooling -= 1
        if flow.protocol == UDP:
            key = flow.original[0:4] + flow.original[8:10]
            endpoint = self._endpoints.get(key)
            if endpoint is not None and endpoint.pool is pool and endpoint.port == flow.snat_port:
                endpoint.flows -= 1
                if not endpoint.flows:
                    del self._endpoints[key]
