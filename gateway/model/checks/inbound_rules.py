"""Inbound rules that contradict each other, and probes that nothing would come of.

A frontend's port, for a protocol, is one rule's. So is a VM's backend port: a client endpoint that
came by two frontends to one port of a VM would be two flows that look the same there. Azure lets
floating IP do that, which this version rejects (``unsupported.py``).
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.model.configuration import Configuration, LoadBalancer, Probe
from gateway.model.problems import Location, dotted
from gateway.model.profile import AZURE_2017, Profile
from gateway.model.reading.validate import Mistake, RemovedParts

LONGEST_PROBING_2017 = 120  # seconds: interval × number of probes ("Load Balancer probes", 2018)


def check(configuration: Configuration, cuts: RemovedParts) -> Iterator[Mistake]:
    """Conflicts between rules, pools too large for their ports, and probes."""
    yield from _backend_ports(configuration)
    yield from _balancers_of_a_machine(configuration)
    for index, balancer in enumerate(configuration.load_balancers):
        place = ("loadBalancers", index)
        yield from _frontend_ports(balancer, place)
        yield from _port_ranges(balancer, place)
        if "loadBalancingRules" not in cuts.words:
            yield from _unused_probes(balancer, place)
        for number, probe in enumerate(balancer.probes):
            yield from _probe(probe, configuration.gateway.profile, (*place, "probes", number))


def threshold(probe: Probe, profile: Profile) -> int:
    """Results in a row that change a member's health (docs/fidelity.md A12)."""
    older = probe.number_of_probes if profile.number_of_probes_counts else None
    return probe.probe_threshold or older or 1


def _frontend_ports(balancer: LoadBalancer, place: Location) -> Iterator[Mistake]:
    """A frontend's port, for a protocol, is listened on by one rule."""
    listening: dict[tuple[str, str], list[tuple[range, Location, str]]] = {}
    for index, rule in enumerate(balancer.load_balancing_rules):
        key = (rule.frontend_ip_configuration, rule.protocol)
        ports = range(rule.frontend_port, rule.frontend_port + 1)
        here: Location = (*place, "loadBalancingRules", index)
        listening.setdefault(key, []).append((ports, here, "frontendPort"))
    for index, nat in enumerate(balancer.inbound_nat_rules):
        key = (nat.frontend_ip_configuration, nat.protocol)
        here = (*place, "inboundNatRules", index)
        field = "frontendPort" if nat.frontend_port is not None else "frontendPortRangeStart"
        listening.setdefault(key, []).append((nat.frontend_ports, here, field))
    for (frontend, protocol), rules in listening.items():
        widest: tuple[range, Location, str] | None = None
        order = {here: number for number, (_, here, _) in enumerate(rules)}
        for rule_ports in sorted(rules, key=lambda r: (r[0].start, order[r[1]])):
            if widest is not None and rule_ports[0].start < widest[0].stop:
                later, earlier = sorted((rule_ports, widest), key=lambda r: -order[r[1]])
                message = f"{protocol} port of {frontend} already used by {dotted(earlier[1])}"
                port = max(later[0].start, earlier[0].start)
                yield Mistake((*later[1], later[2]), message, port)
            if widest is None or rule_ports[0].stop > widest[0].stop:
                widest = rule_ports


def _backend_ports(configuration: Configuration) -> Iterator[Mistake]:
    """A VM's port, for a protocol, is the backend of one rule, wherever its frontend is."""
    first: dict[tuple[str, str, int], Location] = {}
    reported: set[tuple[Location, Location]] = set()
    for here, machines, protocol, port in _backends(configuration):
        for machine in machines:
            before = first.setdefault((machine, protocol, port), here)
            if before == here or (before, here) in reported:
                continue
            reported.add((before, here))
            message = (
                f"{protocol} port {port} of VM {machine} is already the backend of "
                f"{dotted(before)}; Azure allows that with floating IP alone, which is not "
                "available in this version: give this rule a backend port of its own"
            )
            yield Mistake((*here, "backendPort"), message, port)


def _backends(
    configuration: Configuration,
) -> Iterator[tuple[Location, tuple[str, ...], str, int]]:
    """Where each rule stands, the VMs behind it, its protocol and their port."""
    for index, balancer in enumerate(configuration.load_balancers):
        pools = {pool.name: pool.virtual_machines for pool in balancer.backend_address_pools}
        place: Location = ("loadBalancers", index)
        for number, rule in enumerate(balancer.load_balancing_rules):
            members = pools.get(rule.backend_address_pool, ())
            if not rule.enable_floating_ip and rule.protocol != "All":
                here = (*place, "loadBalancingRules", number)
                yield here, members, rule.protocol, rule.backend_port
        for number, nat in enumerate(balancer.inbound_nat_rules):
            if nat.enable_floating_ip:
                continue
            if nat.virtual_machine is not None:
                members = (nat.virtual_machine,)
            else:
                members = pools.get(nat.backend_address_pool or "", ())
            yield (*place, "inboundNatRules", number), members, nat.protocol, nat.backend_port


def _balancers_of_a_machine(configuration: Configuration) -> Iterator[Mistake]:
    """Azure takes a VM into the pools of one public load balancer; all are public here."""
    first: dict[str, int] = {}
    for index, balancer in enumerate(configuration.load_balancers):
        said: set[int] = set()  # of which others; a line for each is enough
        for number, pool in enumerate(balancer.backend_address_pools):
            for position, machine in enumerate(pool.virtual_machines):
                before = first.setdefault(machine, index)
                if before == index or before in said:
                    continue
                said.add(before)
                here: Location = ("loadBalancers", index, "backendAddressPools", number)
                message = (
                    f"is in a pool of {configuration.load_balancers[before].name}, too: Azure "
                    "takes a VM into the pools of one public load balancer only "
                    "(NetworkInterfaceUsesMultipleLoadBalancersOfSameType); this gateway does it"
                )
                place = (*here, "virtualMachines", position)
                yield Mistake(place, message, machine, warning=True)


def _port_ranges(balancer: LoadBalancer, place: Location) -> Iterator[Mistake]:
    """A rule for a pool has a port for each member."""
    pools = {pool.name: pool.virtual_machines for pool in balancer.backend_address_pools}
    for index, nat in enumerate(balancer.inbound_nat_rules):
        members = len(pools.get(nat.backend_address_pool or "", ()))
        if members > len(nat.frontend_ports):
            message = (
                f"{members} VMs in {nat.backend_address_pool} and {len(nat.frontend_ports)} "
                f"frontend ports; allowed: a range of {members} or more"
            )
            here = (*place, "inboundNatRules", index, "frontendPortRangeEnd")
            yield Mistake(here, message, nat.frontend_port_range_end)


def _unused_probes(balancer: LoadBalancer, place: Location) -> Iterator[Mistake]:
    used = {rule.probe for rule in balancer.load_balancing_rules}
    for index, probe in enumerate(balancer.probes):
        if probe.name not in used:
            message = "no load balancing rule refers to this probe, so that it is not sent"
            yield Mistake((*place, "probes", index, "name"), message, probe.name, warning=True)


def _probe(probe: Probe, profile: str, place: Location) -> Iterator[Mistake]:
    if profile == AZURE_2017.name:
        seconds = probe.interval_in_seconds * threshold(probe, AZURE_2017)
        if seconds > LONGEST_PROBING_2017:
            message = (
                f"{seconds} s pass before a result counts (interval times threshold); Azure then "
                f"took at most {LONGEST_PROBING_2017} s"
            )
            here = (*place, "intervalInSeconds")
            yield Mistake(here, message, probe.interval_in_seconds, warning=True)
    elif probe.number_of_probes is not None:
        message = "Azure ignores numberOfProbes, and so does this profile; use probeThreshold"
        yield Mistake((*place, "numberOfProbes"), message, probe.number_of_probes, warning=True)
