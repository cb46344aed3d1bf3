"""Whether others made a router of this host after a gateway had turned forwarding on for itself.

Docker, libvirt and LXD write ``net.ipv4.ip_forward``, networkd writes an interface's own setting.
Our interfaces forward already, so that there is nothing to be seen at them. What shows it is
whatever else forwards now and did not when we began, other gateways aside.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable

from gateway.datapath.errors import DatapathError
from gateway.datapath.host import sysctl
from gateway.datapath.host.addresses_and_routes import find_link, read_sysctl, write_sysctl
from gateway.datapath.host.journal import JOURNALS, Journal

ALL = "all"
WRITTEN = {"forwarding": "1", "rp_filter": "2", "proxy_delay": "0"}
"""What a gateway writes, of whatever interface: see ``interfaces.wanted_sysctls``."""


def forwarders() -> set[str]:
    """The interfaces that forward; ``all``: the host's own switch is on."""
    found = set()
    for index in sysctl.forwarding():
        if index == sysctl.ALL:
            found.add(ALL)
        elif index > 0:
            with contextlib.suppress(OSError):
                found.add(socket.if_indextoname(index))
    return found - {"lo"}


def others_forward(journal: Journal) -> bool:
    """Whether the host forwards for others too since the journal was begun.

    Where its switch was on and our interface off, that was on purpose, and no program has changed
    it.
    """
    before = journal.forwarders
    if before is None or ALL in before:
        return False
    return bool(forwarders() - {*before, *_of_gateways(), *journal.inside, journal.outside})


def note_forwarders(journal: Journal) -> None:
    """Have what forwards before we do in the journal. What has stopped since is forgotten: if it
    begins again, another program wants it."""
    now = forwarders()
    journal.forwarders = sorted(now if journal.forwarders is None else now & {*journal.forwarders})


def _of_gateways() -> set[str]:
    found: set[str] = set()
    for path in JOURNALS.glob(f"*.{os.stat('/proc/self/ns/net').st_ino}.json"):
        other = Journal.read(path)
        if other is not None:
            found |= {*other.inside, other.outside}
    return found


def close(journal: Journal, interfaces: Iterable[str]) -> None:
    """Have these interfaces forward nothing, and what they did in the journal before.

    Raises DatapathError.
    """
    forwarding = [
        name
        for name in interfaces
        if find_link(name) is not None and read_sysctl(name, "forwarding") != "0"
    ]
    known = {interface for interface, name, _ in journal.sysctls if name == "forwarding"}
    journal.sysctls += [(name, "forwarding", "1") for name in forwarding if name not in known]
    journal.closed = True
    journal.write()
    for name in forwarding:
        write_sysctl(name, "forwarding", "0")


def restore_sysctls(journal: Journal, entries: list[tuple[str, str, str]]) -> None:
    """Write back what an interface had, unless another program has changed it since.

    Forwarding first, so that nothing is open on the way. Raises DatapathError.
    """
    others = others_forward(journal)
    problems: list[str] = []
    for interface, name, old in sorted(entries, key=lambda entry: entry[1] != "forwarding"):
        if find_link(interface) is None or (name == "forwarding" and others):
            continue
        try:
            closed = journal.closed and name == "forwarding"
            if read_sysctl(interface, name) in (WRITTEN[name], "0" if closed else WRITTEN[name]):
                write_sysctl(interface, name, old)
        except DatapathError as error:
            problems += error.problems
        except OSError:
            continue  # it went meanwhile
    if problems:
        raise DatapathError(problems)
