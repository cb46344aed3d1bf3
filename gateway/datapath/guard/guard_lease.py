"""A guard for the time between two daemons, where the host forwards by itself.

SIGTERM, and Ctrl-C at a terminal, are mostly half of a restart. On a host that forwarded before
there was a gateway, what VMs send would leave untranslated until the next daemon's rules stand. So
the guard stays for a while; where there is none, nothing is forwarded from inside for as long. And
``python -m gateway.datapath.guard.guard_lease``, a process that outlives the daemon, puts an end to
that if no daemon came: then the host is as it was.
"""

from __future__ import annotations

import contextlib
import sys
import time

from gateway.datapath.errors import DatapathError
from gateway.datapath.fastpath.lease import LEASE, clearing, outlive
from gateway.datapath.guard import guard_choice
from gateway.datapath.host.forwarding import restore_sysctls
from gateway.datapath.host.interface_lock import is_claimed
from gateway.datapath.host.journal import Journal


def grant(outside: str) -> bool:
    """Leave the guard that stands there, or what is closed, for ``LEASE`` seconds; False: no
    process would take it away."""
    identity = guard_choice.identity(outside)
    try:
        outlive("gateway.datapath.guard.guard_lease", outside, identity)
    except OSError:
        return False
    return True


def main() -> None:
    """The arguments: the interface, and which guard."""
    outside, identity = sys.argv[1:]
    time.sleep(LEASE)
    with clearing(), contextlib.suppress(DatapathError):
        if is_claimed(outside) or guard_choice.identity(outside) != identity:
            return
        journal = None if identity else Journal.read(Journal.path(outside))
        if identity:
            guard_choice.remove_guards(outside)
        elif journal is not None and journal.closed:
            restore_sysctls(journal, journal.sysctls)
            journal.erase()


if __name__ == "__main__":
    main()
