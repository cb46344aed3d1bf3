"""What the engine has besides its flows that a restart must not lose: data, to and from it.

Which ports each VM has been allocated (they depend on what came before: docs/fidelity.md A6), how
full these ever were, which frontend port a member of a pool has, and which backends are up.
Addresses are dotted, ports host order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from gateway.core.inbound.listeners import Target
from gateway.core.snat.nat_gateway_pool import VmNatUsage

if TYPE_CHECKING:
    from gateway.core.engine import Engine
    from gateway.core.snat.allocations import PortAllocation

ALLOCATIONS_PER_SLICE = 64


@dataclass(frozen=True)
class SavedPool:
    """One of an allocation's pools, for the flows of a protocol."""

    protocol: int
    high_water: int
    failed: int


@dataclass(frozen=True)
class SavedAllocation:
    """The SNAT ports of a VM on a public IP. ``ranges``: first and last ports; none of a NAT
    gateway's, which are shared."""

    vm: str
    public: str
    protocol: int
    method: str
    idle_timeout: float
    owner: str
    retired: bool
    ranges: tuple[tuple[int, int], ...]
    pools: tuple[SavedPool, ...]


@dataclass(frozen=True)
class SavedNatPorts:
    """Frontend ports of an inbound NAT rule's members, by name."""

    balancer: str
    rule: str
    ports: dict[str, int]


@dataclass(frozen=True)
class SavedHealth:
    """What was known of a backend."""

    balancer: str
    probe: str
    vm: str
    up: bool


@dataclass(frozen=True)
class SavedState:
    """All of it. ``opened``: flows ever opened, which is the latest flow's id."""

    opened: int = 0
    allocations: tuple[SavedAllocation, ...] = ()
    nat_ports: tuple[SavedNatPorts, ...] = ()
    health: tuple[SavedHealth, ...] = ()


def save(engine: Engine) -> Iterator[SavedState | None]:
    """None after each slice, the state last. What changes meanwhile is in it or not."""
    allocations: list[SavedAllocation] = []
    outbound = engine.outbound
    for machine in list(outbound.machines.values()):
        for allocation in list(machine.allocations):
            allocations.append(_saved(allocation, retired=False))
            if not len(allocations) % ALLOCATIONS_PER_SLICE:
                yield None
    for public in list(outbound.addresses.values()):
        allocations += [
            _saved(allocation, retired=True) for allocation in public.retired if allocation.ranges
        ]
        if public.retired:
            yield None
    yield SavedState(
        engine.flows.opened,
        tuple(allocations),
        tuple(SavedNatPorts(*key, dict(ports)) for key, ports in engine.balancer.nat_ports.items()),
        tuple(
            SavedHealth(*target, up)
            for target, up in engine.balancer.targets().items()
            if up is not None
        ),
    )


def _saved(allocation: PortAllocation, *, retired: bool) -> SavedAllocation:
    shared = any(isinstance(pool, VmNatUsage) for pool in allocation.pools.values())
    return SavedAllocation(
        str(IPv4Address(allocation.machine.address)),
        str(IPv4Address(allocation.address)),
        allocation.protocol,
        allocation.flow_policy.method.value,
        allocation.flow_policy.idle_timeout,
        allocation.flow_policy.owner,
        retired,
        () if shared else tuple((ports.start, ports.stop - 1) for ports in allocation.ranges),
        tuple(
            SavedPool(protocol, pool.high_water, pool.failed)
            for protocol, pool in allocation.pools.items()
        ),
    )


def target(health: SavedHealth) -> Target:
    """Of whom it was known."""
    return Target(health.balancer, health.probe, health.vm)
