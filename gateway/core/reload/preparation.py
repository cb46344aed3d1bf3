"""What a reload needs before it takes effect, worked out in slices while the old one still holds.

Depends on the gateway's state, which goes on changing meanwhile: nothing here is wrong if a flow
opens or a VM that the configuration does not name comes or goes. Changes nothing but the flows
that cannot live under the new configuration: those end here (``flow_eviction.py``).
"""

from __future__ import annotations

from collections.abc import Generator
from ipaddress import IPv4Network

from gateway.core.flow_lifecycle import FlowLifecycle
from gateway.core.inbound.listeners import Tables
from gateway.core.inbound.load_balancer import Balancer
from gateway.core.policy.address_scope import AddressScope
from gateway.core.policy.nsg import HitsToTakeOver, Policy
from gateway.core.reload.change_report import changes_between
from gateway.core.reload.flow_eviction import Eviction
from gateway.core.reload.resolved import Resolved
from gateway.core.snat.allocations import Vm
from gateway.core.snat.plan import Plan
from gateway.core.snat.plan_comparison import Share, is_settled, stays_alike
from gateway.model.configuration import Configuration

SLICE = 64  # VMs compared between two chances to handle packets

Steps = Generator[None, None, None]


class Preparation:
    """Everything that takes long; ``steps`` does it."""

    def __init__(
        self,
        before: Configuration,
        plan: Plan,
        after: Resolved,
        lifecycle: FlowLifecycle,
        balancer: Balancer,
        policy: Policy,
    ) -> None:
        """``before`` and ``plan`` are in force, as is ``policy``."""
        self._before = before
        self._plan = plan
        self._after = after
        self._lifecycle = lifecycle
        self._outbound = lifecycle.outbound
        self._balancer = balancer
        self._policy_before = policy
        configuration = after.configuration
        self.scope = scope_of(configuration)
        self.changes: list[str] = []
        self.touched: set[bytes] | None = None
        """Addresses of the VMs that anything changes for; None: perhaps for all."""
        self.made: dict[bytes, Vm] = {}
        """VMs that the configuration begins to name, by address."""
        self._wanted: dict[bytes, list[Share]] = {}

    def steps(self) -> Steps:
        """Do it all; None after each slice."""
        before, after = self._before, self._after.configuration
        for sentence in changes_between(before, after, self._plan, self._after.plan):
            if sentence is None:
                yield
            else:
                self.changes.append(sentence)
        yield from self._find_touched()
        self.tables: Tables = yield from self._balancer.prepare(after, (yield from self._named()))
        yield
        self.policy = Policy(after, self._after.groups)
        yield
        self.hits: HitsToTakeOver = yield from self.policy.hits_of(self._policy_before)
        self.eviction = Eviction(self._lifecycle, self._after.plan, self._wanted)
        fewer = bool(_prefixes(before) - _prefixes(after))
        yield from self.eviction.prepare(
            self.touched, self._balancer.gone(self.tables), self.scope if fewer else None
        )
        yield from self.eviction.sweep()

    def _find_touched(self) -> Steps:
        plan, outbound = self._after.plan, self._outbound
        addresses = {machine.name: machine.address for machine in plan.machines}
        yield
        for grant in plan.grants:
            for number, (name, ports) in enumerate(grant.ports.items(), 1):
                granted = Share(grant.address, grant.protocol, grant.flow_policy, ports)
                self._wanted.setdefault(addresses[name], []).append(granted)
                if not number % 256:
                    yield
            yield
        if not stays_alike(outbound, plan):
            return
        touched = set()
        for number, machine in enumerate(plan.machines):
            if not is_settled(outbound, machine, self._wanted.get(machine.address, ())):
                touched.add(machine.address)
            if not number % SLICE:
                yield
        self.touched = touched

    def _named(self) -> Generator[None, None, dict[str, Vm]]:
        """The VMs by the names that they will have."""
        named = {}
        for number, planned in enumerate(self._after.plan.machines):
            machine = self._outbound.machines.get(planned.address)
            if machine is None or not machine.named:
                machine = machine or Vm(planned, named=True)
                self.made[planned.address] = machine
            named[planned.name] = machine
            if not number % (4 * SLICE):
                yield
        return named

    @property
    def is_outdated(self) -> bool:
        """Whether a VM that is to get a name has come meanwhile, as another object."""
        machines = self._outbound.machines
        return any(
            machines.get(address, machine) is not machine for address, machine in self.made.items()
        )


def scope_of(configuration: Configuration) -> AddressScope:
    """A configuration's view of the address space."""
    network = configuration.virtual_network
    return AddressScope(
        network.address_prefixes,
        [subnet.address_prefix for subnet in network.subnets],
        configuration.gateway.internet_address_prefixes,
    )


def _prefixes(configuration: Configuration) -> set[IPv4Network]:
    """What decides which private addresses there may be flows of."""
    network = configuration.virtual_network
    return {*network.address_prefixes, *(subnet.address_prefix for subnet in network.subnets)}
