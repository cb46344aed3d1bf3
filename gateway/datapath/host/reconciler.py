"""What a gateway needs of its host besides rules: checked periodically, restored, or reported.

Other programs change a host while a gateway runs: DHCP and network managers take an address away
and give it again, at which the kernel forgets the routes that depend on it; a program empties
routing or neighbour tables, or turns forwarding off. A look compares what is with what must be, at
the cost of a few requests to the kernel, and sets again what is the gateway's own. What is not its
own (an address, a default route) it names, once it was there and no longer is: what never was, may
be intended.

Who sets the same thing back again and again is not fought at any speed: after ``LIMIT`` times
(netfilter rules, of ``diversion.py``: ``RULES_LIMIT``) within ``WINDOW`` seconds it is set every
``PAUSE`` seconds only, and said to be fought about.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from gateway.datapath.errors import DatapathError
from gateway.datapath.host.addresses_and_routes import (
    ProbeSource,
    PublicAddresses,
    read_sysctl,
    wanted_sysctls,
    write_sysctl,
)
from gateway.datapath.host.netfilter_rules import DiversionPlan
from gateway.datapath.host.netlink_tables import LinkState, Tables

LIMIT, WINDOW, PAUSE = 5, 60.0, 10.0
RULES_LIMIT = 20
"""The same for rules: who sets up a firewall flushes some times in a row."""
FAR_AWAY = IPv4Address("198.41.0.4")
"""Where "the internet" is looked for in the routing table: a root name server. Nothing is sent."""
SUBNETS = 64
"""So many subnets' routes are checked."""
SHOWN = 3


class Fights:
    """How often each thing was set again lately."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, limit: int = LIMIT) -> None:
        self._monotonic = monotonic
        self._limit = limit
        self._times: dict[str, deque[float]] = {}
        self._fought: set[str] = set()

    def may(self, what: str) -> bool:
        """Whether it is to be set now; if so, that is counted."""
        if self.waits(what):
            return False
        now, times = self._monotonic(), self._times.setdefault(what, deque(maxlen=self._limit))
        times.append(now)
        if len(times) == self._limit and now - times[0] < WINDOW:
            self._fought.add(what)
        return True

    def waits(self, what: str) -> bool:
        """Whether it is not to be set again yet."""
        return self.is_fought(what) and self._monotonic() - self._times[what][-1] < PAUSE

    def forget(self) -> None:
        """What was set again had another reason."""
        self._times.clear()
        self._fought.clear()

    def is_fought(self, what: str) -> bool:
        """Whether it had to be set again and again, and had to within the last minute."""
        if what in self._fought and self._monotonic() - self._times[what][-1] >= WINDOW:
            self._fought.remove(what)
        return what in self._fought


class Reconciler:
    """Checks one gateway's host. ``restored``: what was set again, to be reported."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.restored: list[str] = []
        self._fights = Fights(monotonic)
        self._before: tuple[dict[str, LinkState | None], dict[int, list[IPv4Interface]]] = {}, {}
        self._led_out = False
        self._led_in: dict[IPv4Network, str] = {}

    def look(self, plan: DiversionPlan) -> list[str]:
        """Set again what is the gateway's; returns what is wrong and cannot be put right."""
        problems: list[str] = []
        with Tables() as tables:
            links = {name: tables.link(name) for name in (*plan.inside, plan.outside)}
            for name, link in links.items():
                if link is None:
                    problems.append(f"{name}: there is no such interface")
                elif not link.up:
                    problems.append(f"{name} is down: ip link set {name} up")
            addresses = tables.addresses()
            if (links, addresses) != self._before:  # at which the kernel itself forgets things
                self._fights.forget()
                self._before = links, addresses
            outside = links[plan.outside]
            if outside is not None and not addresses.get(outside.number):
                problems.append(
                    f"{plan.outside} has no IPv4 address: give it one in the network that it is "
                    "connected to"
                )
            problems += _own_public_ips(set(plan.public_ips), addresses)
            problems += self._answer_for_public_ips(plan, tables, links)
            problems += self._set_sysctls(plan)
            if outside is not None and outside.up:
                problems += self._way_out(plan, tables, outside.number)
            problems += self._ways_in(plan, tables, links, addresses)
        return problems

    def _answer_for_public_ips(
        self, plan: DiversionPlan, tables: Tables, links: dict[str, LinkState | None]
    ) -> Iterator[str]:
        """A proxy neighbour and routes for each public IP, and the address of probes."""
        outside = links[plan.outside]
        if outside is None or not outside.up:
            return
        answering = PublicAddresses(plan.outside, plan.inside)
        standing = set(answering.standing(tables))
        lacking = set(plan.public_ips) - tables.proxies(outside.number)
        lacking |= {
            route.destination
            for route in answering.routes(plan.public_ips, tables)
            if route not in standing
        }
        lost = sorted(lacking)
        if lost:
            what = "what makes this host answer for " + _listed(lost)
            yield from self._again("answering", what, lambda: answering.add(lost))
        if plan.probe_source is not None:
            source = ProbeSource(plan.probe_source, plan.inside)
            if not source.stands(tables):
                what = f"the address of probes, {plan.probe_source},"
                yield from self._again("probes", what, source.add)

    def _set_sysctls(self, plan: DiversionPlan) -> Iterator[str]:
        # Forwarding last, as at a start.
        wanted = wanted_sysctls(plan.inside, plan.outside)
        for interface, name, value in sorted(wanted, key=lambda item: item[1] == "forwarding"):
            setting = f"net.ipv4.conf.{interface}.{name}"
            what = f"{setting} = {value}, which was {read_sysctl(interface, name)},"
            yield from self._again(setting, what, partial(write_sysctl, interface, name, value))

    def _again(self, thing: str, what: str, put: Callable[[], None]) -> Iterator[str]:
        """Set ``thing`` again, which was lost; what is wrong with it, if anything is."""
        if self._fights.may(thing):
            try:
                put()
            except (DatapathError, OSError) as error:
                lines = error.problems if isinstance(error, DatapathError) else [str(error)]
                yield from lines
                return
            self.restored.append(f"{what} was set again")
        if self._fights.is_fought(thing):
            yield (
                f"another program changes it again and again: {what} is set again every "
                f"{PAUSE:.0f} s, and until then packets may not pass"
            )

    def _way_out(self, plan: DiversionPlan, tables: Tables, outside: int) -> Iterator[str]:
        """A default route is the administrator's, or DHCP's: it is missed if it was there."""
        way = tables.way_to(FAR_AWAY)
        if way == outside:
            self._led_out = True
        elif self._led_out and way is None:
            yield (
                f"this host has no route to the internet by {plan.outside} any more: ip route add "
                f"default via ROUTER dev {plan.outside}"
            )
        elif self._led_out:
            yield (
                f"this host's route to the internet leads by {_name(way)} now, no longer by "
                f"{plan.outside}: what VMs send there is dropped"
            )

    def _ways_in(
        self,
        plan: DiversionPlan,
        tables: Tables,
        links: dict[str, LinkState | None],
        addressed: Container[int],
    ) -> Iterator[str]:
        """Whether answers find to each subnet by an inside interface, as they did."""
        inside = {link.number: name for name in plan.inside if (link := links[name]) is not None}
        for subnet in plan.subnets[:SUBNETS]:
            way = tables.way_to(subnet[min(4, subnet.num_addresses - 1)])
            if way in inside:
                self._led_in[subnet] = inside[way]
                continue
            before = self._led_in.get(subnet)
            link = None if before is None else links.get(before)
            if before is None or link is None or not link.up:
                continue  # it never did, or that is reported already
            if link.number not in addressed:
                yield f"{before} has lost its IPv4 address: answers have no way to VMs in {subnet}"
            else:
                leads = "nowhere" if way is None else f"by {_name(way)}"
                yield (
                    f"the route to {subnet} leads {leads} now, no longer by {before}: answers "
                    "have no way to the VMs there"
                )


def _own_public_ips(
    public_ips: Container[IPv4Address], addresses: dict[int, list[IPv4Interface]]
) -> Iterator[str]:
    """Public IPs that are assigned to the host itself; a start rejects them."""
    for number, own in addresses.items():
        for address in own:
            if address.ip in public_ips:
                name = _name(number)
                yield (
                    f"the public IP {address.ip} is this host's own address on {name} now: the "
                    f"gateway takes what is sent to it: ip addr del {address} dev {name}"
                )


def _listed(addresses: Sequence[IPv4Address]) -> str:
    shown = ", ".join(map(str, addresses[:SHOWN]))
    more = len(addresses) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _name(index: int | None) -> str:
    try:
        return socket.if_indextoname(index or 0)
    except OSError:
        return "another interface"
