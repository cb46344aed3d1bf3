"""SNAT ports: who is out of them or will be, which destination takes them, and what would help.
Runs in the API process.

A VM is out of ports toward a destination, not as such: the ports that matter are those that its
flows to one destination hold. What they are doing there decides what would help
(``advice.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from gateway.daemon.api_process.diagnosis.advice import (
    advice,
    destination_scope,
    hold_time,
    opening_rate,
    pooling,
)
from gateway.daemon.api_process.diagnosis.facts import (
    BUSY,
    Destination,
    Facts,
    Supply,
    VirtualMachine,
)
from gateway.daemon.api_process.diagnosis.finding import (
    CRITICAL,
    INFORMATION,
    WARNING,
    Finding,
    count,
    duration,
    endpoint,
    forecast,
    listed,
    percent,
    rate,
)
from gateway.model.profile import HIGH_SNAT_PORT_USAGE, DestinationScope, Method, Profile

SOON = 240.0
"""Seconds: a VM that will be out of ports earlier than this gets a finding, however many are
left."""
NOTABLE = 0.25
"""Of a VM's ports; what idle or closed flows hold below it is no problem."""


def port_findings(vm: VirtualMachine, facts: Facts) -> Iterator[Finding]:
    """For each protocol, the finding about the destination that holds most ports."""
    for supply in vm.supplies.values():
        busiest = supply.busiest
        if busiest is None or not supply.allocated:
            continue
        if supply.failed_lately or busiest.held >= supply.allocated:
            yield _exhausted(vm, supply, busiest, facts)
        elif busiest.held > HIGH_SNAT_PORT_USAGE * supply.allocated or _is_urgent(
            supply, busiest, facts
        ):
            yield _filling(vm, supply, busiest, facts)
        else:
            yield from _was_exhausted(vm, supply, facts)
            yield from _wasteful(vm, supply, busiest, facts)
    yield from _reclaimed(vm, facts)


def headroom(vm: VirtualMachine) -> str:
    """How much is left, in a sentence for a VM that is healthy."""
    if vm.machine.method == Method.INSTANCE_LEVEL_PUBLIC_IP:
        return (
            f"goes out by its own address {vm.machine.instance} and needs no SNAT port "
            f"({count(vm.flows, 'flow')} now)"
        )
    parts = []
    for supply in vm.supplies.values():
        busiest = supply.busiest
        if busiest is None or not busiest.held:
            continue
        left = supply.allocated - busiest.held
        parts.append(
            f"{left:,} of its {supply.allocated:,} {_name(supply)} ports free toward its busiest "
            f"destination {endpoint(busiest.remote)}"
        )
    if parts:
        return "has " + listed(parts)
    ports = max((supply.allocated for supply in vm.supplies.values()), default=0)
    if ports:
        return f"has all of its {ports:,} SNAT ports free for each protocol"
    return "has sent nothing yet"


def least_left(vm: VirtualMachine) -> float:
    """The largest share of its ports that it holds toward one destination."""
    return max(
        (
            supply.busiest.held / supply.allocated
            for supply in vm.supplies.values()
            if supply.busiest is not None and supply.allocated
        ),
        default=0.0,
    )


# -- findings


def _exhausted(vm: VirtualMachine, supply: Supply, at: Destination, facts: Facts) -> Finding:
    remote = endpoint(at.remote)
    full = [d for d in supply.destinations if d.held >= supply.allocated]
    if not full:
        text = (
            f"{_attempts(supply.failed_lately)} failed because no port was free in the last "
            f"{duration(facts.window)}. By now {at.held:,} of the {supply.allocated:,} "
            f"{_name(supply)} ports {_where(supply)} are held by flows to {remote}: "
            f"{_breakdown(at)}."
        )
    else:
        text = (
            f"All {supply.allocated:,} {_name(supply)} SNAT ports {_where(supply)} are held by "
            f"flows to {remote}: {_breakdown(at)}. A further flow there is dropped silently: its "
            f"client sees a time-out, not an RST. {_attempts(supply.failed_lately)} failed in the "
            f"last {duration(facts.window)}, {supply.failed:,} since the gateway started "
            f"({_refusals(supply)})."
        )
        others = [endpoint(d.remote) for d in full if d is not at]
        if others:
            text += f" The same goes for {listed(others)}."
        text += f" {_elsewhere(supply, facts.profile)}"
    return Finding(
        CRITICAL,
        vm.name,
        f"{vm.name} is out of {_name(supply)} ports toward {remote}",
        text,
        tuple(advice(vm, supply, at, facts)),
        _data(supply, at, facts),
    )


def _filling(vm: VirtualMachine, supply: Supply, at: Destination, facts: Facts) -> Finding:
    remote = endpoint(at.remote)
    left = supply.allocated - at.held
    text = (
        f"{at.held:,} of the {supply.allocated:,} {_name(supply)} SNAT ports {_where(supply)} are "
        f"held by flows to {remote}: {_breakdown(at)}. {_outlook(supply, at, facts)}"
    )
    title = (
        f"{vm.name} uses {percent(at.held, supply.allocated)} of its {_name(supply)} ports toward "
        f"{remote}"
    )
    if _is_urgent(supply, at, facts):
        title += f", and is out of them in about {duration(_seconds_left(supply, at, facts))}"
    data = _data(supply, at, facts) | {"free": left}
    return Finding(WARNING, vm.name, title, text, tuple(advice(vm, supply, at, facts)), data)


def _wasteful(
    vm: VirtualMachine, supply: Supply, at: Destination, facts: Facts
) -> Iterator[Finding]:
    """Nothing is wrong yet, but ports are held by unused flows."""
    notable = NOTABLE * supply.allocated
    remote, name = endpoint(at.remote), _name(supply)
    if at.over >= notable:
        held = at.over
        title = (
            f"Closed connections hold {percent(held, supply.allocated)} of {vm.name}'s {name} ports"
        )
    elif len(at.idle) >= notable:
        held = len(at.idle)
        title = f"Idle flows hold {percent(held, supply.allocated)} of {vm.name}'s {name} ports"
    else:
        return
    yield Finding(
        INFORMATION,
        vm.name,
        title,
        f"{at.held:,} of the {supply.allocated:,} SNAT ports {_where(supply)} are held by flows to "
        f"{remote}: {_breakdown(at)}. {_outlook(supply, at, facts)}",
        tuple(pooling(vm, supply, at, facts)),
        _data(supply, at, facts),
    )


def _was_exhausted(vm: VirtualMachine, supply: Supply, facts: Facts) -> Iterator[Finding]:
    """It is over: ports have come back, or fewer are wanted."""
    last = vm.exhausted.get(supply.protocol)
    if last is None:
        return
    remote = f"{last.remote[0]}:{last.remote[1]}"
    held = next((d.held for d in supply.destinations if d.remote[0] == last.remote[0]), 0)
    refused = "No attempt failed"
    if supply.failed:  # not of ports that are gone
        refused = f"{_attempts(supply.failed)} failed since the gateway started, none"
    yield Finding(
        WARNING,
        vm.name,
        f"{vm.name} was out of {_name(supply)} ports toward {last.remote[0]}",
        f"Last at {last.time}, for a flow to {remote}. {refused} in the last "
        f"{duration(facts.window)}: now {held:,} of the {supply.allocated:,} ports "
        f"{_where(supply)} are held there.",
        ("snatgw events shows when it came and went; the same load will bring it back.",),
        {
            "protocol": supply.protocol,
            "time": last.time,
            "destination": {"ip": last.remote[0], "port": last.remote[1]},
            "failed": supply.failed,
            "held": held,
            "allocated": supply.allocated,
        },
    )


def _reclaimed(vm: VirtualMachine, facts: Facts) -> Iterator[Finding]:
    flows = sum(reclaimed.flows for reclaimed in vm.reclaimed)
    if not vm.reclaimed or not flows:
        return
    ports = sum(reclaimed.ports for reclaimed in vm.reclaimed)
    publics = sorted({reclaimed.public_ip for reclaimed in vm.reclaimed})
    yield Finding(
        WARNING,
        vm.name,
        f"{count(flows, 'flow')} of {vm.name} broke when ports were taken back",
        f"In the last {duration(facts.events_window)} a reload took {count(ports, 'SNAT port')} on "
        f"{listed(publics)} from {vm.name}, and the flows on them broke silently: their ends still "
        "believe in them and get no answer. That is what a pool that grows over a tier does in "
        "Azure (50, 100, 200, 400, 800 VMs).",
        ("Have the clients connect again; the old connections do not come back.",),
        {"ports": ports, "flowsBroken": flows, "publicIps": publics},
    )


# -- sentences


def _name(supply: Supply) -> str:
    return supply.protocol.upper()


def _where(supply: Supply) -> str:
    return f"on {listed(supply.publics)}"


def _attempts(number: int) -> str:
    return count(number, "attempt")


def _refusals(supply: Supply) -> str:
    what = "repeated SYNs count again" if supply.protocol == "Tcp" else "each datagram counts"
    return what if len(supply.publics) == 1 else f"{what}, on each of the public IPs"


def _elsewhere(supply: Supply, profile: Profile) -> str:
    if destination_scope(profile, supply.protocol) is DestinationScope.ADDRESS:
        return "Other addresses are not affected: there the same ports can be used again."
    return "Other addresses, and other ports there, are not affected."


def _breakdown(at: Destination) -> str:
    """What the flows that hold the ports are doing."""
    parts = []
    if at.busy:
        parts.append(f"{at.busy:,} in use (a packet in the last {duration(BUSY)})")
    if at.idle:
        middle, longest = duration(median(at.idle)), duration(max(at.idle))
        parts.append(f"{len(at.idle):,} open but idle (median {middle}, longest {longest})")
    if at.opening:
        parts.append(f"{at.opening:,} without an answer yet")
    if at.half_closed:
        parts.append(f"{at.half_closed:,} half-closed (a FIN from one side only)")
    if at.closed:
        parts.append(f"{at.closed:,} closed, their ports still held")
    if at.reset:
        parts.append(f"{at.reset:,} reset, their ports still held")
    text = listed(parts)
    if at.remote[1] is None and len(at.ports) > 1:
        ports = [f"{port} ({number:,})" for port, number in at.ports.most_common(3)]
        text += f"; by port {', '.join(ports)}"
    return text


def _growth(at: Destination, facts: Facts) -> float:
    """Ports a second by which the flows to a destination have grown between the two looks."""
    return (at.held - at.before) / facts.window if facts.window else 0.0


def _seconds_left(supply: Supply, at: Destination, facts: Facts) -> float:
    """When the last port is taken, if it grows on as it did between the listings.

    Ports of flows that have ended come back when they are due. Where most flows end, what is taken
    from now on comes back, too, after the hold time: then it ends before that or never.
    """
    growth = _growth(at, facts)
    if growth <= 0:
        return float("inf")
    left = supply.allocated - at.held
    seconds = left / growth
    for number, due in enumerate(sorted(at.returning)):
        if due >= seconds:
            break
        seconds = (left + number + 1) / growth
    ending = at.over * 2 >= at.held
    return float("inf") if ending and seconds > hold_time(at) else seconds


def _is_urgent(supply: Supply, at: Destination, facts: Facts) -> bool:
    """Whether it is out of ports soon: by the growth between the looks, and not for a burst alone,
    by the new flows of the last while, too."""
    left = supply.allocated - at.held
    lasting = left * facts.recent / at.new if at.new else float("inf")
    return _seconds_left(supply, at, facts) < SOON and lasting < SOON


def _outlook(supply: Supply, at: Destination, facts: Facts) -> str:
    left = supply.allocated - at.held
    growth = _growth(at, facts)
    looked = f"in the last {duration(facts.window)} it went from {at.before:,} to {at.held:,}"
    if growth < 0:
        return f"It shrinks ({looked}), with {left:,} left."
    if growth == 0:
        return f"It does not grow ({looked}), with {left:,} left."
    grows = f"It grows by {rate(growth)} ({looked})"
    seconds = _seconds_left(supply, at, facts)
    if seconds == float("inf"):
        return (
            f"{grows}, with {left:,} left, and at this rate ports come back before these are used."
        )
    back = sum(due < seconds for due in at.returning)
    meanwhile = f", with the {back:,} that come back meanwhile," if back else ""
    return (
        f"{grows}: the {left:,} that are left{meanwhile} last about "
        f"{forecast(seconds, facts.scale)}."
    )


def _data(supply: Supply, at: Destination, facts: Facts) -> dict[str, object]:
    """The finding's numbers for programs; seconds are Azure's."""
    left = _seconds_left(supply, at, facts)
    return {
        "protocol": supply.protocol,
        "publicIps": list(supply.publics),
        "destination": {"ip": at.remote[0], "port": at.remote[1]},
        "allocated": supply.allocated,
        "held": at.held,
        "heldBefore": at.before,
        "windowSeconds": round(facts.window, 3),
        "inUse": at.busy,
        "idle": len(at.idle),
        "longestIdleSeconds": round(max(at.idle, default=0.0), 3),
        "opening": at.opening,
        "halfClosed": at.half_closed,
        "closed": at.closed,
        "reset": at.reset,
        "newPerSecond": round(opening_rate(at, facts), 3),
        "failed": supply.failed,
        "failedLately": supply.failed_lately,
        "secondsLeft": None if left == float("inf") else round(left, 3),
    }
