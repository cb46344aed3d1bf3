"""What fails while the host is looked at, whatever it is, is one warning and tried again."""

from __future__ import annotations

import errno
import os
import subprocess
from ipaddress import IPv4Address, IPv4Network
from types import SimpleNamespace
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from gateway.daemon.engine_process.guard_monitor import GuardMonitor
from gateway.daemon.engine_process.host import _LinuxDiverted
from gateway.daemon.engine_process.host_monitor import HostMonitor
from gateway.datapath.errors import DatapathError
from gateway.datapath.firewall.background_scan import FirewallLook
from gateway.datapath.firewall.packet_paths import Crossing
from gateway.datapath.host import (
    addresses_and_routes,
    diversion,
    fragment_marks,
    netfilter,
    ruleset,
)
from gateway.datapath.host.diversion import Diversion
from gateway.datapath.host.netfilter_rules import DiversionPlan, QueueNumbers

PLAN = DiversionPlan(
    inside=("lan0",),
    outside="wan0",
    public_ips=(IPv4Address("203.0.113.10"),),
    private_prefixes=(IPv4Network("10.0.0.0/16"),),
    queues=QueueNumbers(1, 1),
)
FULL = OSError(errno.EMFILE, "Too many open files")
REFUSED = DatapathError(["the kernel refuses"])
OF_THE_MODULE = (
    "close",
    "try_guard",
    "write_sysctl",
    "note_forwarders",
    "others_forward",
    "bridges_are_seen",
    "identities",
    "wanted_sysctls",
    "read_sysctl",
)
STEPS = (
    "guard.stands",
    "guard.put",
    "ruleset.others_changed",
    "ruleset.stand",
    "ruleset.load",
    "journal.write",
    "journal.renew",
    "upkeep.look",
    "announcer.look",
    "firewall.news",
    *OF_THE_MODULE,
)


class Host:
    """A host on which every step of a look is taken, and one may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.failing, self.error = "", FULL
        self.taken: list[str] = []
        self.events: list[tuple[str, list[str]]] = []
        answers: dict[str, Any] = {
            "guard.stands": False,
            "ruleset.others_changed": True,
            "ruleset.stand": False,
            "try_guard": (None, ""),
            "others_forward": False,
            "bridges_are_seen": True,
            "identities": {"lan0": "1", "wan0": "2"},
            "wanted_sysctls": [("lan0", "forwarding", "1")],
            "read_sysctl": "0",
            "upkeep.look": [],
        }
        parts: dict[str, SimpleNamespace] = {}
        for name in STEPS:
            owner, _, method = name.rpartition(".")
            step = self._step(name, answers.get(name))
            if not owner:
                monkeypatch.setattr(diversion, name, step)
            else:
                setattr(parts.setdefault(owner, SimpleNamespace()), method, step)
        monkeypatch.setattr(diversion, "LOOK_INTERVAL", 0.0)
        parts["firewall"].again = lambda: None
        notices = SimpleNamespace(any=lambda: True)
        parts["ruleset"].moved, parts["ruleset"].unplaced = 0, False
        parts["guard"].interface = "2"
        monkeypatch.setattr(diversion, "Guard", SimpleNamespace)
        parts["upkeep"].restored = []
        # An interface that was made again has the rest of the steps taken.
        journal = SimpleNamespace(
            links={"lan0": "", "wan0": ""},
            sysctls=[("wan0", "forwarding", "0")],
            forwarders=None,
            closed=True,
            **vars(parts["journal"]),
        )
        self.diversion = made = Diversion(PLAN)
        fakes = {
            "_journal": journal,
            "_ruleset": parts["ruleset"],
            "guard": parts["guard"],
            "upkeep": parts["upkeep"],
            **dict.fromkeys(("_network", "_filters", "_forwarding"), notices),
            "_rules": SimpleNamespace(any=lambda: False),
        }
        for attribute, fake in fakes.items():
            setattr(made, attribute, fake)
        monkeypatch.setattr(
            diversion, "note_forwarders", self._step("note_forwarders", None, journal)
        )
        announcer, firewall = parts["announcer"], parts["firewall"]
        announcer.carries, announcer.announced, announcer.answered = True, 0, 0
        self.diverted = _LinuxDiverted(made, announcer, set(), firewall, [])  # type: ignore[arg-type]
        self.watch = HostMonitor(self.diverted, "none here", self._own_event)

    def _step(self, name: str, answer: Any, journal: SimpleNamespace | None = None) -> Any:
        def take(*_: object, **__: object) -> Any:
            self.taken.append(name)
            if journal is not None:
                journal.forwarders = [*(journal.forwarders or []), "changed"]
            if name == self.failing:
                raise self.error
            return answer

        return take

    def _own_event(self, operation: str, level: str, properties: dict[str, Any]) -> None:
        self.events.append((operation, properties.get("problems", [])))


@pytest.mark.parametrize("error", [FULL, REFUSED], ids=["OSError", "DatapathError"])
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_is_one_warning_and_taken_again(
    monkeypatch: pytest.MonkeyPatch, step: str, error: OSError
) -> None:
    host = Host(monkeypatch)
    host.failing, host.error = step, error
    if step == "try_guard":
        host.diversion.guard = None
    host.watch.tick()
    assert step in host.taken
    problems = host.watch.status()["problems"]
    assert len(problems) == 1
    host.taken.clear()
    host.watch.tick()
    assert step in host.taken
    told = [told for operation, told in host.events if operation == "HostChanged"]
    assert told == [problems]
    host.failing = ""
    host.watch.tick()
    assert host.watch.status()["problems"] == []


def test_what_the_guard_cannot_do_at_once_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch)
    host.failing = "guard.put"
    watch = GuardMonitor(host.diverted, lambda reason, n: None, lambda *_: None)
    watch._filters_changed()
    assert "guard.put" in host.taken


@pytest.mark.parametrize(
    "error", [subprocess.TimeoutExpired("nft", 30), FULL, BlockingIOError(errno.EAGAIN, "again")]
)
def test_a_command_that_cannot_be_run_is_a_problem_of_the_datapath(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    monkeypatch.setattr(fragment_marks, "available", lambda: True)
    rules = ruleset.Ruleset()
    for call in (
        lambda: fragment_marks.standing("wan0"),
        lambda: fragment_marks.load(PLAN),
        lambda: netfilter.IPV4.standing("wan0"),
        lambda: rules.load(PLAN, guard_outside=True),
    ):
        with pytest.raises(DatapathError):
            call()


def test_a_comment_in_other_letters_comes_back_as_it_was() -> None:
    said = netfilter.run(["printf", r"-A FORWARD -m comment \351\n"], package="coreutils")
    assert said.encode(errors="surrogateescape") == b"-A FORWARD -m comment \xe9\n"


def test_an_interface_that_cannot_be_asked_for_is_an_os_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Refusing:
        def __enter__(self) -> Refusing:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def link_lookup(self, **_: object) -> None:
            raise NetlinkError(errno.ENOBUFS, "no buffer space")

    monkeypatch.setattr(addresses_and_routes, "IPRoute", Refusing)
    with pytest.raises(OSError, match="No buffer space"):
        addresses_and_routes.find_link("wan0")


@pytest.mark.parametrize("place", ["memfd_create", "Popen"])
def test_a_firewall_that_cannot_be_looked_at_now_is_looked_at_later(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FULL

    look = FirewallLook(Crossing(("lan0",), "wan0", PLAN.public_ips, PLAN.private_prefixes))
    monkeypatch.setattr(os if place == "memfd_create" else subprocess, place, fail)
    assert look.news() is None
    assert look._due
