"""What would help a VM that holds too many ports toward one destination, in its own numbers.
Runs in the API process.

Each piece of advice is worked out from the flows that hold the ports, under the profile's rules:
what pooling would leave, what closing brings back and when, what a further frontend, an address of
its own or a NAT gateway would change. What would not help in this case is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from gateway.daemon.api_process.diagnosis.facts import (
    BUSY,
    Destination,
    Facts,
    Supply,
    VirtualMachine,
)
from gateway.daemon.api_process.diagnosis.finding import (
    be,
    count,
    duration,
    endpoint,
    percent,
    rate,
)
from gateway.model.profile import NAT_GATEWAY_PORTS, DestinationScope, Method, Profile

HORIZON = 60.0
"""Seconds for which it is forecast how many ports are released unaided."""


def destination_scope(profile: Profile, protocol: str) -> DestinationScope:
    """What makes a port reusable for a protocol's name."""
    return profile.tcp_destination if protocol == "Tcp" else profile.udp_destination


def opening_rate(at: Destination, facts: Facts) -> float:
    """New flows a second that got a port toward a destination, lately."""
    return at.new / facts.recent if facts.recent else 0.0


def hold_time(at: Destination) -> float:
    """Seconds for which most of the flows that end there hold their port."""
    return at.rst_hold if at.reset > at.closed else at.fin_hold


def advice(vm: VirtualMachine, supply: Supply, at: Destination, facts: Facts) -> Iterator[str]:
    """All that would help, the cheapest first."""
    yield from pooling(vm, supply, at, facts)
    back = at.returning + at.idling
    if back:
        soon = sum(seconds <= HORIZON for seconds in back)
        early = f"{soon:,}" if soon else "none"
        yield (
            f"Left alone, {early} of these ports come back within {duration(HORIZON)} and "
            f"{len(back):,} within {duration(max(back))}, unless packets use their "
            "flows again."
        )
    yield from _more_ports(vm, supply, at, facts)
    by_address = destination_scope(facts.profile, supply.protocol) is DestinationScope.ADDRESS
    second, each = ("address", "address") if by_address else ("address or port", "of them")
    yield (
        f"If the service has a second {second}, use both: a port is needed once for each {each}, "
        f"so {(at.held + 1) // 2:,} ports would carry these {at.held:,} flows."
    )


def pooling(vm: VirtualMachine, supply: Supply, at: Destination, facts: Facts) -> Iterator[str]:
    """What using connections again would change, by what most of them are doing."""
    if supply.protocol != "Tcp":
        yield from _datagrams(vm, at, facts)
        return
    remote = endpoint(at.remote)
    if at.over * 2 >= at.held:
        yield f"Keep connections to {remote} open and use them again. {_churn(at, facts)}"
    elif len(at.idle) * 2 >= at.held:
        yield f"Share the connections to {remote}. {_pool(at)}{_closing(at)}"
    elif at.opening * 2 >= at.held:
        yield (
            f"{at.opening:,} of these ports wait for an answer: find out why {remote} does not "
            "give one before adding ports."
        )
    elif at.busy * 2 >= at.held:
        yield (
            f"{count(at.busy, 'connection')} {be(at.busy)} in use at the same time, so pooling "
            "helps only as far as requests can share a connection (HTTP/2, pipelining). Else it "
            "takes more ports."
        )
    if at.half_closed * 4 >= at.held:
        yield (
            f"{count(at.half_closed, 'connection')} {be(at.half_closed)} half-closed: look in "
            f"{vm.name} for sockets in CLOSE-WAIT (ss -tn state close-wait). A program that never "
            "closes them keeps their ports."
        )


def _datagrams(vm: VirtualMachine, at: Destination, facts: Facts) -> Iterator[str]:
    if (len(at.idle) + at.opening) * 2 >= at.held:
        yield (
            f"Send from one UDP socket to {endpoint(at.remote)}: a socket needs one port there, "
            f"and each of these {at.held:,} keeps its own until it was idle for "
            f"{duration(vm.udp_patience(facts.profile))}."
        )


def _churn(at: Destination, facts: Facts) -> str:
    """Why short connections take more ports than are ever open."""
    text = ""
    if at.new:
        hold, speed = hold_time(at), opening_rate(at, facts)
        end = "RST" if at.reset > at.closed else "FIN"
        text = (
            f"{count(at.new, 'connection')} began in the last {duration(facts.recent)} "
            f"({rate(speed)}), and after its {end} each holds its port for {duration(hold)}: that "
            f"rate takes {speed * hold:,.0f} ports for closed connections alone. "
        )
    most = at.most_at_once
    if not most:
        return f"{text}Not one of them had a packet in the last {duration(BUSY)}."
    at_once = (
        f"{most:,} {'was' if most == 1 else 'were'} open at the same time in the last "
        f"{duration(BUSY)}"
    )
    if most * 4 > at.held * 3:
        return f"{text}But {at_once}: a pool that serves as many at once needs as many ports."
    return (
        f"{text}At most {at_once}: a pool of {most:,} that stays open would hold "
        f"{count(most, 'port')} instead of {at.held:,}."
    )


def _pool(at: Destination) -> str:
    """What would have to be open for the present traffic."""
    if not at.busy:
        return f"Not one of them had a packet in the last {duration(BUSY)}."
    return (
        f"{count(at.busy, 'connection')} {be(at.busy)} in use now: a pool of {at.busy:,} would "
        f"hold {count(at.busy, 'port')} instead of {at.held:,}."
    )


def _closing(at: Destination) -> str:
    """Why closing idle connections does not help."""
    if at.fin_hold < at.timeout - 1:
        return (
            f" Closing the idle ones helps, too: a FIN holds the port for "
            f"{duration(at.fin_hold)}, idling out takes {duration(at.timeout)}."
        )
    return (
        " Closing the idle ones brings nothing back sooner: a FIN holds the port for "
        f"{duration(at.fin_hold)}, idling out takes {duration(at.timeout)}. Only an RST "
        f"(SO_LINGER of 0 s) does, after {duration(at.rst_hold)}."
    )


def _more_ports(vm: VirtualMachine, supply: Supply, at: Destination, facts: Facts) -> Iterator[str]:
    profile, machine = facts.profile, vm.machine
    method = machine.method_of(supply.protocol)
    if method == Method.NAT_GATEWAY:  # it goes before an address of the VM's own
        yield (
            f"A further public IP on NAT gateway {machine.nat_gateway} has {NAT_GATEWAY_PORTS:,} "
            "ports more toward each destination, for all VMs of its subnets."
        )
        return
    if method == Method.LOAD_BALANCER and machine.frontends:
        yield _another_frontend(vm, supply, at, facts)
    elif method == Method.OUTBOUND_RULE and machine.outbound_rules:
        yield _larger_rule(vm, supply, at, profile)
    elif method == Method.DEFAULT_OUTBOUND_ACCESS:
        yield _instead_of_default(vm, supply, profile)
    yield (
        f"With an instance-level public IP {vm.name} needs no SNAT port: none of these {at.held:,} "
        "flows would hold one."
    )
    share = f"{NAT_GATEWAY_PORTS:,} ports for each public IP"
    part = percent(at.held, NAT_GATEWAY_PORTS)
    if profile.nat_gateway is None:
        yield (
            f"{profile.name} has no NAT gateway. Today's Azure has: {share}, of which {at.held:,} "
            f"are {part}."
        )
    else:
        yield (
            f"A NAT gateway on its subnet has {share}, for whichever VM needs them: {at.held:,} "
            f"are {part} of one."
        )


def _another_frontend(vm: VirtualMachine, supply: Supply, at: Destination, facts: Facts) -> str:
    """By the table of pool sizes, within what the profile gives a VM on several frontends."""
    profile = facts.profile
    balancer, _, size = vm.machine.frontends[0]
    each, most = profile.ports_per_vm(size), profile.ports_of_several_frontends
    after = supply.allocated + each
    if most is not None and after > most:
        ports = most_by_rule(profile, 1, size)
        return (
            f"Another frontend IP on load balancer {balancer} alone does not help: by the table of "
            f"pool sizes a VM has {most:,} ports at most, on however many frontends. An outbound "
            f"rule with allocatedOutboundPorts can give each of the pool's "
            f"{count(size, 'member')} {ports:,} on one frontend."
        )
    text = (
        f"Another frontend IP on load balancer {balancer}, with a load balancing rule to the same "
        f"pool (and a backend port of its own), gives {vm.name} {each:,} ports more (its pool has "
        f"{count(size, 'member')}): {after:,}, of which {at.held:,} are held now."
    )
    demand = opening_rate(at, facts) * hold_time(at)
    if at.over > len(at.idle) + at.busy and demand > after:
        text += (
            f" At the present rate of new connections that is not enough: it takes {demand:,.0f}"
        )
        text += "." if most else f", {count(ceil(demand / each), 'frontend')}."
    return text


def _larger_rule(vm: VirtualMachine, supply: Supply, at: Destination, profile: Profile) -> str:
    """What an outbound rule could give, with its frontends and one more."""
    rule, frontends, explicit = vm.machine.outbound_rules[0]
    size = vm.machine.frontends[0][2]
    most, more = (most_by_rule(profile, number, size) for number in (frontends, frontends + 1))
    now = f"{explicit:,}" if explicit else f"0, the table's {supply.allocated:,}"
    held = f"Now {supply.allocated:,} are allocated and {at.held:,} held."
    if most > supply.allocated:
        return (
            f"Outbound rule {rule} can give {vm.name} more: allocatedOutboundPorts ({now}) can be "
            f"up to {most:,} with {count(frontends, 'frontend')} for {count(size, 'member')}, and "
            f"up to {more:,} with one more. {held}"
        )
    return (
        f"Outbound rule {rule} has given out what its {count(frontends, 'frontend')} have for "
        f"{count(size, 'member')}: one frontend more makes up to {more:,} for each. {held}"
    )


def _instead_of_default(vm: VirtualMachine, supply: Supply, profile: Profile) -> str:
    """Default SNAT is what it is."""
    start = (
        f"{vm.name} has default SNAT, whose {supply.allocated:,} ports on one address cannot be "
        "raised."
    )
    largest, each = profile.preallocation[0]
    if profile.ports_of_several_frontends is None:
        return (
            f"{start} Behind a load balancer with a pool of up to {largest} VMs it would have "
            f"{each:,} on each frontend: {2 * each:,} with two."
        )
    return (
        f"{start} An outbound rule of a Standard load balancer can give it up to "
        f"{most_by_rule(profile, 1, 1):,} on one frontend, if it is alone in the pool."
    )


def most_by_rule(profile: Profile, frontends: int, members: int) -> int:
    """The most allocatedOutboundPorts for each member, before rules' ports take units out."""
    unit = profile.port_unit
    return profile.snat_port_count * frontends // members // unit * unit
