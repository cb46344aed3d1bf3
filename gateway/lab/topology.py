"""What the lab consists of, as data: namespaces, wires, addresses, names, files.

Nothing here touches the system. `namespaces.py` builds what `namespaces()` and `links()`
describe, `services.py` starts what listens at the addresses below. Addresses live inside the
lab's own namespaces, so two labs with different names use the same ones without meeting.
All "public" addresses come from the documentation ranges of RFC 5737, except
`resolver1.opendns.com`, which has its real address so that Azure's own example works as printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_NAME = "default"
NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?")
RUN_ROOT = Path("/run/snatgw/lab")
ETC_NETNS = Path("/etc/netns")

WEB = ("198.51.100.10", "198.51.100.11")
ECHO = "192.0.2.10"
ECHO_PORT = 7
IPERF = "192.0.2.20"
IPERF_PORT = 5201
NAME_SERVER = "192.0.2.53"
OPENDNS = "208.67.222.222"
INTERNET_ADDRESSES = (*WEB, ECHO, IPERF, NAME_SERVER, OPENDNS)

GATEWAY_OUTSIDE = "203.0.113.2"
INTERNET_ROUTER = "203.0.113.1"
DEFAULT_PUBLIC_IP = "203.0.113.10"
FRONTENDS = ("203.0.113.20", "203.0.113.21")
WEB_FRONTEND = "203.0.113.22"
INSTANCE_LEVEL_PUBLIC_IP = "203.0.113.30"

MYIP = "myip.opendns.com"
HOSTS: dict[str, tuple[str, ...]] = {
    "web1.example": (WEB[0],),
    "web2.example": (WEB[1],),
    "www.example": WEB,
    "app.example": (WEB_FRONTEND,),
    "echo.example": (ECHO,),
    "iperf.example": (IPERF,),
    "dns.example": (NAME_SERVER,),
    "resolver1.opendns.com": (OPENDNS,),
}
"""What the internet's name server knows, apart from `MYIP`."""


@dataclass(frozen=True)
class Subnet:
    """A subnet of the VNet, attached to one inside interface of the gateway (a bridge)."""

    name: str
    interface: str
    prefix: str
    gateway: str


@dataclass(frozen=True)
class VirtualMachine:
    """A VM of the lab: a namespace with one interface, `eth0`."""

    name: str
    subnet: Subnet
    address: str
    purpose: str


FRONT = Subnet("front", "lan0", "10.0.1.0/24", "10.0.1.1")
BACK = Subnet("back", "lan1", "10.0.2.0/24", "10.0.2.1")
SUBNETS = (FRONT, BACK)
OUTSIDE_INTERFACE = "wan0"

VIRTUAL_MACHINES = (
    VirtualMachine("vm1", FRONT, "10.0.1.4", "standalone: default SNAT"),
    VirtualMachine("vm2", FRONT, "10.0.1.5", "load balanced: SNAT to two frontends"),
    VirtualMachine("vm3", BACK, "10.0.2.4", "instance-level public IP"),
    VirtualMachine("vm4", BACK, "10.0.2.5", "web server behind http://app.example/"),
    VirtualMachine("vm5", BACK, "10.0.2.6", "the other web server there"),
)
WEB_POOL = ("vm4", "vm5")
GATEWAY = "gw"
INTERNET = "internet"
ROLES = (*(vm.name for vm in VIRTUAL_MACHINES), GATEWAY, INTERNET)


@dataclass(frozen=True)
class Interface:
    """One end of a wire; `bridge` names the bridge it is a port of, in the same namespace."""

    role: str
    name: str
    address: str | None = None
    """With prefix length, as `10.0.1.4/24`."""
    bridge: str | None = None


@dataclass(frozen=True)
class Node:
    """A namespace's own share of the topology: everything that is not a wire."""

    role: str
    bridges: tuple[tuple[str, str], ...] = ()
    """(interface, address with prefix length)."""
    own_addresses: tuple[str, ...] = ()
    """Addresses on `lo`, as /32."""
    default_route: str | None = None


def nodes() -> tuple[Node, ...]:
    """Every namespace of the lab, by role."""
    machines = (Node(vm.name, default_route=vm.subnet.gateway) for vm in VIRTUAL_MACHINES)
    bridges = tuple((s.interface, f"{s.gateway}/{s.prefix.split('/')[1]}") for s in SUBNETS)
    return (
        *machines,
        Node(GATEWAY, bridges=bridges, default_route=INTERNET_ROUTER),
        # No route to the VNet: an untranslated packet could never be answered.
        Node(INTERNET, own_addresses=INTERNET_ADDRESSES),
    )


def links() -> tuple[tuple[Interface, Interface], ...]:
    """Every wire of the lab, as its two ends."""
    inside = tuple(
        (
            Interface(vm.name, "eth0", f"{vm.address}/{vm.subnet.prefix.split('/')[1]}"),
            Interface(GATEWAY, vm.name, bridge=vm.subnet.interface),
        )
        for vm in VIRTUAL_MACHINES
    )
    outside = (
        Interface(GATEWAY, OUTSIDE_INTERFACE, f"{GATEWAY_OUTSIDE}/24"),
        Interface(INTERNET, "isp0", f"{INTERNET_ROUTER}/24"),
    )
    return (*inside, outside)


@dataclass(frozen=True)
class Lab:
    """One lab on this host. Every name that it leaves on the system derives from `name`."""

    name: str = DEFAULT_NAME
    run_root: Path = field(default=RUN_ROOT)
    etc_netns: Path = field(default=ETC_NETNS)

    def __post_init__(self) -> None:
        if not NAME_PATTERN.fullmatch(self.name):
            raise ValueError(
                f"lab name {self.name!r}: at most 24 lower-case letters, digits and inner hyphens"
            )

    def namespace(self, role: str) -> str:
        """Name of the network namespace for a role (`vm1`, `gw`, …)."""
        middle = "" if self.name == DEFAULT_NAME else f"{self.name}-"
        return f"snatgw-{middle}{role}"

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The names of all its namespaces."""
        return tuple(self.namespace(role) for role in ROLES)

    @property
    def directory(self) -> Path:
        """Everything that the lab writes, but for the files under /etc/netns."""
        return self.run_root / self.name

    @property
    def api_socket(self) -> Path:
        """Its gateway's socket."""
        return self.directory / "api.sock"

    @property
    def state_file(self) -> Path:
        """What of it is running."""
        return self.directory / "state.json"

    @property
    def configuration(self) -> Path:
        """The generated configuration; a user's own stays where it is."""
        return self.directory / "gateway.yaml"

    def etc(self, role: str) -> Path:
        """Files here cover those of /etc for what `ip netns exec` runs in the namespace."""
        return self.etc_netns / self.namespace(role)

    def log(self, service: str) -> Path:
        """What a service of it says."""
        return self.directory / f"{service}.log"
