"""What the engine reports of flows, ports, VMs, rules and backends: plain tuples of plain values.

They cross the control channel as they are; ``daemon/channel/json_views.py`` gives them the
contract's JSON names. Durations are seconds of Azure time, ports in host order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    pass


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


class PortRecord(NamedTuple):
    """A port pool as a listing has it. ``used``: ports that at least one flow holds."""

    vm: str
    public_ip: str
    protocol: str
    method: str
    allocated: int
    used: int
    free: int
    high_water: int
    failed: int
    destinations: tuple[tuple[str, int | None, int], ...]
    cooling: int
    ranges: tuple[tuple[int, int], ...] = ()  # the VM's ports, first and last of each
    reserved: tuple[tuple[int, int], ...] = ()  # the public IP's that rules keep out of SNAT


class MachineRecord(NamedTuple):
    """How one VM goes out. A method that is None: there is none for that protocol."""

    name: str
    private_ip: str
    tcp: str | None
    udp: str | None
    ports: tuple[tuple[str, int], ...]  # public IP, and SNAT ports on it for each protocol
    instance: str | None  # its instance-level public IP
    frontends: tuple[tuple[str, str, int], ...]  # load balancer, frontend, size of the pool behind
    outbound_rules: tuple[tuple[str, int, int], ...]  # name, frontends, allocatedOutboundPorts
    nat_gateway: str | None
    tcp_idle_timeouts: tuple[float, float]  # seconds; the shortest and the longest of its flows'
    udp_idle_timeout: float

    @property
    def method(self) -> str | None:
        """Of its flows, whatever their protocol; None: there is none."""
        return self.tcp or self.udp

    def method_of(self, protocol: str) -> str | None:
        """For a protocol's name; what is not UDP goes as TCP does."""
        return self.udp if protocol == "Udp" else self.tcp


class SecurityRuleRecord(NamedTuple):
    """A rule of a network security group as a listing has it, with how often it decided."""

    group: str
    associations: tuple[tuple[str, str], ...]  # ("Subnet" | "NetworkInterface", name)
    name: str
    default: bool
    priority: int
    direction: str
    access: str
    protocol: str
    sources: tuple[str, ...]
    source_ports: tuple[str, ...]
    destinations: tuple[str, ...]
    destination_ports: tuple[str, ...]
    expanded_sources: tuple[str, ...] | None
    expanded_destinations: tuple[str, ...] | None
    hits: int


class HealthRecord(NamedTuple):
    """A VM behind a rule, as a listing has it. ``up`` None: not known yet."""

    balancer: str
    rule: str
    method: str
    protocol: int
    public_ip: str
    frontend_port: int
    vm: str
    private_ip: str
    backend_port: int
    probe: str | None
    up: bool | None
    takes_flows: bool
    denied_by: str | None  # "group/rule" that denies the probe
