"""Azure's numbers and policies, dated: one table per profile, each value with its source beside it.

Nothing else in the program holds a constant that comes from Azure. The core asks the profile;
the documentation and `explain` read the same table. Durations are seconds of Azure time: the
core's clock is already scaled, so no value here ever knows `timeScale`.

Sources, as cited below:
  OUT17    "Understanding outbound connections in Azure", 31 May 2017
  OUT19    "Outbound connections in Azure", 2018-2019 text (the first that publishes numbers)
  CLASSIC  "Outbound connections (classic)"
  ORULE    "Outbound rules", 2024
  OUT26    "Use SNAT for outbound connections", July 2026
  DOA      "Default outbound access in Azure"
  RST      "Load Balancer TCP reset and idle timeout"
  NGRES    "Design virtual networks with NAT gateway" (NAT gateway resource), 2026
  NGSNAT   "SNAT with Azure NAT Gateway"
  HEV      "Azure Load Balancer health event logs", 2025
  LOG18    "Azure Monitor logs for public Basic Load Balancer", 2016-2018 text
  SKU      "Azure Load Balancer SKUs" and "Public IP addresses", on Standard: secure by default
  NEW      "What's new in Azure Load Balancer", known issues
  inferred not published by Azure: the reading that docs/fidelity.md explains
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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


class ExhaustionEvent(Enum):
    """In which of Azure's shapes port exhaustion is reported."""

    ALERT = "LoadBalancerAlertEvent"
    """The alert event log of public Basic load balancers: LOG18."""
    HEALTH = "LoadBalancerHealthEvent"
    """Health event logs of Standard load balancers: HEV."""


@dataclass(frozen=True)
class NatGatewayTerms:
    """What a NAT gateway does its own way. Ports are inclusive; durations are seconds."""

    first_port: int
    last_port: int
    """64,512 ports of each public IP for each protocol: NGRES, NGSNAT."""
    maximum_addresses: int
    """Public IPs of one NAT gateway: NGRES."""
    fin_hold: float
    """From the last packet after both FINs until the port is used toward the same destination
    again: NGRES. A single FIN changes nothing: NGRES names no timer for it."""
    rst_hold: float
    """From an RST, likewise: NGRES."""
    half_open_timeout: float
    """A TCP flow that was not answered is closed after this: NGRES."""
    udp_hold: float
    """From a UDP flow's end (it was idle) until its port is used toward there again: NGRES."""

    @property
    def port_count(self) -> int:
        """Ports of one public IP for one protocol."""
        return self.last_port - self.first_port + 1


@dataclass(frozen=True)
class Profile:
    """One dated behaviour of Azure. Ports are inclusive; durations are seconds of Azure time."""

    name: str

    first_snat_port: int
    last_snat_port: int
    """SNAT's range on a public IP, per protocol. 64,000 ports: OUT19; its bounds: inferred."""
    port_unit: int
    """Ports are allocated, and taken out by rules' frontend ports, in units of 8: ORULE;
    units aligned to multiples of 8: inferred."""
    preallocation: tuple[tuple[int, int], ...]
    """(largest pool size, SNAT ports for each VM) per frontend and protocol, ascending: OUT19."""
    ports_per_vm_beyond: int
    """SNAT ports for each VM of a pool above the table's last row: inferred, Azure has no row."""
    ports_of_several_frontends: int | None
    """The most that a VM gets by the table, over all frontends; None: the table for each of them.
    OUT18 multiplied without a bound; OUT26 has MIN(table x frontends, 1024)."""
    default_outbound_pool_size: int
    """A standalone VM counts as a pool of this size: OUT19 (a lone VM is a pool of one)."""
    default_outbound_by_subnet: bool
    """Default outbound access is for subnets that ask for it, and never for a VM in the pool of a
    Standard load balancer: DOA (new networks since 31 March 2026). Not in 2017: for every VM."""

    tcp_destination: DestinationScope
    udp_destination: DestinationScope
    """One port per flow "to a single destination IP address": OUT17, for both protocols. OUT26: TCP
    by address and port, UDP by address."""

    idle_timeout: float
    """A flow without packets is reclaimed at once after this: OUT17 (4 minutes). Outbound rules
    and NAT gateways set another one for TCP: ORULE, NGRES."""
    fin_hold: float
    """From the last packet after the first FIN to the port's release: OUT19, CLASSIC (240 s)."""
    rst_hold: float
    """From an RST to the port's release: OUT19, CLASSIC (15 s)."""
    nat_gateway: NatGatewayTerms | None
    """None: there is no such thing."""

    exhaustion_event: ExhaustionEvent
    exhaustion_event_interval: float
    """At most one exhaustion event per VM, public IP and protocol in this time. 2017: inferred
    (LOG18: Azure checks every 5 minutes and writes only when raised; a minute helps in a lab).
    Health events are published again after 5 minutes: HEV."""
    high_usage: float | None
    """An event says that a VM uses more than this share of its ports on a public IP: HEV (75 %).
    None: there is no such event."""

    method_order: tuple[Method, ...]
    """Outbound methods, the first that a VM has wins: OUT17's table of three scenarios; OUT26."""
    frontend_choice: FrontendChoice
    """With several frontends "any of these" is a candidate: OUT17, "Limitations". Later "one at a
    time", the next when nothing can be made from the current one: OUT22, FAQ."""
    programs_all_protocols: bool
    """A load balancing rule of any protocol gives outbound SNAT for TCP and UDP: OUT19 (Basic).
    Of a Standard load balancer it does for its own protocol alone: OUT19."""
    fragments_through_snat: bool
    """Fragments are reassembled and translated (not dropped): OUT17 is silent; OUT19 drops them."""
    tcp_reset_on_idle: bool
    """Rules may ask (enableTcpReset) that both ends get an RST when an established flow idles out:
    RST. Not in 2017: it ends silently."""

    closed_without_group: bool
    """What comes from outside to a Standard frontend or to a VM's own public IP reaches only VMs
    that a network security group stands in front of: "closed to inbound flows unless NSGs are
    used to permit" (SKU). A Basic one is open where no group stands."""

    number_of_probes_counts: bool
    """A probe's numberOfProbes is its threshold: LOG18's time; later Azure ignores it (NEW)."""
    hairpin_to_itself: HairpinToItself = HairpinToItself.DROPPED
    """A VM's flow to its load balancer's frontend, mapped to the VM itself. Microsoft's documents
    disagree on public frontends (docs/fidelity.md A9); this is the reading that no design should
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
    ports_of_several_frontends=None,
    default_outbound_pool_size=1,
    default_outbound_by_subnet=False,
    tcp_destination=DestinationScope.ADDRESS,
    udp_destination=DestinationScope.ADDRESS,
    idle_timeout=240.0,
    fin_hold=240.0,
    rst_hold=15.0,
    nat_gateway=None,
    exhaustion_event=ExhaustionEvent.ALERT,
    exhaustion_event_interval=60.0,
    high_usage=None,
    method_order=(
        Method.INSTANCE_LEVEL_PUBLIC_IP,
        Method.LOAD_BALANCER,
        Method.DEFAULT_OUTBOUND_ACCESS,
    ),
    frontend_choice=FrontendChoice.RANDOM,
    programs_all_protocols=True,
    fragments_through_snat=True,
    tcp_reset_on_idle=False,
    closed_without_group=False,
    number_of_probes_counts=True,
)

HIGH_SNAT_PORT_USAGE = 0.75
"""Of the ports allocated on a frontend; above it Azure reports HighSnatPortUsage: HEV."""
NAT_GATEWAY_PORTS = 64_512
"""SNAT ports of a public IP of a NAT gateway, for each protocol, on demand for all VMs of its
subnets: NGRES, NGSNAT. No part of azure-2017, where they are something to advise."""

AZURE_CURRENT = replace(
    AZURE_2017,
    name="azure-current",
    ports_of_several_frontends=1024,
    default_outbound_by_subnet=True,
    tcp_destination=DestinationScope.ADDRESS_AND_PORT,
    nat_gateway=NatGatewayTerms(
        first_port=1024,
        last_port=1023 + NAT_GATEWAY_PORTS,
        maximum_addresses=16,
        fin_hold=65.0,
        rst_hold=16.0,
        half_open_timeout=30.0,
        udp_hold=65.0,
    ),
    exhaustion_event=ExhaustionEvent.HEALTH,
    exhaustion_event_interval=300.0,
    high_usage=HIGH_SNAT_PORT_USAGE,
    method_order=(
        Method.NAT_GATEWAY,
        Method.INSTANCE_LEVEL_PUBLIC_IP,
        Method.OUTBOUND_RULE,
        Method.LOAD_BALANCER,
        Method.DEFAULT_OUTBOUND_ACCESS,
    ),
    frontend_choice=FrontendChoice.FILL_FIRST,
    programs_all_protocols=False,
    fragments_through_snat=False,
    tcp_reset_on_idle=True,
    closed_without_group=True,
    number_of_probes_counts=False,
)
"""Azure's behaviour as the documents of 2026 have it. What is not named here is as in 2017."""

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (AZURE_2017, AZURE_CURRENT)}
"""The profiles by the name that `gateway.profile` takes."""
