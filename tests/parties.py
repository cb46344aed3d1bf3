"""Who sends and sees packets in a scenario, and by which addresses they are known.

The engine says what becomes of a packet, not where it goes: that is the host's routing, by the
packet's destination. Here is the same routing, written down once more and independently.
"""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv4Network

from gateway.model.configuration import Configuration
from tests.packets import one_of

HOST, HOST_INSIDE, OTHER_NETWORK = "203.0.113.1", "10.0.1.1", "192.168.50."
OUTSIDE, DMZ, PROGRAMS, KERNEL = "outside", "dmz", "host", "gateway"
ICMP = 1
NOBODYS = [
    IPv4Network(prefix)
    for prefix in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "168.63.129.16/32", "224.0.0.0/3")
]
"""Nobody outside has one of these. Private addresses routers out there do have."""


def source_of(packet: bytes) -> str:
    """A packet's source address."""
    return ".".join(map(str, packet[12:16]))


def destination_of(packet: bytes) -> str:
    """A packet's destination address."""
    return ".".join(map(str, packet[16:20]))


class Parties:
    """The VMs of a configuration, and everybody else."""

    def __init__(self, configuration: Configuration) -> None:
        self._machines: dict[str, str] = {}  # by address; those that are gone, too
        self._inside: set[IPv4Network] = set()  # prefixes of the virtual network, likewise
        self.public_ips: set[str] = set()
        self.know(configuration)

    def know(self, configuration: Configuration) -> None:
        """Another configuration holds. A VM that it does not name keeps its name, and address."""
        self._inside.update(configuration.virtual_network.address_prefixes)
        for machine in configuration.virtual_machines:
            self._machines[str(machine.private_ip_address)] = machine.name
        self.public_ips = {str(p.ip_address) for p in configuration.public_ip_addresses}

    @property
    def names(self) -> list[str]:
        """Who can send and see, without those that go by an address."""
        return [*self._machines.values(), OUTSIDE, DMZ, PROGRAMS, KERNEL]

    def owner(self, address: str) -> str | None:
        """Whose an address is, and to whom a packet to it goes; None: nobody, or a public IP here.

        ``host`` for this host's own, be it the kernel that sends from there or a program.
        """
        if address in self._machines:
            return self._machines[address]
        if address in (HOST, HOST_INSIDE):
            return PROGRAMS
        if address in self.public_ips:
            return None
        if address.startswith(OTHER_NETWORK):
            return DMZ
        parsed = IPv4Address(address)
        if any(parsed in prefix for prefix in self._inside):
            return address
        return None if any(parsed in prefix for prefix in NOBODYS) else OUTSIDE

    def is_machine(self, who: str | None) -> bool:
        """Whether it is a VM, or another machine of the virtual network, by its address."""
        if who is None or who in self._machines.values():
            return who is not None
        try:
            IPv4Address(who)
        except AddressValueError:
            return False
        return self.owner(who) == who

    def is_known(self, who: str) -> bool:
        """Whether somebody is called so."""
        return who in self.names or self.is_machine(who)

    def check(self, who: str) -> None:
        """``Unreadable`` if nobody is called so."""
        if not self.is_known(who):
            one_of(who, [*self.names, "ADDRESS of an unnamed machine"], "party")

    def check_machine(self, who: str) -> None:
        """``Unreadable`` if no machine inside is called so."""
        if not self.is_machine(who):
            one_of(who, [*self._machines.values(), "ADDRESS of an unnamed machine"], "machine")

    def misplaced(self, who: str, packet: bytes, *, lateral: bool, forged: bool) -> str | None:
        """Why ``who`` does not send this packet; None: it does."""
        self.check(who)
        source, destination = source_of(packet), destination_of(packet)
        if lateral and not (self.is_machine(who) and self.is_machine(self.owner(destination))):
            return f"   expected  from inside to inside\n   seen      {who} sends to {destination}"
        if who in (PROGRAMS, KERNEL):
            kernels = packet[9] == ICMP and destination not in self.public_ips
            by = KERNEL if kernels else PROGRAMS
            if by != who:
                return f"   expected  {who} to send\n   seen      what {by} sends"
        owner = self.owner(source)
        own = owner == (PROGRAMS if who == KERNEL else who)
        if own == forged:
            verb = "forges" if forged else "sends"
            whose = owner or "nobody, or a public IP"
            return f"   expected  {who} {verb}\n   seen      from {source}, which is of {whose}"
        return None
