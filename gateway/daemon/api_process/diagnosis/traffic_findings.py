"""What else keeps a VM's traffic from flowing: no outbound method, no answer, rules, drops.
Runs in the API process.

Dropped packets are known from events, which are sampled: numbers of them are lower bounds, and
stated as such. What comes from outside and is dropped is the internet's noise, and only mentioned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from gateway.daemon.api_process.diagnosis.facts import UNANSWERED, Drops, Facts, VirtualMachine
from gateway.daemon.api_process.diagnosis.finding import (
    CRITICAL,
    INFORMATION,
    WARNING,
    Finding,
    be,
    count,
    duration,
    endpoint,
    listed,
)
from gateway.model.profile import Method
from gateway.schema.drop_reasons import DropReason

_PRIVATE = [IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
FEW = 3
"""Unanswered connections below it are every host's daily life."""
MANY_DATAGRAMS = 0.25
"""Of a VM's UDP ports; one-way UDP (logs, metrics) gets no answer by design."""


def traffic_findings(vm: VirtualMachine, facts: Facts) -> Iterator[Finding]:
    """All findings about a VM except for its ports."""
    yield from _no_way_out(vm, facts)
    yield from _down(vm)
    yield from _unanswered_connections(vm, facts)
    yield from _unanswered_datagrams(vm, facts)
    for drops in vm.drops:
        if drops.reason == DropReason.DENIED_BY_SECURITY_RULE.value:
            yield _denied(vm, drops, facts)
        elif not drops.inward:
            yield from _refused(vm, drops, facts)


def _no_way_out(vm: VirtualMachine, facts: Facts) -> Iterator[Finding]:
    machine, profile = vm.machine, facts.profile
    lacking = [name for name in ("Tcp", "Udp") if machine.method_of(name) is None]
    if not lacking:
        return
    refused = sum(d.count for d in vm.drops if _BY_NAME[d.reason] in _WITHOUT_WAY)
    if machine.method is not None:
        yield from _half_a_way_out(vm, lacking[0].upper(), refused, facts)
        return
    standalone = (
        "defaultOutboundAccess has no public IP"
        if not profile.default_outbound_by_subnet
        else "its subnet does not have defaultOutboundAccess: true, or it is in a Standard load "
        "balancer's pool, or defaultOutboundAccess has no public IP"
    )
    lacks = [
        *([] if profile.nat_gateway is None else ["its subnet has no NAT gateway"]),
        "it has no instance-level public IP",
        "no load balancing or outbound rule gives it SNAT through a frontend",
    ]
    text = (
        f"Of {vm.name} ({machine.private_ip}) everything to the internet is dropped silently: "
        f"{', '.join(lacks)}, and {standalone}."
    )
    if refused:
        text += f" Dropped: at least {_packets(refused, facts)}."
    table = f"{profile.ports_per_vm(1):,} SNAT ports"
    yield Finding(
        CRITICAL if refused else WARNING,
        vm.name,
        f"{vm.name} has no outbound connectivity",
        text,
        (
            (
                f"Give {vm.name} a publicIPAddress of its own, or put it into the pool of a load "
                f"balancing rule ({table} for each of up to {profile.preallocation[0][0]} VMs)."
            ),
            f"Or allow default SNAT ({table}): a public IP under defaultOutboundAccess"
            + (
                ", and defaultOutboundAccess: true for its subnet."
                if profile.default_outbound_by_subnet
                else "."
            ),
        ),
        {"refused": refused},
    )


def _half_a_way_out(
    vm: VirtualMachine, protocol: str, refused: int, facts: Facts
) -> Iterator[Finding]:
    """A Standard load balancer's rule gives SNAT for its own protocol only."""
    text = (
        f"Its load balancer's rules give {vm.name} SNAT for the other protocol only: in "
        f"{facts.profile.name} a rule does so for its own. "
    )
    text += "DNS, NTP and QUIC are" if protocol == "UDP" else "Every connection is"
    text += " dropped silently"
    text += f": at least {_packets(refused, facts)}." if refused else "."
    yield Finding(
        WARNING if refused else INFORMATION,
        vm.name,
        f"{protocol} of {vm.name} has no outbound connectivity",
        text,
        (f"Give its pool an outbound rule, or a load balancing rule, for {protocol} as well.",),
        {"protocol": protocol.capitalize(), "refused": refused},
    )


def _down(vm: VirtualMachine) -> Iterator[Finding]:
    for down in vm.down.values():
        rules = listed(sorted(set(down.rules)))
        text = f"It gets no new flows of {rules}."
        if down.reason:
            times = f", {down.in_a_row:,} times in a row" if down.in_a_row > 1 else ""
            text = f"Its last result: {down.reason}{times}. {text}"
        if down.denied_by is None:
            advice = (
                f"snatgw health --vm {vm.name} shows the probe: something has to answer it in "
                f"{vm.name}, on the probe's port and path, to 168.63.129.16."
            )
        else:
            advice = (
                f"Rule {down.denied_by} denies the probe: allow AzureLoadBalancer (168.63.129.16) "
                "before it."
            )
        yield Finding(
            WARNING,
            vm.name,
            f"Probe {down.probe} of {down.balancer} finds {vm.name} down",
            text,
            (advice,),
            {
                "loadBalancer": down.balancer,
                "probe": down.probe,
                "rules": down.rules,
                "reason": down.reason,
                "inARow": down.in_a_row,
                "deniedBy": down.denied_by,
            },
        )


def _unanswered_connections(vm: VirtualMachine, facts: Facts) -> Iterator[Finding]:
    waiting = vm.unanswered
    if waiting.count < FEW:
        return
    ((ip, port), number), *_ = waiting.remotes.most_common(1)
    supply = vm.supplies.get("Tcp")
    method = vm.machine.tcp
    own = vm.machine.instance if method == Method.INSTANCE_LEVEL_PUBLIC_IP else None
    publics = list(supply.publics if supply else ()) if own is None else [own]
    held = ""
    if supply is not None and own is None:
        nat = facts.profile.nat_gateway if method == Method.NAT_GATEWAY else None
        patience = vm.machine.tcp_idle_timeouts[1] if nat is None else nat.half_open_timeout
        held = f" Each holds a SNAT port until it was idle for {duration(patience)}."
    remotes = [
        {"ip": ip_, "port": port_, "flows": flows}
        for (ip_, port_), flows in waiting.remotes.most_common(3)
    ]
    yield Finding(
        WARNING,
        vm.name,
        f"{count(waiting.count, 'connection')} of {vm.name} {be(waiting.count)} not answered",
        f"The SYNs of {count(waiting.count, 'connection')} went out {duration(UNANSWERED)} ago or "
        f"more (the first {duration(waiting.oldest)} ago) and nothing came back: {number:,} of "
        f"them to {ip}:{port}.{held}",
        (
            (
                f"The gateway has done its part: see that {ip} listens on port {port}, that its "
                f"firewall lets {listed(publics)} in, and that it has a way back "
                "there."
            ),
        ),
        {
            "count": waiting.count,
            "oldestSeconds": round(waiting.oldest, 3),
            "remotes": remotes,
        },
    )


def _unanswered_datagrams(vm: VirtualMachine, facts: Facts) -> Iterator[Finding]:
    supply = vm.supplies.get("Udp")
    busiest = None if supply is None else supply.busiest
    if supply is None or busiest is None:
        return
    if not busiest.unanswered or busiest.unanswered < MANY_DATAGRAMS * supply.allocated:
        return
    remote = endpoint(busiest.remote)
    yield Finding(
        INFORMATION,
        vm.name,
        f"{count(busiest.unanswered, 'UDP flow')} of {vm.name} to {remote} had no answer",
        f"Each holds one of its {supply.allocated:,} UDP ports toward {remote} until it was idle "
        f"for {duration(vm.udp_patience(facts.profile))}. Nothing is wrong with that for one-way "
        "traffic such as logs; for DNS and the like the answers are missing.",
        (
            (
                f"If {remote} should answer, see that it does, and that its firewall lets "
                f"{listed(supply.publics)} in."
            ),
        ),
        {
            "unanswered": busiest.unanswered,
            "destination": {"ip": busiest.remote[0], "port": busiest.remote[1]},
        },
    )


def _denied(vm: VirtualMachine, drops: Drops, facts: Facts) -> Finding:
    group, _, rule = (drops.rule or "").partition("/")
    default = rule in ("DenyAllOutBound", "DenyAllInBound")
    if drops.inward:
        return Finding(
            INFORMATION,
            vm.name,
            f"{group} keeps packets from {vm.name}",
            f"Rule {rule} denied at least {_packets(drops.count, facts)} on their way to "
            f"{vm.name}, the last one {drops.protocol} from {drops.source}.",
            (
                (
                    f"snatgw nsg --vm {vm.name} shows the rules in front of it, if this was wanted "
                    "traffic."
                ),
            ),
            {"rule": drops.rule, "packets": drops.count, "source": drops.source},
        )
    why = (
        "No rule before it allows that destination, and it is neither the virtual network nor the "
        "internet to the default rules"
        if default
        else "Its priority number is the lowest of the rules that match"
    )
    return Finding(
        WARNING,
        vm.name,
        f"Rule {rule} of {group} denies what {vm.name} sends",
        f"At least {_packets(drops.count, facts)} were dropped, the last one {drops.protocol} to "
        f"{drops.destination}. {why}; denials are silent, so the client sees a time-out.",
        (
            (
                f"snatgw explain --vm {vm.name} --to {drops.destination}:PORT/tcp shows what each "
                "level says."
            ),
            (
                "If this traffic is wanted, add an Allow rule with a lower priority number to "
                f"{group}, or change {rule}: a reload applies it, and live flows are not touched."
            ),
        ),
        {"rule": drops.rule, "packets": drops.count, "destination": drops.destination},
    )


@dataclass(frozen=True)
class _Refusal:
    """What packets of a VM that are dropped for one reason mean to its owner."""

    severity: str
    title: str
    advice: str
    least: int = 1


_WITHOUT_WAY = (DropReason.NO_OUTBOUND_METHOD, DropReason.PROTOCOL_WITHOUT_RULE)
_BY_NAME = {reason.value: reason for reason in DropReason}
_REFUSALS = {
    DropReason.DEFAULT_OUTBOUND_CAPACITY: _Refusal(
        CRITICAL,
        "{vm} got no SNAT ports: the default outbound addresses are full",
        "Add a public IP to defaultOutboundAccess: each has ports for {room} standalone VMs.",
    ),
    DropReason.TCP_WITHOUT_FLOW: _Refusal(
        WARNING,
        "{vm} sends on connections that the gateway has forgotten",
        "Set TCP keep-alive on either side to less than {idle} ({idle_real} here), or less than "
        "the idle timeout of the rule it came in by: a flow that is idle for longer ends silently.",
        least=5,
    ),
    DropReason.ICMP_ECHO_THROUGH_SNAT: _Refusal(
        INFORMATION,
        "{vm} pings, and ping does not pass SNAT",
        "Probe with TCP instead. In a lab, gateway.icmpEcho: translate lets echo through.",
    ),
    DropReason.DESTINATION_NOT_INTERNET: _Refusal(
        INFORMATION,
        "{vm} sends to an address that is not internet",
        "If {destination} stands for the internet in this lab, declare its range in "
        "gateway.internetAddressPrefixes.",
    ),
}


def _refused(vm: VirtualMachine, drops: Drops, facts: Facts) -> Iterator[Finding]:
    reason = _BY_NAME[drops.reason]
    if reason in _WITHOUT_WAY or reason is DropReason.FLOW_TABLE_FULL:
        return  # said elsewhere
    if reason is DropReason.PORT_RECLAIMED and vm.reclaimed:
        return
    known = _REFUSALS.get(reason)
    if known is not None and drops.count < known.least:
        return
    profile, idle = facts.profile, vm.machine.tcp_idle_timeouts[0]
    if _is_private(drops.destination):
        idle = min(idle, profile.idle_timeout)  # between VMs it is the profile's
    words = {
        "vm": vm.name,
        "destination": drops.destination,
        "idle": duration(idle),
        "idle_real": duration(idle / facts.scale),
        "room": profile.snat_port_count // profile.ports_per_vm(profile.default_outbound_pool_size),
    }
    yield Finding(
        INFORMATION if known is None else known.severity,
        vm.name,
        f"Packets of {vm.name} are dropped: {reason.value}"
        if known is None
        else known.title.format(**words),
        f"At least {_packets(drops.count, facts)} were dropped, the last one {drops.protocol} to "
        f"{drops.destination}. {reason.sentence}",
        () if known is None else (known.advice.format(**words),),
        {"reason": reason.value, "packets": drops.count, "destination": drops.destination},
    )


def _is_private(destination: str) -> bool:
    return any(IPv4Address(destination) in network for network in _PRIVATE)


def _packets(number: int, facts: Facts) -> str:
    return f"{count(number, 'packet')} in the last {duration(facts.events_window)}"
