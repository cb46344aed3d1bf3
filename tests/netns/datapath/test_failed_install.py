"""A start that fails at whatever step leaves nothing: no rule, no guard, no socket."""

from __future__ import annotations

import json

import pytest

from tests.netns.datapath.conftest import PLAN, Gateway, host_state
from tests.netns.datapath.topology import Namespaces

STEPS = (
    "of_filters",
    "try_guard",
    "remove_guards",
    "identities",
    "detach",
    "Pins",
    "dead_gateways",
    "note_forwarders",
    "wanted_sysctls",
    "of_rules",
    "bridges_are_seen",
    "Ruleset.load",
    "of_network",
    "of_forwarding",
    "PublicAddresses",
    "write_sysctl",
    "Reconciler.look",
)
SCRIPT = """
import json, os, sys
from gateway.datapath.host import diversion
from gateway.datapath.errors import DatapathError
from gateway.datapath.host.netfilter_rules import QueueNumbers
from tests.netns.datapath.one_to_one import plan_from
from unittest.mock import patch

plan, _ = plan_from(sys.argv[1], QueueNumbers(77, 78))
step, kind = sys.argv[2:]
error = {"OSError": OSError(5, "broken"), "DatapathError": DatapathError(["broken"]),
         "ValueError": ValueError("broken")}[kind]
failed = []

def fails(*arguments, **named):
    if failed:
        return real(*arguments, **named)
    failed.append(step)
    raise error

owner, _, name = step.rpartition(".")
place = getattr(diversion, owner) if owner else diversion
real = getattr(place, name)
before = os.listdir("/proc/self/fd")
try:
    with patch.object(place, name, fails):
        diversion.Diversion(plan).install()
except (DatapathError, ValueError) as error:
    print(type(error).__name__, failed, len(os.listdir("/proc/self/fd")) - len(before))
"""


def left(net: Namespaces) -> list[str]:
    return [
        net.run("gw", "tc", "filter", "show", "dev", "wan0", "egress"),
        net.run("gw", "nft", "list", "tables"),
    ]


@pytest.mark.parametrize(
    ("kind", "steps"),
    [("OSError", STEPS), ("DatapathError", ["Ruleset.load"]), ("ValueError", ["Reconciler.look"])],
)
def test_nothing_is_left_of_a_start_that_failed(
    net: Namespaces, kind: str, steps: list[str]
) -> None:
    net.sysctl("gw", "net/ipv4/conf/wan0/forwarding", "0")
    net.run("gw", "tc", "qdisc", "add", "dev", "wan0", "clsact")
    Gateway(net).remove()  # tables that iptables makes stay
    before = host_state(net), left(net)
    raised = "ValueError" if kind == "ValueError" else "DatapathError"
    for step in steps:
        said = net.python("gw", SCRIPT, json.dumps(PLAN), step, kind)
        assert said == f"{raised} ['{step}'] 0\n", step
        assert (host_state(net), left(net)) == before, step


def test_what_a_dead_gateway_left_stays_closed_when_a_start_fails(net: Namespaces) -> None:
    Gateway(net).kill()
    before = host_state(net)["iptables-save"]
    assert "Error" in net.python("gw", SCRIPT, json.dumps(PLAN), "identities", "OSError")
    assert host_state(net)["iptables-save"] == before
    assert "0xac57" in left(net)[0]
    Gateway(net).remove()
    assert "bytecode" not in left(net)[0]
