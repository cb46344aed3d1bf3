"""``snatgw diagnose``: what is wrong and what to do about it, in sentences."""

from __future__ import annotations

import json
import shutil
import textwrap
from typing import Any
from urllib.parse import urlencode

import click

from gateway.cli.api_client import Daemon
from gateway.cli.options import api_option, examples, json_option

COLOURS = {"Critical": "red", "Warning": "yellow", "Information": "blue", "Good": "green"}
WIDEST = 100


@click.command(
    epilog=examples(
        "snatgw diagnose",
        "snatgw diagnose vm1",
        "snatgw diagnose vm1 --json | jq '.findings[] | select(.severity == \"Critical\")'",
    )
)
@click.argument("vm", required=False)
@json_option("one JSON object")
@api_option
def diagnose(vm: str | None, as_json: bool, api: str) -> None:
    """What is wrong and what to do about it, for all VMs or for one (by name or private address).

    Takes two seconds: it lists the ports twice, to see how fast they fill up, and every flow
    once. Durations are Azure's: with timeScale 60, a minute of them passes in a second. The exit
    status is 0 whatever is found.
    """
    query = "" if vm is None else f"?{urlencode({'vm': vm})}"
    document = Daemon(api).one("GET", f"/v1/diagnose{query}")
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    width = min(shutil.get_terminal_size((WIDEST, 24)).columns, WIDEST)
    for number, finding in enumerate(document["findings"]):
        if number:
            click.echo()
        _show(finding, width)


def _show(finding: dict[str, Any], width: int) -> None:
    severity = finding["severity"]
    click.echo(f"{click.style(severity, fg=COLOURS.get(severity), bold=True)}: {finding['title']}")
    click.echo(textwrap.fill(finding["text"], width, initial_indent="  ", subsequent_indent="  "))
    for advice in finding["advice"]:
        line, *commands = advice.split("\n")
        click.echo(textwrap.fill(line, width, initial_indent="  → ", subsequent_indent="    "))
        for command in commands:
            click.echo(f"    {command}")  # unwrapped: to be pasted
