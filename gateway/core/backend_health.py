"""What becomes of flows and events when a backend's health changes; and when it does change.

``ProbeHysteresis``, which the prober runs, turns a probe's results into health: ``threshold``
results of a kind in a row change it, either way, and a member that flaps needs more successes to
come back. ``HealthTracker``, in the engine process, updates the balancer, makes Azure's events of
it, and checks the flows that may not outlive it, in slices. Neither sends anything: results and
time are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from typing import NamedTuple

from gateway.core.events import Event, NoHealthyBackends, ProbeHealthChanged
from gateway.core.flow_lifecycle import FlowLifecycle
from gateway.core.flows.tcp import ENDED
from gateway.core.inbound.listeners import Listener, Target
from gateway.core.inbound.load_balancer import INBOUND_RULES, Balancer
from gateway.core.policy.nsg import FiveTuple, Policy
from gateway.model.checks.inbound_rules import threshold
from gateway.model.configuration import Configuration
from gateway.model.resolved.tags import PLATFORM_ADDRESS
from gateway.schema.protocols import TCP
from gateway.schema.records import HealthRecord

SETTLE_SLICE = 256  # flows visited between two chances to handle packets
REPUBLISH = 3600.0  # seconds; of events about a rule without a backend ("Health event logs")
LONGEST_PROBE = 30.0  # seconds that a probe waits for its answer ("Load Balancer probes")
FLAP_WINDOW = 10  # a member that goes down within so many intervals of coming up is flapping
LONGEST_WAIT = 8  # times the threshold, for one that flaps

PROBE_SOURCE = int(PLATFORM_ADDRESS.network_address)
_EPHEMERAL = 49152  # a source port for "what would become of a probe"


class ProbeTarget(NamedTuple):
    """What to probe and how; times in seconds."""

    target: Target
    protocol: str  # Tcp, Http or Https
    address: IPv4Address
    port: int
    path: str
    interval: float
    timeout: float
    threshold: int


def probe_targets(configuration: Configuration) -> list[ProbeTarget]:
    """Every VM that a load balancing rule's probe is sent to, once for each probe."""
    return [target for target in probe_targets_in_slices(configuration) if target is not None]


def probe_targets_in_slices(configuration: Configuration) -> Iterator[ProbeTarget | None]:
    """The same; None where a caller may pause."""
    addresses = {vm.name: vm.private_ip_address for vm in configuration.virtual_machines}
    yield None
    met: set[tuple[str, str, str]] = set()
    for balancer in configuration.load_balancers:
        probes = {probe.name: probe for probe in balancer.probes}
        pools = {pool.name: pool.virtual_machines for pool in balancer.backend_address_pools}
        for rule in balancer.load_balancing_rules:
            if rule.probe is None:
                continue
            probe = probes[rule.probe]
            interval = float(probe.interval_in_seconds)
            needed = threshold(probe, configuration.profile)
            for number, vm in enumerate(pools[rule.backend_address_pool], 1):
                target = Target(balancer.name, probe.name, vm)
                if target in met:
                    continue
                met.add(target)
                yield ProbeTarget(
                    target,
                    probe.protocol,
                    addresses[vm],
                    probe.port,
                    probe.request_path or "",
                    interval,
                    min(interval, LONGEST_PROBE),
                    needed,
                )
                if not number % SETTLE_SLICE:
                    yield None


class ProbeHysteresis:
    """One target's results. ``up`` None: none of them counted yet.

    Azure re-admits a flapping member later, and does not say how much ("Load Balancer probes"):
    here each time that it goes down soon after it came up doubles the successes that it needs.
    """

    __slots__ = ("_came_up", "_failures", "_interval", "_needed", "_successes", "_threshold", "up")

    def __init__(self, threshold: int, interval: float, up: bool | None = None) -> None:
        """``interval`` in the unit of ``result``'s times. ``up``: what was known before."""
        self.up = up
        self._threshold = threshold
        self._interval = interval
        self._needed = threshold
        self._successes = 0
        self._failures = 0
        self._came_up = float("-inf")

    @property
    def in_a_row(self) -> int:
        """The latest results of a kind; failures are negative."""
        return self._successes or -self._failures

    def result(self, success: bool, now: float) -> bool:
        """Count a result of the time ``now``; True: the health changed."""
        if success:
            self._successes += 1
            self._failures = 0
            if self.up or self._successes < self._needed:
                if self.up and now - self._came_up > FLAP_WINDOW * self._interval:
                    self._needed = self._threshold
                return False
            self.up = True
            self._came_up = now
            return True
        self._failures += 1
        self._successes = 0
        if self.up is False or self._failures < self._threshold:
            return False
        if self.up and now - self._came_up <= FLAP_WINDOW * self._interval:
            self._needed = min(2 * self._needed, LONGEST_WAIT * self._threshold)
        self.up = False
        return True


class HealthTracker:
    """Health as the engine has it. ``tell`` receives events."""

    def __init__(
        self, balancer: Balancer, lifecycle: FlowLifecycle, tell: Callable[[Event], None]
    ) -> None:
        self.balancer = balancer
        self._lifecycle = lifecycle
        self._tell = tell
        # listeners without a backend: when last reported
        self._empty: dict[tuple[int, bytes], float] = {}
        self._due = float("inf")

    def report(self, target: Target, up: bool, now: float) -> bool:
        """A target's health is this. True: flows may have lost their backend, see ``settle``."""
        first = self.balancer.health_of(target) is None
        listeners = self.balancer.report(target, up)
        for listener in listeners:
            if up and first:
                continue  # a start, not a change
            self._tell(_changed(listener, target, up, now))
        for listener in listeners:
            self._note_empty(listener, now)
        return bool(listeners) and not up

    def settle(self) -> Iterator[int | None]:
        """End the inbound flows that do not outlive their backend's state; None after each slice,
        how many were ended last."""
        table, keeps = self._lifecycle.table, self.balancer.keeps
        ended = 0
        for _, flows in table.walk(SETTLE_SLICE):
            for flow in flows:
                if flow.method not in INBOUND_RULES or flow.state in ENDED or keeps(flow):
                    continue
                self._lifecycle.end(flow)
                ended += 1
            yield None
        yield ended

    def expire(self, now: float) -> None:
        """Say again which rules are without a backend, when it is time to."""
        if now < self._due:
            return
        for listener in list(self.balancer.listeners()):
            told = self._empty.get(listener.key)
            if told is not None and now >= told + REPUBLISH:
                self._note_empty(listener, now, again=True)
        self._due = min(self._empty.values(), default=float("inf")) + REPUBLISH

    def reconfigured(self) -> None:
        """Forget what no longer exists."""
        present = {listener.key for listener in self.balancer.listeners()}
        self._empty = {key: told for key, told in self._empty.items() if key in present}

    def _note_empty(self, listener: Listener, now: float, *, again: bool = False) -> None:
        if not listener.standard or listener.probe is None:
            return
        if listener.down < len(listener.members):
            self._empty.pop(listener.key, None)
        elif again or listener.key not in self._empty:
            self._empty[listener.key] = now
            self._due = min(self._due, now + REPUBLISH)
            address = str(IPv4Address(listener.address))
            self._tell(
                NoHealthyBackends(
                    now,
                    listener.balancer,
                    listener.rule,
                    address,
                    "Tcp" if listener.protocol == TCP else "Udp",
                    listener.port,
                )
            )

    def records(self, configuration: Configuration, policy: Policy) -> Iterator[HealthRecord]:
        """Every VM behind every rule, in the order of the configuration."""
        probed = {each.target: each for each in probe_targets(configuration)}
        for listener in self.balancer.listeners():
            for member in list(listener.members.values()):
                machine = member.machine
                target = probed.get(Target(listener.balancer, listener.probe or "", machine.name))
                yield HealthRecord(
                    listener.balancer,
                    listener.rule,
                    listener.method.value,
                    listener.protocol,
                    str(IPv4Address(listener.address)),
                    listener.port,
                    machine.name,
                    str(IPv4Address(machine.address)),
                    int.from_bytes(listener.backend_port, "big"),
                    listener.probe,
                    member.up,
                    listener.takes(machine),
                    None if target is None else _denied_by(policy, target),
                )


def _denied_by(policy: Policy, target: ProbeTarget) -> str | None:
    """The rule that denies a probe, as the groups are now."""
    probe = FiveTuple(TCP, PROBE_SOURCE, _EPHEMERAL, int(target.address), target.port)
    decision = policy.inbound(probe, count=False)
    if decision.allowed:
        return None
    return f"{decision.rule_matches[-1].group}/{decision.rule_matches[-1].rule.name}"


def _changed(listener: Listener, target: Target, up: bool, now: float) -> ProbeHealthChanged:
    total = len(listener.members)
    return ProbeHealthChanged(
        now,
        target.balancer,
        target.probe,
        listener.rule,
        target.vm,
        up,
        str(IPv4Address(listener.address)),
        listener.port,
        total,
        listener.down,
    )
