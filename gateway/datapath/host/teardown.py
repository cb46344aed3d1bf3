"""Taking down what a gateway made of the host, by its journal: at its end, or after it died.

Also: which gateways died here, and going on where one stopped without an open moment in between.
"""

from __future__ import annotations

import contextlib
import os
from ipaddress import IPv4Address
from types import TracebackType

from gateway.datapath.errors import DatapathError
from gateway.datapath.fastpath.pins import Pins
from gateway.datapath.fastpath.tc_filters import detach
from gateway.datapath.guard import guard_choice, guard_lease
from gateway.datapath.host import fragment_marks
from gateway.datapath.host.addresses_and_routes import ProbeSource, PublicAddresses, read_sysctl
from gateway.datapath.host.forwarding import close, restore_sysctls
from gateway.datapath.host.interface_lock import is_claimed
from gateway.datapath.host.journal import JOURNALS, Journal
from gateway.datapath.host.netfilter import IPV4, IPV6
from gateway.datapath.host.netfilter_rules import DiversionPlan, instance_name

_TURNED_ON = ("forwarding", "0")  # by us: what was before


def dead_gateways(plan: DiversionPlan) -> list[Journal]:
    """Gateways with another outside interface that died without a word and shared one with us.

    A gateway lives while it claims its outside interface (``interface_lock.py``); ours is claimed
    by us.
    """
    ours = {*plan.inside, plan.outside}
    found = []
    for path in sorted(JOURNALS.glob(f"*.{os.stat('/proc/self/ns/net').st_ino}.json")):
        journal = Journal.read(path)
        if journal is None or journal.outside == plan.outside:
            continue
        shared = ours & {*journal.inside, journal.outside}
        if shared and (journal.outside in shared or not is_claimed(journal.outside)):
            found.append(journal)
    return found


def inherit_sysctls(dead: Journal, journal: Journal) -> None:
    """The originals of interfaces that continue to be a gateway's."""
    ours = {*journal.inside, journal.outside}
    known = {(interface, name) for interface, name, _ in journal.sysctls}
    shared = [entry for entry in dead.sysctls if entry[0] in ours]
    journal.sysctls += [entry for entry in shared if entry[:2] not in known]
    dead.sysctls = [entry for entry in dead.sysctls if entry not in shared]
    if journal.forwarders is None:
        journal.forwarders = dead.forwarders


def take_over(left: Journal, journal: Journal, plan: DiversionPlan, *, keep_filters: bool) -> None:
    """Continue where a crash stopped, opening nothing: its rules stay until ours replace them.

    The originals of sysctls are what the dead gateway found, not what it made of them.
    """
    interfaces = {*plan.inside, plan.outside}
    kept = interfaces if keep_filters else set()
    detach({*left.inside, left.outside} - kept)
    journal.forwarders = left.forwarders
    journal.sysctls += [entry for entry in left.sysctls if entry[0] in interfaces]
    restore_sysctls(left, [entry for entry in left.sysctls if entry[0] not in interfaces])
    stale = {IPv4Address(address) for address in left.public_ips} - set(plan.public_ips)
    PublicAddresses(left.outside, left.inside).remove(stale)
    remove_probe_source(left)


def remove_probe_source(journal: Journal) -> None:
    """Give the address up, which another gateway here may use: it has a route of its own for it."""
    if journal.probe_source:
        ProbeSource(IPv4Address(journal.probe_source), journal.inside).remove()


def take_down(journal: Journal, *, leave_filters: bool = False, leave_guard: bool = False) -> None:
    """Forwarding off, then addresses, then the rules, and the guard last: nothing is ever open on
    the way. ``leave_guard``: for the time until a next daemon is there, if it is needed; where
    there is none, the inside interfaces do not forward for as long."""
    problems: list[str] = []
    if not leave_filters:
        detach([*journal.inside, journal.outside])
        Pins(journal.outside).remove()
    ours = {interface for interface, name, old in journal.sysctls if (name, old) == _TURNED_ON}
    opened = [name for name in journal.inside if name not in ours and _forwards(name)]
    closed = bool(leave_guard and opened and not guard_choice.identity(journal.outside))
    with Collecting(problems):
        if closed:
            close(journal, opened)
    with Collecting(problems):
        kept = {(name, "forwarding", "1") for name in opened} if closed else set()
        restore_sysctls(journal, [entry for entry in journal.sysctls if entry not in kept])
    with Collecting(problems):
        PublicAddresses(journal.outside, journal.inside).remove(
            IPv4Address(address) for address in journal.public_ips
        )
    with Collecting(problems):
        remove_probe_source(journal)
    instance = instance_name(journal.outside)
    with Collecting(problems):
        IPV4.remove(instance)
    if IPV6.available():
        with Collecting(problems):
            IPV6.remove(instance)
    with Collecting(problems):
        fragment_marks.remove(instance)
    if closed and not problems and guard_lease.grant(journal.outside):
        journal.public_ips, journal.probe_source = [], ""
        journal.sysctls = sorted(kept)
        journal.write()  # for the next start, or for the lease's end
        return
    if closed:
        with Collecting(problems):
            restore_sysctls(journal, sorted(kept))
    needed = leave_guard and any(_forwards(interface) for interface in journal.inside)
    if closed or not (needed and guard_lease.grant(journal.outside)):
        with Collecting(problems):
            guard_choice.remove_guards(journal.outside)
    if problems:
        raise DatapathError(problems)  # the journal stays: the next start tries again
    journal.erase()


def problems_of(error: BaseException) -> list[str]:
    """Lines that say what went wrong."""
    if isinstance(error, DatapathError):
        return error.problems
    if isinstance(error, OSError):
        return [f"{error.filename or 'the diversion'}: {error.strerror or error}"]
    return []


class Collecting(contextlib.AbstractContextManager[None]):
    """Continue after a DatapathError or an OSError, keeping its problems."""

    def __init__(self, problems: list[str]) -> None:
        self._problems = problems

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, DatapathError):
            self._problems += error.problems
            return True
        if isinstance(error, OSError):
            self._problems.append(f"{error.filename or 'the host'}: {error.strerror or error}")
            return True
        return False


def _forwards(interface: str) -> bool:
    try:
        return read_sysctl(interface, "forwarding") == "1"
    except OSError:
        return False  # there is no such interface any more
