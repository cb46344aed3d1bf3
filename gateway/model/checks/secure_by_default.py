"""Warnings of public addresses that admit nothing: Standard ones whose VM has no group at all.

Azure's Standard load balancers and public IPs are closed from outside until a network security
group allows what begins there (docs/fidelity.md N12). Answers to what a VM began need none, so
that this is no error. One line for each rule, and one for all VMs with an address of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.model.configuration import Configuration, VirtualMachine
from gateway.model.problems import Location
from gateway.model.profile import PROFILES
from gateway.model.reading.validate import Mistake, RemovedParts

_NAMED = 3


def check(configuration: Configuration, cuts: RemovedParts) -> Iterator[Mistake]:
    """Warnings of Standard rules and instance-level public IPs at VMs without a group."""
    profile = PROFILES.get(configuration.gateway.profile)
    lost = {"networkSecurityGroup", "subnets", "virtualMachines", "networkSecurityGroups"}
    if profile is None or not profile.closed_without_group or cuts.words & lost:
        return
    bare = _without_group(configuration)
    for index, balancer in enumerate(configuration.load_balancers):
        if balancer.sku != "Standard":
            continue
        pools = {pool.name: pool.virtual_machines for pool in balancer.backend_address_pools}
        place: Location = ("loadBalancers", index)
        for number, rule in enumerate(balancer.load_balancing_rules):
            closed = [n for n in pools.get(rule.backend_address_pool, ()) if n in bare]
            here: Location = (*place, "loadBalancingRules", number)
            yield from _said(closed, here, "the rule", rule.backend_address_pool)
        for number, nat in enumerate(balancer.inbound_nat_rules):
            target = nat.virtual_machine or nat.backend_address_pool or ""
            members = pools.get(target, ()) if nat.virtual_machine is None else (target,)
            here = (*place, "inboundNatRules", number)
            yield from _said([n for n in members if n in bare], here, "the rule", target)
    own = [
        (index, machine)
        for index, machine in enumerate(configuration.virtual_machines)
        if machine.public_ip_address is not None and machine.name in bare
    ]
    if own:
        index, first = own[0]
        names = [machine.name for _, machine in own]
        here = ("virtualMachines", index, "publicIPAddress")
        yield from _said(names, here, "its own public IP", first.public_ip_address or "")


def _said(names: list[str], place: Location, what: str, value: str) -> Iterator[Mistake]:
    if not names:
        return
    shown = ", ".join(names[:_NAMED])
    if len(names) > _NAMED:
        shown += f" and {len(names) - _NAMED} more"
    whose = f"VM {shown} has" if len(names) == 1 else f"VMs {shown} have"
    message = (
        f"{whose} no network security group, on subnet or interface: {what} admits nothing from "
        "outside, as of Azure's Standard public IPs; a group has to allow it"
    )
    yield Mistake(place, message, value, warning=True)


def _without_group(configuration: Configuration) -> set[str]:
    """The names of VMs without any group."""
    open_subnets = [
        subnet.address_prefix
        for subnet in configuration.virtual_network.subnets
        if subnet.network_security_group is None
    ]

    def bare(machines: Iterable[VirtualMachine]) -> Iterator[str]:
        for machine in machines:
            if machine.network_security_group is None and any(
                machine.private_ip_address in prefix for prefix in open_subnets
            ):
                yield machine.name

    return set(bare(configuration.virtual_machines))
