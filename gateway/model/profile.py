"""Azure's numbers and policies, dated: one table per profile, each value with its source beside it.

Nothing else in the program holds a constant that comes from Azure. The core asks the profile;
the documentation and `explain` read the same table. Durations are seconds of Azure time: the
core's clock is already scaled, so no value here ever knows `timeScale`.

Sources, as cited below:
  OUT17    "Understanding outbound connections in Azure", 31 May 2017
  OUT19    "Outbound connections in Azure", 2018-2019 text (the first that publishes numbers)
  CLASSIC  "Outbound connections (classic)"
  ORULE    "Outbound rules", 2024
  LOG18    "Azure Monitor logs for public Basic Load Balancer", 2016-2018 text
  NEW      "What's new in Azure Load Balancer", known issues
  inferred not published by Azure: the reading that docs/fidelity.md explains
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum


class Method(StrEnum):
    """How a flow is translated, in the spelling that listings and JSON use."""

    DEFAULT_OUTBOUND_ACCESS = "DefaultOutboundAccess"
    LOAD_BALANCER = "LoadBalancer"
    OUTBOUND_RULE = "OutboundRule"
    INSTANCE_LEVEL_PUBLIC_IP = "InstanceLevelPublicIP"
    NAT_GATEWAY = "NatGateway"
    LOAD_BALANCING_RULE = "LoadBalancingRule"
    INBOUND_NAT_RULE = "InboundNatRule"
    VIRTUAL_NETWORK = "VirtualNetwork"


class DestinationScope(Enum):
    """What makes a destination "another one", toward which a SNAT port can be used again."""

    ADDRESS = "address"
    """Flows to one address take a port each, whatever port they go to there."""
    ADDRESS_AND_PORT = "address and port"
    """Only flows to the same address and the same port there take a port each."""


class FrontendChoice(Enum):
    """In which order several frontends are candidates for a new flow."""

    RANDOM = "random"
    """At random among those that have a free port for the destination."""
    FILL_FIRST = "fill first"
    """The first one until it has no free port for the destination, then the next."""


class HairpinToItself(Enum):
    """What becomes of a flow that a load balancer hands to the VM which sent it."""

    DROPPED = "dropped"
    """It times out, as through an internal frontend: "not supported, by design" (2026)."""
    DELIVERED = "delivered"
    """The source was translated, so that the two halves of the flow differ and it works."""


@dataclass(frozen=True)
class Profile:
    """One dated behaviour of Azure. Ports are inclusive; durations are seconds of Azure time."""

    name: str

    first_snat_port: int
    last_snat_port: int
    """SNAT's range on a public IP, per protocol. 64,000 ports: OUT19; its bounds: inferred."""
    port_unit: int
    """Ports are allotted, and taken out by rules' frontend ports, in units of 8: ORULE;
    units aligned to multiples of 8: inferred."""
    preallocation: tuple[tuple[int, int], ...]
    """(largest pool size, SNAT ports for each VM) per frontend and protocol, ascending: OUT19."""
    ports_per_vm_beyond: int
    """SNAT ports for each VM of a pool above the table's last row: inferred, Azure has no row."""
    default_outbound_pool_size: int
    """A standalone VM counts as a pool of this size: OUT19 (a lone VM is a pool of one)."""

    tcp_destination: DestinationScope
    udp_destination: DestinationScope
    """One port per flow "to a single destination IP address": OUT17, for both protocols."""

    idle_timeout: float
    """A flow without packets is reclaimed at once after this: OUT17 (4 minutes)."""
    fin_hold: float
    """From the last packet after the first FIN to the port's release: OUT19, CLASSIC (240 s)."""
    rst_hold: float
    """From an RST to the port's release: OUT19, CLASSIC (15 s)."""
    exhaustion_event_interval: float
    """At most one exhaustion event per VM, public IP and protocol in this time: inferred
    (LOG18: Azure checks every 5 minutes and writes only when raised; a minute helps in a lab)."""

    method_order: tuple[Method, ...]
    """Outbound methods, the first that a VM has wins: OUT17's table of three scenarios."""
    frontend_choice: FrontendChoice
    """With several frontends "any of these" is a candidate: OUT17, "Limitations"."""
    programs_all_protocols: bool
    """A load balancing rule of any protocol gives outbound SNAT for TCP and UDP: OUT19 (Basic)."""
    fragments_through_snat: bool
    """Fragments are reassembled and translated (not dropped): OUT17 is silent; OUT19 drops them."""
    tcp_reset_on_idle: bool
    """Both ends get an RST when an established flow idles out. Not in 2017: it ends silently."""

    number_of_probes_counts: bool = True
    """A probe's numberOfProbes is its threshold: LOG18's time; later Azure ignores it (NEW)."""
    hairpin_to_itself: HairpinToItself = HairpinToItself.DROPPED
    """A VM's flow to its load balancer's frontend, mapped to the VM itself. Microsoft's documents
    disagree on public frontends (docs/fidelity.md A9); this is the reading that nobody should
    build on in vain."""

    @property
    def snat_port_count(self) -> int:
        """SNAT ports of one public IP for one protocol, before any rule takes units out."""
        return self.last_snat_port - self.first_snat_port + 1

    def ports_per_vm(self, pool_size: int) -> int:
        """SNAT ports for each VM of a pool of `pool_size`, per frontend and protocol."""
        for largest, ports in self.preallocation:
            if pool_size <= largest:
                return ports
        return self.ports_per_vm_beyond

    def unit_of(self, port: int) -> int:
        """First port of the aligned unit that holds `port`."""
        return port - port % self.port_unit


AZURE_2017 = Profile(
    name="azure-2017",
    first_snat_port=1024,
    last_snat_port=65023,
    port_unit=8,
    preallocation=((50, 1024), (100, 512), (200, 256), (400, 128), (800, 64), (1000, 32)),
    ports_per_vm_beyond=32,
    default_outbound_pool_size=1,
    tcp_destination=DestinationScope.ADDRESS,
    udp_destination=DestinationScope.ADDRESS,
    idle_timeout=240.0,
    fin_hold=240.0,
    rst_hold=15.0,
    exhaustion_event_interval=60.0,
    method_order=(
        Method.INSTANCE_LEVEL_PUBLIC_IP,
        Method.LOAD_BALANCER,
        Method.DEFAULT_OUTBOUND_ACCESS,
    ),
    frontend_choice=FrontendChoice.RANDOM,
    programs_all_protocols=True,
    fragments_through_snat=True,
    tcp_reset_on_idle=False,
)

PROFILES: dict[str, Profile] = {AZURE_2017.name: AZURE_2017}
"""The profiles that this version carries out, by the name that `gateway.profile` takes."""

UNAVAILABLE_PROFILES = frozenset({"azure-current"})
"""Profiles that exist in the configuration language but that this version does not carry out."""

HIGH_SNAT_PORT_USAGE = 0.75
"""Of the ports allotted on a frontend; above it Azure tells of HighSnatPortUsage (load balancer
health events, 2025)."""
NAT_GATEWAY_PORTS = 64_512
"""SNAT ports of a public IP of a NAT gateway, for each protocol, on demand for all VMs of its
subnets ("NAT gateway resource", 2026). No part of azure-2017."""
