"""``snatgw reload`` and ``snatgw status``: one request, one answer."""

from __future__ import annotations

import json
from typing import Any

import click

from gateway.cli.api_client import Daemon
from gateway.cli.options import api_option, examples, json_option
from gateway.cli.tables import flows_sentence, seconds


@click.command(
    epilog=examples(
        "snatgw reload", "snatgw reload --enforce", "snatgw reload --json | jq .changes"
    )
)
@click.option(
    "--enforce", is_flag=True, help="End live flows that the security rules now in force deny."
)
@json_option("the changes as one JSON object")
@api_option
def reload(enforce: bool, as_json: bool, api: str) -> None:
    """Have the daemon apply its changed file.

    Prints what changed, and how many live flows the network security groups would deny if they
    opened now. These continue, as in Azure, except with --enforce and groups with flushConnection.
    A file with errors changes nothing: each is a line on standard error, and the exit status is 1.
    """
    document = Daemon(api).one("POST", "/v1/reload" + ("?enforce=1" if enforce else ""))
    for warning in document["warnings"]:
        click.echo(warning, err=True)
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    for change in document["changes"] or ["nothing changed"]:
        click.echo(change)
    refused, ended = document["refusedFlows"], document["endedFlows"]
    if refused or enforce or document["changes"]:
        click.echo(flows_sentence(refused, ended))


@click.command(epilog=examples("snatgw status", "snatgw status --json | jq .drops"))
@json_option("one JSON object")
@api_option
def status(as_json: bool, api: str) -> None:
    """The daemon's state and counters: flows, packets, drops by reason, queue losses."""
    document = Daemon(api).one("GET", "/v1/status")
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    document["uptimeSeconds"] = seconds(document["uptimeSeconds"])
    rows = list(_rows(document))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name.ljust(width)}  {value}")


def _rows(document: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in document.items():
        if isinstance(value, dict):
            rows += _rows(value, f"{prefix}{name}.") or [(prefix + name, "none")]
        elif isinstance(value, list):
            rows.append((prefix + name, ", ".join(map(str, value)) or "none"))
        else:
            rows.append((prefix + name, "none" if value is None else str(value)))
    return rows
