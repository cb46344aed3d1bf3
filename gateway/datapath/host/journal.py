"""What a gateway changed on this host and what was there before: a file in ``/run/snatgw``.

Written before anything is changed, so that the start after a SIGKILL still knows it. Interfaces are
known again by index and hardware address: another by the same name has nothing to be restored.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gateway.datapath.host.netfilter_rules import instance_name
from gateway.datapath.host.netlink_tables import Tables

JOURNALS = Path("/run/snatgw")


@dataclass
class Journal:
    """What a gateway changed on this host, and what was there before."""

    inside: list[str]
    outside: str
    links: dict[str, str]  # interface: index and hardware address, to know it again
    public_ips: list[str] = field(default_factory=list)
    sysctls: list[tuple[str, str, str]] = field(default_factory=list)  # interface, name, old value
    probe_source: str = ""  # the address that probes are sent from, if there are any
    forwarders: list[str] | None = None  # see ``forwarding.py``
    closed: bool = False  # forwarding was turned off for the time until the next start

    @classmethod
    def path(cls, outside: str) -> Path:
        """Network namespaces share /run; their interfaces may have the same names."""
        namespace = os.stat("/proc/self/ns/net").st_ino
        return JOURNALS / f"{instance_name(outside)}.{namespace}.json"

    def write(self) -> None:
        """Replace the file by what is noted now."""
        path = self.path(self.outside)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """A journal, as far as it is about interfaces that are still the same ones; or None."""
        try:
            journal = cls(**json.loads(path.read_text()))
            journal.sysctls = [(str(a), str(b), str(c)) for a, b, c in journal.sysctls]
            now = identities([*journal.inside, journal.outside])
            same = {name for name, identity in journal.links.items() if identity == now[name]}
        except (OSError, ValueError, TypeError, KeyError):
            return None
        journal.sysctls = [entry for entry in journal.sysctls if entry[0] in same]
        return journal if same else None

    def renew(self, interface: str, identity: str) -> None:
        """Another interface has the name now: what the one before was like is of no use."""
        self.links[interface] = identity
        self.sysctls = [entry for entry in self.sysctls if entry[0] != interface]

    def erase(self) -> None:
        """Remove the file: nothing is left to restore."""
        self.path(self.outside).unlink(missing_ok=True)


def identities(interfaces: list[str]) -> dict[str, str]:
    """What each interface is known again by; empty: there is none by this name."""
    with Tables() as tables:
        links = {name: tables.link(name) for name in interfaces}
    return {
        name: "" if link is None else f"{link.number} {link.hardware.hex(':')}"
        for name, link in links.items()
    }
