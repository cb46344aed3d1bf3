"""The installed service under a real systemd, with every restriction of its unit in force."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.netns.gateway import DEFAULT, FRONTENDS, configuration
from tests.netns.install.conftest import ROOT
from tests.netns.install.machine import Machine
from tests.netns.topology import SERVER, SERVER2, Topology, eventually

FILE = "/etc/snatgw/snatgw.yaml"
UNIT = "/etc/systemd/system/snatgw.service"


@pytest.fixture
def machine(fresh: Topology, installed: Path) -> Iterator[Machine]:
    with Machine(fresh, "gw", installed) as machine:
        yield machine


def configure(machine: Machine, **settings: Any) -> None:
    text = yaml.safe_dump(configuration(**settings))
    machine.run("sh", "-c", f'printf %s "$1" >{FILE}', "sh", text)


def show(machine: Machine, name: str) -> str:
    return machine.run("systemctl", "show", "--value", "-p", name, "snatgw").strip()


def status(machine: Machine) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(machine.run("snatgw", "status", "--json"))
    return document


def test_the_service_translates_reloads_and_leaves_nothing(
    fresh: Topology, machine: Machine
) -> None:
    vm1 = fresh.client("vm1")
    before = machine.shell("iptables-save | grep -v '^#'; sysctl -a 2>/dev/null | grep ipv4.conf")
    configure(machine, flowLogs="both")
    machine.run("systemctl", "enable", "--now", "snatgw")
    assert "ready: lan0 -> wan0" in machine.journal()
    assert vm1.peer("Tcp", SERVER).startswith(f"{DEFAULT}:")
    assert vm1.echo(SERVER) == "whole"
    assert status(machine)["fastPath"]["active"], status(machine)["fastPath"]

    configure(machine, flowLogs="both", maximumFlows=77)
    machine.run("systemctl", "reload", "snatgw")
    assert status(machine)["maximumFlows"] == 77
    machine.run("sh", "-c", f"echo nonsense: 1 >>{FILE}")
    machine.run("systemctl", "reload", "snatgw", status=1)
    assert f"{FILE}:" in machine.journal()
    assert "nonsense: unknown key" in machine.journal()
    assert vm1.peer("Tcp", SERVER2).startswith(f"{DEFAULT}:")

    machine.run("systemctl", "stop", "snatgw")
    assert show(machine, "Result") == "success"
    # The API process had its moment to write the end down, in its own directory.
    assert '"Stopped"' in machine.run("cat", "/var/lib/snatgw/events.jsonl")
    assert machine.shell("find -L /var/lib/snatgw/flow-logs -name '*.json'") != ""
    after = machine.shell("iptables-save | grep -v '^#'; sysctl -a 2>/dev/null | grep ipv4.conf")
    assert [line for line in after.splitlines() if not line.startswith(("*", ":", "COMMIT"))] == [
        line for line in before.splitlines() if not line.startswith(("*", ":", "COMMIT"))
    ]


def test_it_is_started_again_after_a_crash_and_takes_over(
    fresh: Topology, machine: Machine
) -> None:
    configure(machine)
    machine.run("systemctl", "start", "snatgw")
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "snatgw")
    eventually(lambda: show(machine, "NRestarts"), lambda count: count == "1")
    eventually(lambda: show(machine, "ActiveState"), lambda state: state == "active")
    assert fresh.client("vm2").peer("Tcp", SERVER).split(":")[0] in FRONTENDS
    machine.run("systemctl", "stop", "snatgw")
    # What the dead one had found there is what the next one put back.
    assert machine.run("cat", "/proc/sys/net/ipv4/conf/lan0/forwarding") == "0\n"
    assert "snatgw" not in machine.run("iptables-save")


def test_a_configuration_with_mistakes_fails_with_all_of_them(machine: Machine) -> None:
    configure(machine, outside="nowan0", inside=["nolan0"])
    machine.run("systemctl", "start", "snatgw", status=1)
    said = machine.journal()
    assert "snatgw: nolan0: there is no such interface (gateway.inside)" in said
    assert "snatgw: nowan0: there is no such interface (gateway.outside)" in said


def test_the_restrictions_are_in_force(machine: Machine) -> None:
    """Else the tests above would show nothing."""
    configure(machine)
    machine.run("systemctl", "start", "snatgw")
    engine = show(machine, "MainPID")
    fields = dict(
        line.split(":\t", 1)
        for line in machine.run("cat", f"/proc/{engine}/status").splitlines()
        if ":\t" in line
    )
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    # CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF
    assert int(fields["CapBnd"], 16) == int(fields["CapEff"], 16) == 1 << 12 | 1 << 13 | 1 << 39
    mounts = machine.run("cat", f"/proc/{engine}/mountinfo").splitlines()
    writable = {line.split()[4] for line in mounts if "rw" in line.split()[5].split(",")}
    for place in ("/", "/etc", "/usr", "/sys", "/proc/sys", "/home", "/root"):
        assert place not in writable
    assert {"/run/snatgw", "/var/lib/snatgw", "/proc/sys/net/ipv4/conf"} <= writable
    # A look at the host's firewall is a child, too, and soon over.
    (supervisor,) = eventually(
        lambda: machine.run("cat", f"/proc/{engine}/task/{engine}/children").split(),
        lambda found: len(found) == 1,
    )
    (api,) = machine.run("cat", f"/proc/{supervisor}/task/{supervisor}/children").split()
    assert machine.run("stat", "-c", "%U:%G", f"/proc/{api}").strip() == "snatgw:snatgw"
    assert machine.run("stat", "-c", "%U:%G:%a", "/run/snatgw/api.sock") == "root:snatgw:660\n"


def test_the_unit_is_valid_and_little_exposed(machine: Machine) -> None:
    assert machine.run("systemd-analyze", "verify", UNIT) == ""
    machine.run("systemd-analyze", "security", "--offline=true", "--threshold=39", UNIT)
    machine.run("systemd-analyze", "security", "--offline=true", "--threshold=20", UNIT, status=1)


def test_each_shell_finds_the_completion_by_itself(machine: Machine) -> None:
    assert machine.run("fish", "-c", "complete -C 'snatgw fl'").startswith("flows")
    found = machine.run(
        "bash", "-c",
        ". /usr/share/bash-completion/bash_completion; _completion_loader snatgw; "
        "COMP_WORDS=(snatgw fl); COMP_CWORD=1; _snatgw_completion snatgw fl; echo ${COMPREPLY[@]}",
    )  # fmt: skip
    assert found == "flows\n"
    zsh = "autoload -Uz compinit; compinit -D -u; print $_comps[snatgw]; _snatgw; whence -w _snatgw_completion"
    assert "_snatgw_completion" in machine.run("zsh", "-f", "-c", zsh)


def test_installing_again_and_removing_on_a_running_system(machine: Machine) -> None:
    configure(machine)
    machine.run("systemctl", "enable", "--now", "snatgw")
    again = machine.run(str(ROOT / "scripts/install"))
    assert "is there already" in again
    assert f"{FILE} (kept as it was)" in again
    assert "inside:" in machine.run("cat", FILE)
    assert show(machine, "ActiveState") == "active"

    assert "is removed" in machine.run(str(ROOT / "scripts/uninstall"))
    machine.shell(
        "test ! -e /opt/snatgw -a ! -e /usr/local/bin/snatgw -a ! -S /run/snatgw/api.sock"
    )
    machine.run("systemctl", "cat", "snatgw", status=1)
    assert "snatgw" not in machine.run("iptables-save")
    machine.run("test", "-e", FILE)
    machine.run("id", "snatgw")

    machine.run(str(ROOT / "scripts/uninstall"), "--purge")
    machine.shell("test ! -e /etc/snatgw -a ! -e /var/lib/snatgw")
    machine.run("id", "snatgw", status=1)
