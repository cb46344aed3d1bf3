"""The demo: `python -m gateway.lab.demo [--keep]`, which `scripts/demo` runs.

Shows Azure's document of 2017 with real clients: the three outbound methods, then SNAT port
exhaustion and the recovery from it. Everything that it marks with ✓ is computed from what the
clients saw and what the gateway's own listings (the CLI's JSON) say; nothing is assumed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, cast

from gateway.lab import lifecycle, processes, services, topology
from gateway.lab.lifecycle import LabError
from gateway.lab.narration import Narrator
from gateway.lab.processes import module_command, module_environment
from gateway.lab.topology import Lab

LAB_NAME = "demo"
TIME_SCALE = 5
"""An RST's 15 s hold takes 3 s: short enough to wait for, long enough to be seen."""
RST_HOLD = 15
PORTS = 1024
COMMAND_SECONDS = 20.0
CONNECT_SECONDS = 10.0
EXHAUSTED_SECONDS = 3.0
"""How long an attempt that cannot succeed is given: two retransmissions."""
LISTING_AGE_SECONDS = 0.3
"""The API shares one snapshot among those who ask within a quarter of a second: one asked for
later than that shows all that was done before."""
MAXIMUM_QUERIES = 40
"""Queries until both frontends were seen: all 40 at one happens once in 2^39 demos."""
RESOLVER = "resolver1.opendns.com"


class Demo:
    """One run of the demo in one lab."""

    def __init__(self, lab: Lab, narrator: Narrator) -> None:
        self._lab = lab
        self._tell = narrator

    def run(self) -> None:
        """All sections, in order. The lab must be up."""
        self.show_methods()
        self.show_exhaustion()

    def show_methods(self) -> None:
        """Chapter 1: by which public address a VM goes out."""
        tell = self._tell
        tell.section("1. Three outbound methods: which public address does a VM have?")
        tell.say("As Azure's document says, ask OpenDNS who is asking:\n")
        command = ["nslookup", topology.MYIP, RESOLVER]
        printed = self._in_vm("vm1", command)
        tell.command("vm1", command, printed)
        address = topology.DEFAULT_PUBLIC_IP
        tell.check(f"Address: {address}" in printed, f"nslookup in vm1 answers {address}", printed)

        tell.say("\nvm1: standalone, default SNAT")
        self._show_method("vm1", {topology.DEFAULT_PUBLIC_IP}, "DefaultOutboundAccess")
        tell.say("\nvm2: load balanced, two frontends: any of them may be used")
        self._show_method("vm2", set(topology.FRONTENDS), "LoadBalancer")
        tell.say("\nvm3: instance-level public IP, no SNAT")
        flows = self._show_method(
            "vm3", {topology.INSTANCE_LEVEL_PUBLIC_IP}, "InstanceLevelPublicIP"
        )
        kept = all(flow["private"]["port"] == flow["public"]["port"] for flow in flows)
        tell.check(bool(flows) and kept, "vm3 keeps its own ports: nothing is shared", flows)

    def _show_method(self, vm: str, expected: set[str], method: str) -> list[dict[str, Any]]:
        tell = self._tell
        command = ["dig", "+short", topology.MYIP, f"@{RESOLVER}"]
        seen: list[str] = []
        while len(seen) < MAXIMUM_QUERIES and (not seen or not expected <= set(seen)):
            seen.append(self._in_vm(vm, command).strip())
        tell.command(vm, command, "\n".join(dict.fromkeys(seen)))
        wanted = " and ".join(sorted(expected))
        tell.check(set(seen) == expected, f"{vm} is seen as {wanted}", sorted(set(seen)))

        flows = self._listing("flows", "--vm", vm, "--remote", topology.OPENDNS)
        tell.command("gateway", ["snatgw", "flows", "--vm", vm, "--remote", topology.OPENDNS], "")
        rows = [
            (f["protocol"], _end(f["private"]), _end(f["public"]), _end(f["remote"]), f["method"])
            for f in flows
        ]
        tell.table(("protocol", "private", "public", "remote", "method"), rows[:4])
        if len(rows) > 4:
            tell.say(f"    … and {len(rows) - 4} more")
        listed = {flow["method"] for flow in flows}
        addresses = {flow["public"]["ip"] for flow in flows if flow["public"]}
        tell.check(listed == {method}, f"flows lists method {method}", listed or "no flows")
        tell.check(addresses == expected, f"flows lists public address {wanted}", sorted(addresses))
        return flows

    def show_exhaustion(self) -> None:
        """Chapters 2 and 3: a VM out of ports, and how it recovers."""
        tell = self._tell
        target = f"{topology.ECHO}:{topology.ECHO_PORT}"
        tell.section("2. SNAT port exhaustion")
        tell.say(f"vm1 has {PORTS:,} SNAT ports. It opens {PORTS:,} connections to {target}\n")
        with self._client("vm1", topology.ECHO, topology.ECHO_PORT) as ask:
            opened = ask(f"open {PORTS} {CONNECT_SECONDS}")
            tell.check(
                opened["open"] == PORTS,
                f"{opened['open']:,} connections opened in {opened['seconds']} s",
                opened,
            )
            more = ask(f"open 1 {EXHAUSTED_SECONDS}")
            tell.check(
                more["failed"] == {"timeout": 1},
                f"number {PORTS + 1:,} fails by time-out: no refusal, no ICMP, only silence",
                more,
            )
            alive = ask("echo")
            tell.check(
                alive["alive"] == PORTS, f"the {alive['alive']:,} open ones go on working", alive
            )
            self._show_others()
            self._show_ports()
            self._show_event()
            self._show_recovery(ask)

    def _show_others(self) -> None:
        tell = self._tell
        same = self._connect("vm2", topology.ECHO, topology.ECHO_PORT)
        tell.check(same["open"] == 1, "vm2 reaches the same address: its ports are its own", same)
        other = self._connect("vm1", topology.WEB[0], 80)
        tell.check(
            other["open"] == 1, "vm1 reaches another address: toward it the ports are free", other
        )

    def _show_ports(self) -> None:
        tell = self._tell
        tell.say("\nWhat the gateway knows of it:")
        rows = [row for row in self._listing("ports", "--vm", "vm1") if row["protocol"] == "Tcp"]
        names = ("vm", "publicIp", "protocol", "allocated", "used", "free", "failed")
        tell.command("gateway", ["snatgw", "ports", "--vm", "vm1"], "")
        tell.table(names, ([row[name] for name in names] for row in rows))
        row = rows[0] if len(rows) == 1 else {}
        tell.check(
            row.get("allocated") == PORTS and row.get("used") == PORTS,
            f"ports: all {PORTS:,} of vm1's TCP ports are in use",
            rows,
        )
        tell.check(row.get("failed", 0) > 0, "ports: counts the attempts that failed", rows)
        busiest = (row.get("destinations") or [{}])[0]
        tell.check(
            busiest.get("remote", {}).get("ip") == topology.ECHO and busiest.get("used") == PORTS,
            f"ports: names {topology.ECHO} as the destination that uses them",
            busiest,
        )

    def _show_event(self) -> None:
        tell = self._tell
        events = [
            event
            for event in self._listing("events")
            if event["properties"].get("eventName") == "Resource Limits Hit"
            and event["properties"].get("vm") == "vm1"
        ]
        shown = json.dumps(events[-1], indent=2) if events else ""
        tell.command("gateway", ["snatgw", "events", "--json"], shown)
        properties = events[-1]["properties"] if events else {}
        tell.check(
            properties.get("eventDescription") == "Ports exhausted"
            and properties.get("eventProperties", {}).get("public ip address")
            == topology.DEFAULT_PUBLIC_IP,
            "events: Azure's alert “Ports exhausted” names vm1's public address",
            properties or "no such event",
        )

    def _show_recovery(self, ask: Client) -> None:
        tell = self._tell
        tell.section("3. And out of it again")
        tell.say(
            f"vm1 resets its connections (RST). Azure holds each port for {RST_HOLD} s more; this\n"
            f"lab's clock runs {TIME_SCALE} times as fast, so for {RST_HOLD / TIME_SCALE:g} s.\n"
        )
        started = time.monotonic()
        closed = ask("reset")["closed"]
        held = self._listing(
            "flows", "--vm", "vm1", "--remote", topology.ECHO, "--state", "CoolDown"
        )
        tell.check(
            len(held) == closed,
            f"flows: all {closed:,} are closed, and their ports still held (CoolDown)",
            f"{len(held):,} in CoolDown",
        )
        again = ask(f"open 1 {CONNECT_SECONDS}")
        elapsed = time.monotonic() - started
        tell.check(
            again["open"] == 1 and elapsed >= RST_HOLD / TIME_SCALE,
            f"a new connection waits for the hold to end: open {elapsed:.1f} s after the resets",
            again,
        )
        used = [
            destination["used"]
            for row in self._listing("ports", "--vm", "vm1")
            if row["protocol"] == "Tcp"
            for destination in row["destinations"]
            if destination["remote"]["ip"] == topology.ECHO
        ]
        tell.check(used == [1], f"ports: toward {topology.ECHO} 1 is in use, the rest free", used)

    def _connect(self, vm: str, address: str, port: int) -> dict[str, Any]:
        with self._client(vm, address, port) as ask:
            outcome = ask(f"open 1 {CONNECT_SECONDS}")
            ask("close")
            return outcome

    @contextmanager
    def _client(self, vm: str, address: str, port: int) -> Iterator[Client]:
        command = module_command("gateway.lab.client", address, str(port))
        process = subprocess.Popen(
            self._enter(vm, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=module_environment(),
        )
        try:
            yield Client(process, vm)
        finally:
            process.kill()
            process.communicate()

    def _enter(self, vm: str, command: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self._lab.namespace(vm), *command]

    def _in_vm(self, vm: str, command: Sequence[str]) -> str:
        return _run(self._enter(vm, command))

    def _listing(self, *arguments: str) -> list[dict[str, Any]]:
        time.sleep(LISTING_AGE_SECONDS)
        command = module_command("gateway", *arguments, "--json")
        printed = _run(command, own=self._lab)
        return [json.loads(line) for line in printed.splitlines()]


class Client:
    """A running `gateway.lab.client`: called with a command, it returns the answer."""

    def __init__(self, process: subprocess.Popen[str], vm: str) -> None:
        self._process = process
        self._vm = vm

    def __call__(self, command: str) -> dict[str, Any]:
        """What it answers to a command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n")
        answer = self._process.stdout.readline()
        if not answer:
            raise LabError(f"the client in {self._vm} ended at: {command}")
        found: dict[str, Any] = json.loads(answer)
        return found


def _run(command: Sequence[str], own: Lab | None = None) -> str:
    """Standard output of a command, with why it failed if it did. `own`: it is ours, and asks
    that lab's gateway; its failure ends the demo."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env=module_environment(SNATGW_API=str(own.api_socket)) if own else None,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        told = f"{' '.join(command)}: no answer in {COMMAND_SECONDS:.0f} seconds"
        if own:
            told += f"\n{services.tail(own.log(services.DAEMON))}"
        raise LabError(told) from error
    if own and done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout + (done.stderr if done.returncode else "")


def _end(end: dict[str, Any] | None) -> str:
    return f"{end['ip']}:{end['port']}" if end else "-"


def main() -> int:
    """Run the demo; the exit status is 0 if everything happened as it says."""
    if sys.argv[1:] not in ([], ["--keep"]):
        print("usage: python -m gateway.lab.demo [--keep]", file=sys.stderr)
        return 2
    keep = bool(sys.argv[1:])
    # A terminal that has no tick shows something else; the demo goes on.
    cast(TextIOWrapper, sys.stdout).reconfigure(errors="replace")
    narrator = Narrator()
    lab = Lab(LAB_NAME)
    with processes.termination_interrupts():
        try:
            lifecycle.require_root()
            if lifecycle.status(lab).state == "incomplete":
                lifecycle.down(lab)
            narrator.say("Building the lab: three VMs, a gateway and an internet …")
            narrator.say(f"  {lifecycle.up(lab, time_scale=TIME_SCALE)}")
        except LabError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        return _perform(lab, narrator, keep)


def _perform(lab: Lab, narrator: Narrator, keep: bool) -> int:
    try:
        Demo(lab, narrator).run()
        status = narrator.conclude()
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        status = 130
    finally:
        if not keep:
            lifecycle.down(lab)
            narrator.say("The lab is removed.")
    if keep:
        narrator.say(
            f"\nThe lab stays up: export SNATGW_API={lab.api_socket}\n"
            f"  {processes.program()} lab exec --name {lab.name} vm1 bash\n"
            f"  {processes.program()} lab down --name {lab.name}"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
