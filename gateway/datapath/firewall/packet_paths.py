"""Which packets a gateway passes on: between which interfaces, and with which addresses where.

One packet for each public IP and each subnet, both ways. The gateway changes addresses at priority
-150: of what leaves in FORWARD, of what a public IP is the destination of in PREROUTING, so that
what a VM sends to a public IP of its own gateway is forwarded with a public IP as its source.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from gateway.datapath.firewall.traversal import Packet

TRANSLATED = -150  # linux/netfilter_ipv4.h: NF_IP_PRI_MANGLE
_TRACKED = -200  # NF_IP_PRI_CONNTRACK
_INTERNET = IPv4Address("9.9.9.9")  # stands for any address of it
SENT, ANSWERED, AMONG, HAIRPIN = (
    "what VMs send",
    "what is answered",
    "what VMs behind different interfaces send each other",
    "what VMs send to the gateway's own public IPs",
)


@dataclass(frozen=True)
class Crossing:
    """Between which interfaces and addresses a gateway's packets go. ``subnets``: where VMs are, if
    not all over the prefixes. ``hairpin``: something stands behind a public IP, also for VMs."""

    inside: tuple[str, ...]
    outside: str
    public_ips: tuple[IPv4Address, ...]
    private_prefixes: tuple[IPv4Network, ...]
    subnets: tuple[IPv4Network, ...] = ()
    hairpin: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of packets that have a path."""
        among = (AMONG,) if len(self.inside) > 1 else ()
        return (SENT, ANSWERED, *among, *((HAIRPIN,) if self.hairpin else ()))

    @property
    def extent(self) -> str:
        """Of how much each kind was walked."""
        publics, subnets = len(self.public_ips), len(self.subnets or self.private_prefixes)
        return (
            f"{publics} public IP{'' if publics == 1 else 's'} and "
            f"{subnets} subnet{'' if subnets == 1 else 's'}"
        )


@dataclass(frozen=True)
class Way:
    """A packet's, from one interface to another. ``before`` and ``after`` it is translated, source
    and destination. ``early``: that is in PREROUTING. ``answer``: a server sends it."""

    what: str
    source: str
    target: str
    before: tuple[IPv4Address, IPv4Address]
    after: tuple[IPv4Address, IPv4Address]
    early: bool
    answer: bool

    def translated(self, hook: str, priority: int) -> bool:
        """Whether it is, where a chain is called."""
        return {
            "ingress": False,
            "prerouting": self.early and priority > TRANSLATED,
            "forward": self.early or priority > TRANSLATED,
        }.get(hook, True)

    def packet(self, hook: str, priority: int, devices: tuple[str, ...]) -> Packet | None:
        """It as it comes to a chain; None: it does not."""
        near = {"ingress": self.source, "egress": self.target}.get(hook)
        if near is not None and devices and near not in devices:
            return None
        source, destination = self.after if self.translated(hook, priority) else self.before
        return Packet(
            iif=None if hook == "egress" else self.source,
            oif=None if hook in ("ingress", "prerouting") else self.target,
            source=source,
            destination=destination,
            protocol="tcp",
            source_port=443 if self.answer else 50000,
            destination_port=50000 if self.answer else 443,
            tracked=None if priority < _TRACKED else False,
            to_host=False,
        )

    def conditions(
        self, hook: str, priority: int, crossing: Crossing
    ) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """What distinguishes such packets in a chain, whichever VM's: words and values."""
        i, o = ("i", (self.source,)), ("o", (self.target,))
        if hook == "forward":
            return i, o
        translated = self.translated(hook, priority)
        public = self.what != AMONG and translated != (self.what == ANSWERED)
        values = crossing.public_ips if public else crossing.private_prefixes
        near = ("d" if self.what == ANSWERED else "s", tuple(map(str, dict.fromkeys(values))))
        bound = {"prerouting": (i,), "postrouting": (o,), "egress": (o,)}.get(hook, ())
        return *bound, near


def ways(crossing: Crossing) -> Iterator[Way]:
    """All of them: each public IP and each subnet in one at least."""
    publics = crossing.public_ips
    machines = [_machine(subnet) for subnet in crossing.subnets or crossing.private_prefixes]
    if not publics or not machines:
        return
    pairs = [
        (machines[n % len(machines)], publics[n % len(publics)])
        for n in range(max(len(machines), len(publics)))
    ]
    for inside in crossing.inside:
        for vm, public in pairs:
            sent, came = (vm, _INTERNET), (_INTERNET, vm)
            left, comes = (public, _INTERNET), (_INTERNET, public)
            yield Way(SENT, inside, crossing.outside, sent, left, early=False, answer=False)
            yield Way(ANSWERED, crossing.outside, inside, comes, came, early=True, answer=True)
    for inside in crossing.inside:
        for other in crossing.inside:
            for n, (vm, public) in enumerate(pairs):
                # Another VM, in the next subnet if there is one, behind the next public IP.
                peer, behind = pairs[(n + 1) % len(pairs)]
                peer += peer == vm
                for answer in (False, True):
                    if inside != other:
                        both = vm, peer
                        yield Way(AMONG, inside, other, both, both, early=False, answer=answer)
                    if crossing.hairpin:
                        yield Way(
                            HAIRPIN,
                            inside,
                            other,
                            (vm, behind),
                            (public, peer),
                            early=True,
                            answer=answer,
                        )


def _machine(subnet: IPv4Network) -> IPv4Address:
    """An address that a VM may have: Azure keeps the first four."""
    return subnet.network_address + (4 if subnet.num_addresses > 4 else 0)
