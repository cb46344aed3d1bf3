"""`snatgw lab`: the namespace lab on the command line. Prints what `lifecycle.py` does and
found."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import click

from gateway.lab import lifecycle, processes, topology
from gateway.lab.lifecycle import LabError, Status
from gateway.lab.topology import Lab


class _Refusal(click.ClickException):
    """Exit status 1 and the message as it is: the contract's form of an error."""

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002
        click.echo(f"snatgw lab: {self.message}", err=True)


def _named(ctx: click.Context, param: click.Parameter, value: str) -> Lab:
    try:
        return Lab(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


name_option = click.option(
    "--name",
    "lab",
    callback=_named,
    default=topology.DEFAULT_NAME,
    show_default=True,
    help="Which lab: several can be up side by side.",
)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except LabError as error:
        raise _Refusal(str(error)) from error


@click.group()
def lab() -> None:
    """Five VMs, a gateway and an internet in network namespaces (root).

    Example: snatgw lab up && snatgw lab exec vm1 dig +short myip.opendns.com
    """


@lab.command()
@name_option
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="The gateway's configuration (default: one generated for the lab).",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds of Azure's timers that pass in one second (generated configuration; default 1).",
)
def up(lab: Lab, config: Path | None, time_scale: float | None) -> None:
    """Build the lab and start the gateway.

    Example: snatgw lab up --time-scale 60
    """
    if config is not None and time_scale is not None:
        raise click.UsageError("--time-scale is for the generated configuration, not for --config")
    with _refusals(), processes.termination_interrupts():
        ready = lifecycle.up(lab, config, time_scale or 1.0)
    click.echo(_summary(lab, ready))


@lab.command()
@name_option
def down(lab: Lab) -> None:
    """Remove the lab, also one that is half up or left by a crash.

    Example: snatgw lab down
    """
    with _refusals():
        removed = lifecycle.down(lab)
    click.echo(f"lab {lab.name}: {'removed' if removed else 'was not up'}")


@lab.command()
@name_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(lab: Lab, as_json: bool) -> None:
    """Say what of the lab there is and what runs.

    Example: snatgw lab status --json
    """
    found = lifecycle.status(lab)
    click.echo(json.dumps(asdict(found)) if as_json else _status_text(found))


@lab.command(
    name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@name_option
@click.argument("vm")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def exec_(lab: Lab, vm: str, command: tuple[str, ...]) -> None:
    """Run CMD in VM (vm1 to vm5; also gw and internet); without CMD, a shell.

    Input, output, terminal and exit status are the command's own.

    Example: snatgw lab exec vm1 curl -s http://web1.example/
    """
    with _refusals():
        if vm not in topology.ROLES:
            raise LabError(f"there is no VM {vm!r}: the lab has {', '.join(topology.ROLES)}")
        lifecycle.require_root()
        namespace = lab.namespace(vm)
        if namespace not in lifecycle.status(lab).namespaces:
            raise LabError(f"lab {lab.name} is not up (snatgw lab up{_option(lab)})")
    if command[:1] == ("--",):
        command = command[1:]
    program = command or (os.environ.get("SHELL", "/bin/sh"),)
    os.execvp("ip", ["ip", "netns", "exec", namespace, *program])


def _option(lab: Lab) -> str:
    return "" if lab.name == topology.DEFAULT_NAME else f" --name {lab.name}"


def _summary(lab: Lab, ready: str) -> str:
    snatgw = processes.program()
    run = f"{snatgw} lab exec{_option(lab)}"
    machines = "\n".join(
        f"  {vm.name}  {vm.address:<10} {vm.purpose}" for vm in topology.VIRTUAL_MACHINES
    )
    return f"""\
Lab {lab.name} is up.  Gateway: {ready}

{machines}

Try:
  {run} vm1 dig +short {topology.MYIP} @resolver1.opendns.com
  {run} vm2 nslookup {topology.MYIP} resolver1.opendns.com
  {run} vm3 curl http://web1.example/
  {run} vm1 curl -o /dev/null http://web2.example/large.bin
  {run} vm1 iperf3 -c iperf.example
  {run} internet curl http://app.example/      (one of vm4 and vm5 answers)
  {run} vm4 curl http://localhost/sick         (and its health probe fails)
  {run} vm1                      (a shell)

See (the first line lets the other commands find this gateway):
  export SNATGW_API={shlex.quote(str(lab.api_socket))}
  {snatgw} flows
  {snatgw} ports
  {snatgw} health
  {snatgw} events --follow

Logs and configuration: {lab.directory}
Remove it with: {snatgw} lab down{_option(lab)}"""


def _status_text(found: Status) -> str:
    lines = [f"lab {found.name}: {found.state}"]
    if found.state == "down":
        return lines[0]
    lines.append(f"  namespaces     {' '.join(found.namespaces) or 'none'}")
    for process in found.processes:
        runs = "runs" if process["running"] else "ended"
        lines.append(
            f"  {process['service']:<14} {runs:<6} pid {process['pid']:<8} {process['log']}"
        )
    lines.append(f"  api            {found.api}")
    lines.append(f"  configuration  {found.configuration or 'unknown'}")
    return "\n".join(lines)
