"""A guard for the time between two daemons, where the host forwards by itself.

SIGTERM, and Ctrl-C at a terminal, are mostly half of a restart. On a host that forwarded before
there was a gateway, what VMs send would leave untranslated until the next daemon's rules stand. So
the guard stays for a while, and ``python -m gateway.datapath.guard_lease``, a process that outlives
the daemon, takes it away if nobody came: then the host is as it was.
"""

from __future__ import annotations

import contextlib
import sys
import time

from gateway.datapath import guard
from gateway.datapath.claims import is_claimed
from gateway.datapath.errors import DatapathError
from gateway.datapath.fastpath.leaving import LEASE, clearing, outlive


def grant(outside: str) -> bool:
    """Leave the guard that stands there for ``LEASE`` seconds; False: nobody would take it away."""
    identity = guard.identity(outside)
    if not identity:
        return False
    try:
        outlive("gateway.datapath.guard_lease", outside, identity)
    except OSError:
        return False
    return True


def main() -> None:
    """The arguments: the interface, and which guard."""
    outside, identity = sys.argv[1:]
    time.sleep(LEASE)
    with clearing(), contextlib.suppress(DatapathError):
        if not is_claimed(outside) and guard.identity(outside) == identity:
            guard.remove(outside)


if __name__ == "__main__":
    main()
