"""``snatgw check``: is the configuration right, and can this host carry it out?"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from gateway.cli.options import examples, json_option

if TYPE_CHECKING:
    from gateway.model.configuration import Configuration

_MARKS = {True: "✓", False: "✗", None: "·"}
_PLAIN_MARKS = {True: "yes", False: "NO ", None: "-  "}


@click.command(
    epilog=examples(
        "snatgw check -c gateway.yaml",
        "snatgw check -c gateway.yaml --host",
        "snatgw check -c gateway.yaml --json | jq -r .message",
    )
)
@click.option("-c", "--config", "file", required=True, metavar="FILE", help="The configuration.")
@click.option("--host", is_flag=True, help="Also probe what this kernel and interfaces offer.")
@json_option("one JSON object a problem, then, with --host, one a probe")
def check(file: str, host: bool, as_json: bool) -> None:
    """Validate a configuration.

    Prints every problem with file, field, value and what is allowed on standard error, and "ok"
    when there is none that matters (warnings do not). With --host that goes for this host, too:
    what stops the start, and a firewall that drops the gateway's packets for certain. With --json,
    standard output has all of them as objects, and standard error those that matter. Nothing is
    changed, no daemon is needed; --host wants root.
    """
    from gateway.model.reading.load import load

    loaded = load(file)
    for problem in loaded.problems:
        if as_json:
            click.echo(json.dumps(asdict(problem), ensure_ascii=False))
        if not as_json or problem.severity == "error":
            click.echo(str(problem), err=True)
    configuration = loaded.configuration
    if configuration is None:
        sys.exit(1)
    right = f"{file}: {_summary(configuration)}"
    if host:
        if not _probe(configuration, right, as_json):
            sys.exit(1)
    elif not as_json:
        click.echo(f"ok: {right}")


def _summary(configuration: Configuration) -> str:
    counts = (
        (len(configuration.virtual_machines), "virtual machine"),
        (len(configuration.public_ip_addresses), "public IP"),
        (len(configuration.load_balancers), "load balancer"),
    )
    named = [f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts]
    return f"{configuration.gateway.profile}, {', '.join(named)}"


def _probe(configuration: Configuration, right: str, as_json: bool) -> bool:
    """Print what each probe found; False if the gateway would not work here. ``right``: what is
    said of a file without problems."""
    from gateway.daemon.engine_process.host import LinuxHost

    findings = LinuxHost().check(configuration)
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    marks = _MARKS if encoding.startswith("utf") else _PLAIN_MARKS
    failed = any(finding.fails for finding in findings)
    if not as_json:
        click.echo(f"the file is right, but not this host: {right}" if failed else f"ok: {right}")
    for finding in findings:
        if as_json:
            click.echo(json.dumps(asdict(finding), ensure_ascii=False))
        elif not finding.fails:
            click.echo(f"{marks[finding.ok]} {finding.sentence}")
    for finding in findings:
        if finding.fails:
            mark = "" if as_json else f"{marks[False]} "
            click.echo(f"{mark}{finding.sentence}", err=True)
    return not failed
