"""What is wrong with the gateway itself, whichever VM one asks for. Runs in the API process.

Each function takes ``Facts`` and yields findings about one thing: flow table, queue, guard, host,
configuration, logs. Pure, as the others of this package: no question to the engine, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.daemon.api_process.diagnosis.facts import Drops, Facts, VirtualMachine
from gateway.daemon.api_process.diagnosis.finding import (
    CRITICAL,
    INFORMATION,
    WARNING,
    Finding,
    count,
    duration,
    listed,
    percent,
)
from gateway.model.profile import Method
from gateway.schema.drop_reasons import DropReason
from gateway.schema.host_firewall import LETS_PASS, is_critical

NEARLY_FULL = 0.9
SHOWN = 10
"""VMs that a sentence names."""


def gateway_findings(facts: Facts) -> Iterator[Finding]:
    """Of the flow table, the queue, the host, the configuration in force, the logs."""
    yield from _flow_table(facts)
    yield from _queue(facts)
    yield from _guard(facts)
    yield from _latest_events(facts)
    yield from _host(facts)
    yield from _ended_flows(facts)
    yield from _logs(facts)
    yield from _strangers(facts)
    yield from _tiers(facts)


def _flow_table(facts: Facts) -> Iterator[Finding]:
    flows, most = facts.status["flows"], facts.status["maximumFlows"]
    refused = _grown(facts, "drops", DropReason.FLOW_TABLE_FULL.value)
    if flows < NEARLY_FULL * most and not refused:
        return
    text = f"It has {flows:,} of at most {most:,} flows"
    if refused:
        text += f"; {count(refused, 'new flow')} dropped in the last {duration(facts.window)}"
    yield Finding(
        CRITICAL if refused or flows >= most else WARNING,
        None,
        f"The flow table is {percent(flows, most)} full",
        f"{text}. When it is full, every VM's new flows are dropped; existing ones continue.",
        (
            (
                "Raise gateway.maximumFlows and reload: a flow takes about 0.7 KB, so a million "
                "more take 0.7 GB."
            ),
        ),
        {"flows": flows, "maximumFlows": most, "refusedLately": refused},
    )


def _queue(facts: Facts) -> Iterator[Finding]:
    events = [
        e["properties"] for e in facts.gateway_events if e["operationName"] == "QueueOverflow"
    ]
    lost = sum(e["kernelDropped"] + e["socketDropped"] for e in events)
    if not events:
        return
    real = facts.window / facts.scale
    speed = (facts.status["packets"] - facts.earlier["packets"]) / real if real else 0.0
    yield Finding(
        CRITICAL,
        None,
        "The gateway loses packets before it sees them",
        f"{count(lost, 'packet')} found no room in its queue in the last "
        f"{duration(facts.events_window)}: more came than it could handle. Now it handles "
        f"{speed:,.0f} a second. What was lost is in no counter of a flow or a VM.",
        (
            (
                "Lower the load, or give the engine process a processor of its own: it is a "
                "single thread. Measurements taken meanwhile are of the gateway's limit, not of "
                "SNAT's."
            ),
        ),
        {"lost": lost, "packetsPerSecond": round(speed)},
    )


def _guard(facts: Facts) -> Iterator[Finding]:
    guard = facts.status.get("guard", {})
    if not guard.get("active", True):
        yield Finding(
            WARNING,
            None,
            "Nothing but netfilter rules keeps private addresses in",
            f"There is no guard on the outside interface: {guard['reason']}. Who flushes this "
            "host's rules opens the gateway until it has set its own again.",
            ("snatgw check -c FILE --host lists what the guard needs.",),
            dict(guard),
        )
    elif guard.get("reason"):
        yield Finding(
            WARNING,
            None,
            "The guard on the outside interface stands in nftables",
            f"tc has no place for it: {guard['reason']}. Flushed rules do not open the gateway as "
            "long as the daemon lives; nft flush ruleset does once it is dead.",
            ("snatgw check -c FILE --host lists what the guard needs.",),
            dict(guard),
        )
    told = [
        e["properties"] for e in facts.gateway_events if e["operationName"] == "GuardDroppedPackets"
    ]
    lately = f"in the last {duration(facts.events_window)}"
    shared = sum(e["count"] for e in told if e.get("otherFilters"))
    if shared:
        yield Finding(
            WARNING,
            None,
            "The guard or another program's filter stopped packets at the outside interface",
            f"{count(shared, 'packet')} {lately} were dropped by tc filters there. One counter has "
            "the guard's and all others', at ingress too, so that it is not known whether any "
            "had a private address; if so, it did not leave.",
            (
                (
                    "tc filter show dev INTERFACE ingress, and egress, list them; the guard's has "
                    "handle 0xac57. Without RulesRestored or HostChanged events at that time, it "
                    "was most likely the others'."
                ),
            ),
            {"stoppedAtMost": shared},
        )
    alone = sum(
        e["count"] for e in told if e.get("whileNoGatewayRan") and not e.get("otherFilters")
    )
    if alone:
        yield Finding(
            WARNING,
            None,
            "Packets with private addresses were stopped while no gateway ran",
            f"The guard stopped {count(alone, 'packet')} of VMs before the last start; none left. "
            "On a host that forwards without the gateway that is so between a stop and a start, "
            "and after a crash if the rules were flushed.",
            (),
            {"stopped": alone},
        )
    stopped = sum(e["count"] for e in told) - shared - alone
    if not stopped:
        return
    yield Finding(
        CRITICAL,
        None,
        "Packets with private addresses got as far as the outside interface",
        f"The guard there stopped {count(stopped, 'packet')} {lately}; none left. "
        f"{DropReason.PRIVATE_ADDRESS_OUTSIDE.sentence}",
        (
            (
                "Events RulesRestored and HostChanged say when; iptables-save and nft list ruleset "
                "show what stands in front of the gateway's rules. Have whatever loads rules on "
                "this host leave those of the gateway alone."
            ),
        ),
        {"stopped": stopped},
    )


def _latest_events(facts: Facts) -> Iterator[Finding]:
    reload = _latest(facts, "Reloaded", "ReloadRefused", "Started")
    if reload is not None and reload["operationName"] == "ReloadRefused":
        problems = reload["properties"]["problems"]
        yield Finding(
            WARNING,
            None,
            "The configuration file is not what is in force",
            f"The reload at {reload['time']} was rejected, and the gateway continues as before: "
            f"{problems[0]}" + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""),
            ("snatgw check -c FILE lists all problems; snatgw reload applies the mended file.",),
            {"problems": problems},
        )
    firewall = _latest(facts, "HostFirewall", "Started")
    if firewall is not None and firewall["properties"].get("problems"):
        problems = firewall["properties"]["problems"]
        parts = [problem.partition(LETS_PASS) for problem in problems]
        yield Finding(
            CRITICAL if any(map(is_critical, problems)) else WARNING,
            None,
            "The host's own firewall drops what the gateway passes",
            f"Since {firewall['time']}: {'; '.join(said.rstrip('. ') for said, _, _ in parts)}.",
            (
                *(f"{LETS_PASS.strip()}\n{command}" for _, _, command in parts if command),
                "snatgw check -c FILE --host reports whether it still does.",
            ),
            {"problems": problems},
            host=True,
        )
    error = _latest(facts, "HandlerError")
    if error is not None:
        number = error["properties"]["count"]
        yield Finding(
            CRITICAL,
            None,
            "An internal error of the gateway dropped packets",
            f"{count(number, 'packet')} at {error['time']}, and it went on.",
            ("Please report it with the trace that snatgw events --json shows (HandlerError).",),
            {"packets": number},
        )


def _host(facts: Facts) -> Iterator[Finding]:
    """What is wrong with the host's network now, and what had to be put right lately."""
    host: Mapping[str, Any] = facts.status.get("host", {})
    problems = host.get("problems")
    if problems:
        yield Finding(
            CRITICAL,
            None,
            "The host's network is not as the gateway needs it",
            f"Since {host['since']}: {'; '.join(problems)}.",
            ("snatgw check -c FILE --host lists what is missing; the gateway restores the rest.",),
            {"problems": problems},
            host=True,
        )
    restored = [
        (event["time"], line)
        for event in facts.gateway_events
        if event["operationName"] == "HostRestored"
        for line in event["properties"].get("restored", ())
    ]
    if restored:
        when, line = restored[-1]
        yield Finding(
            WARNING,
            None,
            "Another program changes the host's network under the gateway",
            f"{count(len(restored), 'time')} in the last {duration(facts.events_window)} the "
            f"gateway had to restore what it needs, last at {when}: {line}.",
            (
                (
                    "A network manager, firewall or script on this host does not know of the "
                    "gateway: have it leave the gateway's interfaces, and routes of protocol 217, "
                    "alone."
                ),
            ),
            {"times": len(restored), "last": line},
        )


def _ended_flows(facts: Facts) -> Iterator[Finding]:
    events = [e for e in facts.gateway_events if e["operationName"] == "FlowsEnded"]
    flows = sum(event["properties"]["flows"] for event in events)
    if flows:
        yield Finding(
            WARNING,
            None,
            f"A reload ended {count(flows, 'flow')}",
            f"Last at {events[-1]['time']}: {events[-1]['properties']['reason']}. Their ends get "
            "no answer any more, and no RST.",
            ("Have the clients connect again.",),
            {"flows": flows},
        )


def _logs(facts: Facts) -> Iterator[Finding]:
    lost = _grown(facts, "events", "lost")
    unwritten = facts.status["events"]["unwritten"]
    if lost:
        yield Finding(
            WARNING,
            None,
            "Events are being lost",
            f"{count(lost, 'event')} found no room on their way to the log in the last "
            f"{duration(facts.window)}: the dropped packets in this diagnosis lack them.",
            (),
            {"lost": lost},
        )
    if unwritten:
        yield Finding(
            WARNING,
            None,
            "The event log cannot be written",
            f"{count(unwritten, 'event')} are not in <stateDirectory>/events.jsonl: the disk is "
            "full, or the directory may not be written to. snatgw events has the latest 10,000 "
            "still.",
            ("Standard error of the daemon has the system's reason.",),
            {"unwritten": unwritten},
        )


def _strangers(facts: Facts) -> Iterator[Finding]:
    """Packets whose sender is none of the VMs, or is known by its public IP only."""
    for drops in facts.gateway_drops:
        if drops.reason == DropReason.HAIRPIN_WITHOUT_RULE.value:
            yield _hairpin(drops, facts)
        elif drops.reason == DropReason.NO_HEALTHY_BACKEND.value:
            yield _no_backend(drops, facts)
        if drops.reason != DropReason.SOURCE_NOT_IN_VIRTUAL_NETWORK.value:
            continue
        yield Finding(
            WARNING,
            None,
            f"Packets come from {drops.source}, which is in no subnet",
            f"At least {count(drops.count, 'packet')} in the last {duration(facts.events_window)} "
            f"were dropped, the last one {drops.protocol} from {drops.source} to "
            f"{drops.destination}.",
            (
                (
                    "If that is a VM of yours, add its range to virtualNetwork.subnets; else it "
                    "is misconfigured, or forges its address."
                ),
            ),
            {"source": drops.source, "packets": drops.count},
        )


def _no_backend(drops: Drops, facts: Facts) -> Finding:
    return Finding(
        CRITICAL,
        None,
        f"No VM behind {drops.destination} accepts connections",
        f"At least {count(drops.count, 'packet')} in the last {duration(facts.events_window)} were "
        f"dropped, the last one {drops.protocol} from {drops.source}. "
        f"{DropReason.NO_HEALTHY_BACKEND.sentence}",
        (
            (
                "snatgw health shows each backend and what its last probe met. A rule that denies "
                "168.63.129.16 (AzureLoadBalancer) keeps probes out."
            ),
        ),
        {"frontend": drops.destination, "packets": drops.count},
    )


def _hairpin(drops: Drops, facts: Facts) -> Finding:
    return Finding(
        INFORMATION,
        None,
        f"A VM sends to {drops.destination}, and nothing there takes it",
        f"At least {count(drops.count, 'packet')} in the last {duration(facts.events_window)} came "
        f"from {drops.source}, as a VM was translated, to {drops.destination}: both are public IPs "
        f"of this gateway. {DropReason.HAIRPIN_WITHOUT_RULE.sentence}",
        (
            (
                f"Something has to stand behind {drops.destination}: a VM whose own address it is, "
                "or a rule."
            ),
        ),
        {"source": drops.source, "destination": drops.destination, "packets": drops.count},
    )


def _tiers(facts: Facts) -> Iterator[Finding]:
    """Pools that one more VM takes over a tier."""
    profile = facts.profile
    sizes: dict[tuple[str, str, int], list[VirtualMachine]] = {}
    for vm in facts.machines:
        several = len(vm.machine.frontends) > 1
        if several and profile.ports_of_several_frontends is not None:
            continue  # what one frontend takes back another gives
        if Method.LOAD_BALANCER in (vm.machine.tcp, vm.machine.udp):
            for place in vm.machine.frontends:
                sizes.setdefault(place, []).append(vm)
    for (balancer, frontend, size), members in sorted(sizes.items()):
        now, after = profile.ports_per_vm(size), profile.ports_per_vm(size + 1)
        if after >= now:
            continue
        over = sorted(
            vm.name
            for vm in members
            if any(s.high_water > after * len(vm.machine.ports) for s in vm.supplies.values())
        )
        text = (
            f"Each of them has {now:,} SNAT ports on frontend {frontend} of {balancer}. With the "
            f"next VM each has {after:,}: {now - after:,} are taken back at once, and the flows on "
            "them break silently."
        )
        if over:
            text += f" Some have had more in use than they will have: {listed(over[:SHOWN])}."
        yield Finding(
            WARNING if over else INFORMATION,
            None,
            f"One more VM cuts the ports of the {size} behind {balancer}/{frontend} to {after:,}",
            text,
            (
                (
                    "Before the pool grows, add a frontend with a rule to it: each gives every VM "
                    f"{after:,} more."
                ),
            ),
            {"members": size, "ports": now, "portsAfter": after, "virtualMachines": over[:SHOWN]},
        )


def _grown(facts: Facts, *path: str) -> int:
    """By how much a counter of the status grew between the two looks."""
    now: Any = facts.status
    before: Any = facts.earlier
    for name in path[:-1]:
        now, before = now.get(name, {}), before.get(name, {})
    grown: int = now.get(path[-1], 0) - before.get(path[-1], 0)
    return grown


def _latest(facts: Facts, *operations: str) -> Mapping[str, Any] | None:
    found = [e for e in facts.gateway_events if e["operationName"] in operations]
    return found[-1] if found else None
