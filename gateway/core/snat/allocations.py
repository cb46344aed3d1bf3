"""The run-time objects: VMs, public IPs, and the ports that a VM has on an address.

Data with a few questions it can answer about itself; ``allocation_manager.py`` makes and changes
all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from itertools import chain

from gateway.core.snat.nat_gateway_pool import NatGatewayPool
from gateway.core.snat.plan import FlowPolicy, VmPlan
from gateway.core.snat.port_pool import PortPool, Ports
from gateway.core.snat.port_ranges import PortRanges, joined
from gateway.model.profile import Method
from gateway.schema.protocols import ICMP, TCP, UDP


class Vm:
    """A VM. One that the configuration does not name is named by its address."""

    __slots__ = (
        "address",
        "allocations",
        "flows",
        "idle_timeout",
        "instance",
        "name",
        "named",
        "nat_gateway",
        "tcp",
        "udp",
    )

    def __init__(self, plan: VmPlan, *, named: bool) -> None:
        self.address = plan.address
        self.named = named
        self.flows = 0
        self.allocations: list[
            PortAllocation
        ] = []  # where there are several, in the order of their use
        self.adopt(plan)

    def adopt(self, plan: VmPlan) -> None:
        """Take the plan's decisions; flows that live keep what they have."""
        self.name = plan.name
        self.tcp = plan.tcp
        self.udp = plan.udp
        self.instance = plan.instance
        self.idle_timeout = plan.idle_timeout
        self.nat_gateway = plan.nat_gateway

    def follows(self, plan: VmPlan) -> bool:
        """Whether it has taken exactly these decisions."""
        return (
            self.name == plan.name
            and self.tcp is plan.tcp
            and self.udp is plan.udp
            and self.instance == plan.instance
            and self.idle_timeout == plan.idle_timeout
            and self.nat_gateway == plan.nat_gateway
        )

    @property
    def method(self) -> Method | None:
        """The method of its outbound flows, whatever their protocol; None: there is none."""
        return self.tcp or self.udp

    @property
    def draws_ports(self) -> bool:
        """Whether the public IP or port of a new flow may be another one each time."""
        return self.nat_gateway is not None or len(self.allocations) > 1

    def method_of(self, protocol: int) -> Method | None:
        """The method for a protocol; what is not UDP goes as TCP does, where it goes at all."""
        return self.udp if protocol == UDP else self.tcp


class PortAllocation:
    """The SNAT ports of one VM on one public IP, for TCP (and ICMP echo) or for UDP."""

    __slots__ = ("address", "flow_policy", "machine", "pools", "protocol", "ranges")

    def __init__(
        self,
        machine: Vm,
        address: bytes,
        protocol: int,
        flow_policy: FlowPolicy,
        pools: Mapping[int, Ports],
        ranges: tuple[range, ...] = (),
    ) -> None:
        self.machine = machine
        self.address = address
        self.protocol = protocol
        self.flow_policy = flow_policy
        self.pools = pools
        self.ranges = ranges  # its own; of a NAT gateway's shared ports it has none

    @classmethod
    def own(
        cls,
        machine: Vm,
        address: bytes,
        protocol: int,
        flow_policy: FlowPolicy,
        ranges: Iterable[range],
    ) -> PortAllocation:
        """One with ports of its own."""
        ports = tuple(joined(ranges))
        pools = {number: PortPool(address, ports) for number in CARRIED[protocol]}
        return cls(machine, address, protocol, flow_policy, pools, ports)

    def relocate(self, ranges: tuple[range, ...]) -> bool:
        """Give it other ports; what is held of them stays held. False: a flow holds one that is
        gone, and has to be broken off."""
        self.ranges = ranges
        return False not in [pool.relocate(ranges) for pool in self.pools.values()]

    @property
    def method(self) -> Method:
        """The outbound method that these ports are for."""
        return self.flow_policy.method

    @property
    def count(self) -> int:
        """Ports for its protocol."""
        return self.pools[self.protocol].count

    @property
    def in_use(self) -> bool:
        """Whether any flow holds one of its ports."""
        return any(pool.used for pool in self.pools.values())


CARRIED = {TCP: (TCP, ICMP), UDP: (UDP,)}
"""What an allocation's ports are for: a lab's ICMP echo has identifiers from TCP's ranges."""
SNAT_PROTOCOLS = (TCP, UDP, ICMP)


class PublicAddress:
    """A public IP of the configuration: port ranges, or one VM's own address.

    A NAT gateway's has ``shared`` ports, by protocol, and VMs' shares of them.
    """

    __slots__ = (
        "address",
        "allocations",
        "frontend_ports",
        "instance_of",
        "port_ranges",
        "retired",
        "shared",
        "shares",
    )

    def __init__(self, address: bytes) -> None:
        self.address = address
        self.frontend_ports: frozenset[int] = frozenset()
        self.port_ranges: dict[int, PortRanges] = {}  # TCP's and UDP's
        self.instance_of: Vm | None = None
        self.allocations: list[PortAllocation] = []
        self.retired: list[PortAllocation] = []  # hold ports until their flows end
        self.shared: dict[int, NatGatewayPool] = {}
        self.shares: dict[Vm, list[PortAllocation]] = {}

    def __str__(self) -> str:
        return str(IPv4Address(self.address))

    @property
    def current(self) -> list[PortAllocation]:
        """Those that new flows get ports from."""
        return [*self.allocations, *chain.from_iterable(self.shares.values())]

    def allocation(self, machine: Vm, protocol: int) -> PortAllocation | None:
        """What a VM has here for a protocol."""
        for allocation in machine.allocations:
            if allocation.address == self.address and allocation.protocol == protocol:
                return allocation
        return None
