"""``snatgw health``: what stands behind inbound rules, and how it is."""

from __future__ import annotations

import json
from typing import Any

import click

from gateway.cli.api_client import Daemon
from gateway.cli.options import api_option, examples, json_option
from gateway.cli.tables import Column, endpoint, print_table

COLUMNS = (
    Column("LOAD BALANCER"),
    Column("RULE"),
    Column("PROTO"),
    Column("FRONTEND"),
    Column("VM"),
    Column("BACKEND"),
    Column("STATUS"),
    Column("SINCE"),
    Column("LAST PROBE"),
)


@click.command(
    epilog=examples(
        "snatgw health",
        "snatgw health --vm vm1",
        "snatgw health --json | jq 'select(.status == \"Down\")'",
    )
)
@click.option("--vm", metavar="N", help="Only this VM, by name or private address.")
@json_option("one JSON object for each VM behind each rule")
@api_option
def health(vm: str | None, as_json: bool, api: str) -> None:
    """Health probes and backends: each VM behind each inbound rule.

    STATUS is what the rule's health probe reports: Up, Down, or Unknown before its first result
    counts; NotProbed where the rule has no probe, and for inbound NAT rules. LAST PROBE has the
    latest result and how many like it came in a row, and the security rule that denies the probe,
    if one does. A VM that is Down gets no new flows; what becomes of open ones:
    docs/load-balancing.md.
    """
    records = Daemon(api).lines("/v1/health", {} if vm is None else {"vm": vm})
    if as_json:
        for record in records:
            click.echo(json.dumps(record, ensure_ascii=False))
        return
    print_table(COLUMNS, [_row(record) for record in records])


def _row(record: dict[str, Any]) -> list[str]:
    status = record["status"]
    if status == "Down" and record["takesNewFlows"]:
        status = "Down (as all are: AllProbedUp)"
    return [
        record["loadBalancer"],
        record["rule"],
        record["protocol"],
        endpoint(record["frontend"]),
        record["vm"],
        endpoint(record["backend"]),
        status,
        record["since"] or "-",
        _last(record),
    ]


def _last(record: dict[str, Any]) -> str:
    last = record["lastProbe"]
    text = "-"
    if last is not None:
        text = f"{last['reason']}, {last['milliseconds']:.1f} ms"
        if last["inARow"] > 1:
            text += f", {last['inARow']} in a row"
    if record["deniedBy"] is not None:
        text += f"; denied by {record['deniedBy']}"
    return text
