"""A configuration as typed, frozen data: the resources of the contract, under ARM's names.

Attributes are snake_case; files and JSON have ARM's spelling (``frontendIPConfigurations``).
Each model checks what can be checked within one resource; what holds between resources is
in ``references.py``, what this version rejects in ``unsupported.py``. Once read, a configuration
never changes: a reload compares two.
"""

from __future__ import annotations

from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.model.profile import AZURE_2017, PROFILES, Profile
from gateway.model.reading.field_types import (
    Address,
    AddressPrefix,
    BackendPort,
    Description,
    Directory,
    FrontendPort,
    Interface,
    Minutes30,
    Minutes120,
    Name,
    Network,
    PortRange,
    Prefix,
    Text,
    number,
    refused,
    spelled,
    whole,
)
from gateway.model.reading.http_address import Endpoint, HttpAddress, endpoint

SECONDS = 60.0  # in a minute
LONGEST_PATH = 2048  # characters of a probe's requestPath
UNPROBED_PORTS = (19, 21, 25, 70, 110, 119, 143, 220, 993)  # Azure rejects HTTP probes to these


def arm_name(attribute: str) -> str:
    """``public_ip_addresses`` → ``publicIPAddresses``: ARM has IP in capitals inside."""
    first, *rest = attribute.split("_")
    return first + "".join("IP" if word in ("ip", "IP") else word.capitalize() for word in rest)


class Resource(BaseModel):
    """What all parts of a configuration have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=arm_name)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, data: Any) -> Any:
        """A known key with nothing behind it (``probes:``) counts as not written."""
        if not isinstance(data, dict):
            return data
        known = {field.alias for field in cls.model_fields.values()}
        return {key: value for key, value in data.items() if value is not None or key not in known}


class Gateway(Resource):
    """This program on its host: interfaces, timers, where it keeps things."""

    profile: Text = AZURE_2017.name
    inside: Annotated[tuple[Interface, ...], Field(min_length=1)]
    outside: Interface
    fast_path: Literal["auto", "on", "off"] = "auto"
    state_directory: Directory = Path("/var/lib/snatgw")
    time_scale: Annotated[float, number(0, 1e6, "more than 0, at most 1000000")] = 1.0
    """Seconds of Azure's timers that pass in a second."""
    maximum_flows: Annotated[int, whole(1, 100_000_000)] = 1_000_000
    icmp_echo: Literal["drop", "translate"] = "drop"
    internet_address_prefixes: tuple[Network, ...] = ()
    flow_logs: Literal["off", "nsg", "vnet", "both"] = "off"
    """In the format of NSG flow logs (version 2), of VNet flow logs, or in both."""
    http: HttpAddress | None = None
    """Where the dashboard listens; None: nowhere."""

    @property
    def http_endpoint(self) -> Endpoint | None:
        """The same, taken apart."""
        return None if self.http is None else endpoint(self.http)


class Subnet(Resource):
    """A range of the virtual network, and the group that filters what its VMs send and receive."""

    name: Name
    address_prefix: Network
    network_security_group: Name | None = None
    default_outbound_access: bool | None = None


class VirtualNetwork(Resource):
    """All ranges that are the VMs': nothing else is inside."""

    address_prefixes: Annotated[tuple[Network, ...], Field(min_length=1)]
    subnets: Annotated[tuple[Subnet, ...], Field(min_length=1)]


class PublicIPAddress(Resource):
    """An address that flows may leave by, by its name."""

    name: Name
    ip_address: Address
    idle_timeout_in_minutes: Minutes30 = 4.0
    """Of flows through this address as an instance-level public IP."""

    @property
    def idle_timeout(self) -> float:
        """In seconds."""
        return self.idle_timeout_in_minutes * SECONDS


class DefaultOutboundAccess(Resource):
    """The public IPs behind standalone VMs. None: these have no outbound connectivity."""

    public_ip_addresses: tuple[Name, ...] = ()


class VirtualMachine(Resource):
    """One sender inside, by its private address."""

    name: Name
    private_ip_address: Address
    public_ip_address: Name | None = None
    network_security_group: Name | None = None
    application_security_groups: tuple[Name, ...] = ()


class FrontendIPConfiguration(Resource):
    """A public IP in a load balancer's hands."""

    name: Name
    public_ip_address: Name


class BackendAddressPool(Resource):
    """The VMs that a load balancer deals flows to, and sends out."""

    name: Name
    virtual_machines: tuple[Name, ...] = ()


class Probe(Resource):
    """How a backend's health is probed."""

    name: Name
    protocol: Literal["Tcp", "Http", "Https"]
    port: BackendPort
    request_path: Text | None = None
    interval_in_seconds: Annotated[int, whole(5, 86400)] = 15
    probe_threshold: Annotated[int, whole(1, 100)] | None = None
    number_of_probes: Annotated[int, whole(1, 100)] | None = None
    no_healthy_backends_behavior: Literal["AllProbedDown", "AllProbedUp"] = "AllProbedDown"

    @model_validator(mode="after")
    def _path_goes_with_http(self) -> Self:
        if self.protocol == "Tcp" and self.request_path is not None:
            raise refused("requestPath is for probes of protocol Http or Https, this one is Tcp")
        if self.protocol != "Tcp" and self.request_path is None:
            raise refused(f"a probe of protocol {self.protocol} needs requestPath, as in /health")
        if self.protocol != "Tcp" and self.port in UNPROBED_PORTS:
            ports = ", ".join(map(str, UNPROBED_PORTS))
            raise refused(f"port {self.port}: Azure sends no HTTP probes to ports {ports}")
        path = self.request_path or ""
        if not path.isprintable() or not path.isascii() or " " in path or len(path) > LONGEST_PATH:
            raise refused(
                f"requestPath goes into a request line: at most {LONGEST_PATH} ASCII characters, "
                "no space; write others as %20"
            )
        return self


class LoadBalancingRule(Resource):
    """Links a backend pool to a frontend: for inbound flows, and for outbound SNAT."""

    name: Name
    frontend_ip_configuration: Name
    backend_address_pool: Name
    probe: Name | None = None
    protocol: Literal["Tcp", "Udp", "All"]
    frontend_port: Annotated[int, whole(0, 65534)]
    backend_port: Annotated[int, whole(0, 65535)]
    load_distribution: Literal["Default", "SourceIP", "SourceIPProtocol"] = "Default"
    idle_timeout_in_minutes: Minutes30 = 4.0
    enable_floating_ip: bool = False
    enable_tcp_reset: bool = False
    disable_outbound_snat: bool = False

    @property
    def idle_timeout(self) -> float:
        """Of inbound flows, in seconds."""
        return self.idle_timeout_in_minutes * SECONDS

    @model_validator(mode="after")
    def _port_0_is_all_ports(self) -> Self:
        ports = (self.frontend_port, self.backend_port)
        if self.protocol == "All" and ports != (0, 0):
            raise refused("protocol All goes with frontendPort 0 and backendPort 0 only")
        if self.protocol != "All" and 0 in ports:
            raise refused(f"port 0 goes with protocol All only, this rule has {self.protocol}")
        return self


class InboundNatRule(Resource):
    """A frontend port to one VM's port; or, for a pool, a range of them, one for each member."""

    name: Name
    frontend_ip_configuration: Name
    protocol: Literal["Tcp", "Udp"]
    frontend_port: FrontendPort | None = None
    virtual_machine: Name | None = None
    frontend_port_range_start: FrontendPort | None = None
    frontend_port_range_end: FrontendPort | None = None
    backend_address_pool: Name | None = None
    backend_port: BackendPort
    idle_timeout_in_minutes: Minutes30 = 4.0
    enable_floating_ip: bool = False
    enable_tcp_reset: bool = False

    @property
    def idle_timeout(self) -> float:
        """In seconds."""
        return self.idle_timeout_in_minutes * SECONDS

    @property
    def frontend_ports(self) -> range:
        """The ports that this rule listens on."""
        if self.frontend_port is not None:
            return range(self.frontend_port, self.frontend_port + 1)
        assert self.frontend_port_range_start is not None
        assert self.frontend_port_range_end is not None
        return range(self.frontend_port_range_start, self.frontend_port_range_end + 1)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        single = {"frontendPort": self.frontend_port, "virtualMachine": self.virtual_machine}
        pool = {
            "frontendPortRangeStart": self.frontend_port_range_start,
            "frontendPortRangeEnd": self.frontend_port_range_end,
            "backendAddressPool": self.backend_address_pool,
        }
        present = [
            {key for key, value in form.items() if value is not None} for form in (single, pool)
        ]
        if present not in ([single.keys(), set()], [set(), pool.keys()]):
            forms = " or ".join(", ".join(form) for form in (single, pool))
            raise refused(f"a rule for one VM or for a pool has exactly one set of: {forms}")
        start, end = self.frontend_port_range_start, self.frontend_port_range_end
        if start is not None and end is not None and start > end:
            raise refused(f"frontend ports out of order; did you mean {end} to {start}?")
        return self


class OutboundRule(Resource):
    """How a pool goes out: by which frontends, with how many ports a VM."""

    name: Name
    frontend_ip_configurations: Annotated[tuple[Name, ...], Field(min_length=1)]
    backend_address_pool: Name
    protocol: Literal["Tcp", "Udp", "All"]
    allocated_outbound_ports: Annotated[int, whole(0, 64000)] = 0
    """For each VM; 0: by the table of pool sizes."""
    idle_timeout_in_minutes: Minutes120 = 4.0
    enable_tcp_reset: bool = False

    @property
    def idle_timeout(self) -> float:
        """In seconds."""
        return self.idle_timeout_in_minutes * SECONDS

    @model_validator(mode="after")
    def _ports_come_in_units(self) -> Self:
        if self.allocated_outbound_ports % 8:
            below = self.allocated_outbound_ports // 8 * 8
            raise refused(
                f"allocatedOutboundPorts must be a multiple of 8, as {below or 8} "
                "(SpecifiedAllocatedOutboundPortsForOutboundRuleIsNotAMultipleOfEight)"
            )
        return self


class LoadBalancer(Resource):
    """Frontends, pools, and the rules between them."""

    name: Name
    sku: Literal["Basic", "Standard"] = "Basic"
    frontend_ip_configurations: tuple[FrontendIPConfiguration, ...] = ()
    backend_address_pools: tuple[BackendAddressPool, ...] = ()
    probes: tuple[Probe, ...] = ()
    load_balancing_rules: tuple[LoadBalancingRule, ...] = ()
    inbound_nat_rules: tuple[InboundNatRule, ...] = ()
    outbound_rules: tuple[OutboundRule, ...] = ()


class NatGateway(Resource):
    """Public IPs that whole subnets go out by, whose ports are everybody's."""

    name: Name
    public_ip_addresses: Annotated[tuple[Name, ...], Field(min_length=1)]
    subnets: tuple[Name, ...] = ()
    idle_timeout_in_minutes: Minutes120 = 4.0

    @property
    def idle_timeout(self) -> float:
        """Of TCP flows, in seconds."""
        return self.idle_timeout_in_minutes * SECONDS


class SecurityRule(Resource):
    """A rule of a network security group; each side takes a single form or a plural one."""

    name: Name
    description: Description = ""
    priority: Annotated[int, whole(100, 4096)]
    direction: Annotated[Literal["Inbound", "Outbound"], spelled("Inbound", "Outbound")]
    access: Annotated[Literal["Allow", "Deny"], spelled("Allow", "Deny")]
    protocol: Annotated[
        Literal["Tcp", "Udp", "Icmp", "Esp", "Ah", "*"],
        spelled("Tcp", "Udp", "Icmp", "Esp", "Ah"),
    ]
    source_address_prefix: AddressPrefix | None = None
    source_address_prefixes: tuple[AddressPrefix, ...] = ()
    source_application_security_groups: tuple[Name, ...] = ()
    source_port_range: PortRange | None = None
    source_port_ranges: tuple[PortRange, ...] = ()
    destination_address_prefix: AddressPrefix | None = None
    destination_address_prefixes: tuple[AddressPrefix, ...] = ()
    destination_application_security_groups: tuple[Name, ...] = ()
    destination_port_range: PortRange | None = None
    destination_port_ranges: tuple[PortRange, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _empty_text_is_absent(cls, data: Any) -> Any:
        """Azure writes the single form as "" where a rule has the plural one."""
        if not isinstance(data, dict):
            return data
        single = {
            f"{side}{what}"
            for side in ("source", "destination")
            for what in ("AddressPrefix", "PortRange")
        }
        return {key: value for key, value in data.items() if value != "" or key not in single}


class NetworkSecurityGroup(Resource):
    """Rules that are asked by priority, for a subnet or an interface."""

    name: Name
    security_rules: tuple[SecurityRule, ...] = ()
    flush_connection: bool = False


class ApplicationSecurityGroup(Resource):
    """A name for VMs (these list it), to be used in rules in place of their addresses."""

    name: Name


class ServiceTag(Resource):
    """Prefixes by the name that rules give them."""

    name: Text
    address_prefixes: tuple[Prefix, ...] = ()


class ServiceTags(Resource):
    """Tags besides the three that Azure defines by the network itself; in short: just the file.

    Once loaded, ``values`` has every tag that a rule uses, so that a configuration is whole
    without the file.
    """

    file: Text | None = None
    """In the format of Azure's published service tags."""
    values: tuple[ServiceTag, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _a_word_is_the_file(cls, data: Any) -> Any:
        return {"file": data} if isinstance(data, str) else data


class Configuration(Resource):
    """The whole file."""

    gateway: Gateway
    virtual_network: VirtualNetwork
    public_ip_addresses: tuple[PublicIPAddress, ...] = ()
    default_outbound_access: DefaultOutboundAccess = DefaultOutboundAccess()
    virtual_machines: tuple[VirtualMachine, ...] = ()
    load_balancers: tuple[LoadBalancer, ...] = ()
    nat_gateways: tuple[NatGateway, ...] = ()
    network_security_groups: tuple[NetworkSecurityGroup, ...] = ()
    application_security_groups: tuple[ApplicationSecurityGroup, ...] = ()
    service_tags: ServiceTags = ServiceTags()

    @property
    def profile(self) -> Profile:
        """The behaviour that ``gateway.profile`` names."""
        return PROFILES[self.gateway.profile]

    @cached_property
    def _public_ips(self) -> dict[str, PublicIPAddress]:
        return {public.name: public for public in self.public_ip_addresses}

    @cached_property
    def _machines(self) -> dict[str, VirtualMachine]:
        return {machine.name: machine for machine in self.virtual_machines}

    def public_ip(self, name: str) -> PublicIPAddress:
        """The public IP address of this name. Raises KeyError."""
        return self._public_ips[name]

    def virtual_machine(self, name: str) -> VirtualMachine:
        """The VM of this name. Raises KeyError."""
        return self._machines[name]

    def subnet_of(self, address: IPv4Address) -> Subnet | None:
        """The subnet that holds an address of the virtual network."""
        return next((s for s in self.virtual_network.subnets if address in s.address_prefix), None)

    def to_json(self) -> str:
        """In the file's own spelling; ``Configuration.model_validate_json`` reads it back."""
        return self.model_dump_json(by_alias=True)
