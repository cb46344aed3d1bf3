"""Turns a host into the gateway and back: rules, public addresses, sysctls, and a journal of them.

``install`` goes from closed to open: rules that let nothing by first, forwarding last. ``remove``
goes back in the other order. What the host had before is written down before it is changed, in
``/run/snatgw``, so that the start after a SIGKILL still knows it. A gateway whose journal is there
but whose outside interface no process claims is dead: a start that has one of its interfaces takes
over from it. What other dead gateways left stays closed until they start again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from gateway.datapath.errors import DatapathError
from gateway.datapath.fastpath.pins import Pins
from gateway.datapath.fastpath.tc_filters import detach
from gateway.datapath.guard.egress_guard import Guard
from gateway.datapath.guard.guard_choice import RETRY, AnyGuard, remove_guards, try_guard
from gateway.datapath.host.addresses_and_routes import (
    ProbeSource,
    PublicAddresses,
    read_sysctl,
    wanted_sysctls,
    write_sysctl,
)
from gateway.datapath.host.forwarding import close, note_forwarders, others_forward
from gateway.datapath.host.journal import Journal, identities
from gateway.datapath.host.netfilter_rules import DiversionPlan, bridges_are_seen
from gateway.datapath.host.netlink_events import (
    NetlinkEvents,
    of_filters,
    of_forwarding,
    of_network,
    of_rules,
)
from gateway.datapath.host.reconciler import PAUSE, RULES_LIMIT, Fights, Reconciler
from gateway.datapath.host.ruleset import Ruleset
from gateway.datapath.host.teardown import (
    Collecting,
    dead_gateways,
    inherit_sysctls,
    problems_of,
    remove_probe_source,
    take_down,
    take_over,
)
from gateway.schema.drop_reasons import DropReason

_RULES = (
    "another program removes this gateway's netfilter rules again and again: they are set again "
    f"every {PAUSE:.0f} s, and until then nothing is forwarded"
)
_ORDER = (
    "another program puts netfilter rules where this gateway's must stand again and again: its own "
    f"are moved every {PAUSE:.0f} s, and until then the guard drops what passes them by"
)
LOOK_INTERVAL = 15.0
"""Seconds (real) between checks of the host without a notification: of some changes there is
none."""


class Diversion:
    """The host's side of one gateway. Make one, ``install`` it, ``update`` it, ``remove`` it."""

    def __init__(
        self,
        plan: DiversionPlan,
        renewed: Callable[[str], None] = lambda interface: None,
        *,
        keep_filters: bool = False,
    ) -> None:
        """``renewed`` is called for an interface that was removed and created again, before any
        packet is forwarded there. ``keep_filters``: a fast path follows, which replaces an earlier
        one's on the same interfaces without a gap."""
        self._keep_filters = keep_filters
        self.leave_filters = False
        """Whether ``remove`` leaves a fast path's programs where they are."""
        self.leave_guard = False
        """Whether another start is to be expected: see ``guard_lease.py``."""
        self.guard: AnyGuard | None = None
        self.no_guard = ""  # why there is none, or not the best
        self.guards_restored = 0  # times that another program had removed it
        self.guards_gained = 0  # times that one could be had which could not be before
        self.plan = plan
        self._renewed = renewed
        self._journal: Journal | None = None
        self.rules_restored = 0  # times that another program had removed or changed them
        self.rules_moved = 0  # times that another program's stood where ours must
        self.rules_seen = 0  # times that any rules of the host had changed
        self._fights = Fights(limit=RULES_LIMIT)
        self.upkeep = Reconciler()
        self.programmed = True
        """Whether all interfaces are there, and have what they need."""
        self._network: NetlinkEvents | None = None
        self._look_due = 0.0
        self._filters: NetlinkEvents | None = None
        self._rules: NetlinkEvents | None = None
        self._forwarding: NetlinkEvents | None = None
        self._guards_outside = False
        self._forwarders_due = False
        self._guard_due = 0.0
        self._bridged = False
        self._ruleset = Ruleset()
        self._stale = False
        self._suspect = False
        self._recreated = False

    def install(self) -> None:
        """Divert packets to the queue. Raises DatapathError with everything undone again."""
        left = Journal.read(Journal.path(self.plan.outside))
        try:
            self._install(left)
        except BaseException as error:
            # What a dead gateway left stays closed for the next start; else nothing was there.
            problems = problems_of(error)
            with Collecting(problems):
                self.remove(keep_guard=left is not None)
            if not isinstance(error, (OSError, DatapathError)):
                raise
            raise DatapathError(problems) from None

    def _install(self, left: Journal | None) -> None:
        plan = self.plan
        self._put_guard()  # before anything that is let through is changed
        for interface in plan.inside:
            remove_guards(interface)  # of a gateway for which it was the outside one
        links = identities([*plan.inside, plan.outside])
        journal = Journal(list(plan.inside), plan.outside, links)
        if left is not None:
            take_over(left, journal, plan, keep_filters=self._keep_filters)
        if not self._keep_filters:  # one that left may have left them
            detach([*plan.inside, plan.outside])
            Pins(plan.outside).remove()
        dead = dead_gateways(plan)
        for other in dead:
            inherit_sysctls(other, journal)
        self._journal = journal
        journal.public_ips = [str(address) for address in plan.public_ips]
        journal.probe_source = str(plan.probe_source or "")
        self._note_sysctls()
        if self.guard is None:
            self._close()  # until the rules stand
        self._rules = of_rules()
        self._load_rules()
        for other in dead:  # now that our own rules stand where its did
            take_down(other)
        self._network = of_network()  # before what it is to watch over
        self._forwarding = of_forwarding()
        PublicAddresses(plan.outside, plan.inside).add(plan.public_ips)
        self._add_probe_source()
        self._set_sysctls()
        self.upkeep.look(plan)  # for what is there now, to know it when it goes

    def update(self, plan: DiversionPlan) -> None:
        """Change public IPs and prefixes while packets flow; the interfaces stay."""
        assert self._journal is not None
        probed = self.plan.probe_source
        before, after = set(self.plan.public_ips), set(plan.public_ips)
        addresses = PublicAddresses(plan.outside, plan.inside)
        self._journal.public_ips = [str(address) for address in sorted(before | after)]
        self._journal.probe_source = str(plan.probe_source or probed or "")
        self._journal.write()
        self.plan = plan
        if self.guard is not None:
            self.guard.change(plan)
        self._load_rules()
        addresses.add(after - before)
        addresses.remove(before - after)
        self._add_probe_source()
        if plan.probe_source is None:
            remove_probe_source(self._journal)
        self._journal.public_ips = [str(address) for address in sorted(after)]
        self._journal.probe_source = str(plan.probe_source or "")
        self._journal.write()

    def refresh(self) -> list[str]:
        """Restore what the host lost of what the gateway needs, and rules that were flushed:
        to be called now and then, and when ``fileno`` or ``network_fileno`` is readable.

        Costs two reads from sockets while nothing has changed. Returns what is wrong and could not
        be put right; the next call looks again.
        """
        assert self._journal is not None
        self.look_at_network()
        self.look_at_rules()
        plan = self.plan
        missing: list[str] = []  # the rest is put right, whatever is the matter with the guard
        with Collecting(missing):
            self.restore_guard()
        try:
            self._restore_rules()
            missing += [fight for fight in (_RULES, _ORDER) if self._fights.is_fought(fight)]
            if self._journal.closed:
                self._set_sysctls()
            self._follow_others()
            if not self._stale and time.monotonic() < self._look_due:
                return missing
            self._look_due = time.monotonic() + LOOK_INTERVAL
            self._stale, self.programmed = True, False
            there = identities([*plan.inside, plan.outside])
            for name, identity in there.items():
                if identity and identity != self._journal.links[name]:
                    self._journal.renew(name, identity)
                    self._renewed(name)
                    self._recreated = True
            self._note_sysctls()
            if self._recreated:
                # They name interfaces, so that they stood all the time; but whether the outside one
                # forwards because of us shows in what it was like before.
                self._load_rules()
                self._set_sysctls()
                self._recreated = False
            self.programmed = all(there.values())
            problems = self.upkeep.look(plan)
        except DatapathError as error:
            return [*missing, *error.problems]
        except OSError as error:
            return [*missing, f"{error.filename or plan.outside}: {error.strerror or error}"]
        self._stale = bool(problems)
        return [*missing, *problems]

    def fileno(self) -> int:
        """Readable when rules of this network namespace were changed, by us or by others."""
        assert self._rules is not None
        return self._rules.fileno()

    def network_fileno(self) -> int:
        """Readable when interfaces, addresses, routes, neighbours or settings have changed."""
        assert self._network is not None
        return self._network.fileno()

    def look_at_network(self) -> bool:
        """Take note that they changed; whether any of it may matter."""
        assert self._network is not None
        self._stale = self._network.any() or self._stale
        return self._stale

    def look_at_rules(self) -> None:
        """Take note that rules were changed: ``fileno`` is not readable any more."""
        assert self._rules is not None
        self._suspect = self._rules.any() or self._suspect

    def _restore_rules(self) -> None:
        """An ``nft flush ruleset`` removes ours as well, and forwarding is still on."""
        self._suspect = self._suspect or self._ruleset.others_changed()
        if not self._suspect:
            return
        self.rules_seen += 1
        if not self._ruleset.stand(may_move=not self._fights.waits(_ORDER)):
            self._close()  # as long as they are missing
            if not self._fights.may(_RULES):
                raise DatapathError([_RULES])
            self._load_rules()
            self.rules_restored += 1
        if self._ruleset.moved != self.rules_moved:
            self._fights.may(_ORDER)
        elif self._ruleset.unplaced and self.guard is None:
            self._close()
            raise DatapathError([_ORDER])
        self.rules_moved = self._ruleset.moved
        self._suspect = self._ruleset.unplaced

    def dropped_by_rules(self) -> Mapping[DropReason, int]:
        """Packets that the gateway's rules have dropped since the start, by reason. Costs a few
        requests to the kernel."""
        self._ruleset.counters.read()
        return self._ruleset.counters.totals

    def remove(self, *, keep_guard: bool = False) -> None:
        """Put the host back as it was. Raises DatapathError for what could not be undone.

        ``keep_guard``: where it was not diverted at all yet.
        """
        for notices in (self._network, self._filters, self._rules, self._forwarding):
            if notices is not None:
                notices.close()
        self._network = self._filters = self._rules = self._forwarding = None
        journal, self._journal = self._journal, None
        guard, self.guard = self.guard, None
        try:
            if journal is not None:
                take_down(journal, leave_filters=self.leave_filters, leave_guard=self.leave_guard)
            elif not keep_guard:
                remove_guards(self.plan.outside)
        finally:
            if guard is not None:
                guard.close()

    def __enter__(self) -> Diversion:
        self.install()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def _load_rules(self) -> None:
        assert self._journal is not None
        self._guards_outside = self._forwards_for_us_alone()
        self._bridged = bridges_are_seen()
        # Whatever is changed from here on leads to another look: also what we do ourselves.
        if self._rules is not None:
            self._rules.any()
        self._ruleset.load(self.plan, guard_outside=self._guards_outside, bridged=self._bridged)

    def _forwards_for_us_alone(self) -> bool:
        """Whether the outside interface forwards because of this gateway, and no other program."""
        assert self._journal is not None
        turned_on = (self.plan.outside, "forwarding", "0") in self._journal.sysctls
        return turned_on and not others_forward(self._journal)

    def _follow_others(self) -> None:
        """Docker, libvirt or LXD make a router of the host, or have netfilter see bridges."""
        assert self._journal is not None
        assert self._forwarding is not None
        self._forwarders_due = self._forwarding.any() or self._forwarders_due
        if self._forwarders_due:
            before = self._journal.forwarders
            note_forwarders(self._journal)
            if self._journal.forwarders != before:
                self._journal.write()
        changed = self._forwarders_due and self._forwards_for_us_alone() != self._guards_outside
        if changed or bridges_are_seen() != self._bridged:
            self._load_rules()
        self._forwarders_due = False

    def guard_fileno(self) -> int:
        """Readable when filters were changed on any interface: ``restore_guard`` then."""
        assert self._filters is not None
        return self._filters.fileno()

    def restore_guard(self) -> None:
        """Restore the guard, if it was removed; costs next to nothing. Where the best
        cannot be had, it is tried again now and then. Raises DatapathError."""
        if self._filters is not None:
            self._filters.any()
        guard = self.guard
        if not isinstance(guard, Guard) and time.monotonic() >= self._guard_due:
            found, self.no_guard = try_guard(self.plan, guard)
            self.guards_gained += found is not guard
            self.guard = guard = found
            self._guard_due = time.monotonic() + RETRY
        if guard is not None and not guard.stands():
            before = guard.interface
            if not isinstance(guard, Guard):
                self._close()  # what flushed it has flushed the rules, too
            guard.put()
            self.guards_restored += guard.interface == before  # else the interface is another one

    def _put_guard(self) -> None:
        self._filters = of_filters()
        self.guard, self.no_guard = try_guard(self.plan, None)
        self._guard_due = time.monotonic() + RETRY

    def _close(self) -> None:
        """Nothing is forwarded from inside; and nothing from outside either, by which others may
        send, where there is no guard."""
        assert self._journal is not None
        outside = () if self.guard is not None else (self.plan.outside,)
        close(self._journal, (*self.plan.inside, *outside))

    def _add_probe_source(self) -> None:
        if self.plan.probe_source is not None:
            ProbeSource(self.plan.probe_source, self.plan.inside).add()

    def _note_sysctls(self) -> None:
        """Write down what will change, before anything does."""
        assert self._journal is not None
        known = {(interface, name) for interface, name, _ in self._journal.sysctls}
        note_forwarders(self._journal)
        for interface, name, _ in wanted_sysctls(self.plan.inside, self.plan.outside):
            if (interface, name) not in known:
                self._journal.sysctls.append((interface, name, read_sysctl(interface, name)))
        self._journal.write()

    def _set_sysctls(self) -> None:
        wanted = wanted_sysctls(self.plan.inside, self.plan.outside)
        # Forwarding last: until then no packet passes, whatever is still missing.
        for interface, name, value in sorted(wanted, key=lambda item: item[1] == "forwarding"):
            write_sysctl(interface, name, value)
        assert self._journal is not None
        if self._journal.closed:
            self._journal.closed = False
            self._journal.write()
