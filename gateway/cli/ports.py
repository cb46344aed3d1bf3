"""``snatgw ports``: what each VM has of SNAT ports, and which destinations take them."""

from __future__ import annotations

import json
from typing import Any

import click

from gateway.cli.api_client import Daemon
from gateway.cli.options import api_option, examples, json_option
from gateway.cli.tables import Column, endpoint, print_table

SHOWN_DESTINATIONS = 3
COLUMNS = (
    Column("VM"),
    Column("PUBLIC IP"),
    Column("PROTO"),
    Column("METHOD"),
    Column("ALLOCATED", right=True),
    Column("USED", right=True),
    Column("FREE", right=True),
    Column("HIGH", right=True),
    Column("COOLING", right=True),
    Column("FAILED", right=True),
    Column("BUSIEST DESTINATIONS"),
)


@click.command(epilog=examples("snatgw ports --vm vm1", "snatgw ports --json | jq .free"))
@click.option("--vm", metavar="N", help="Only this VM's.")
@json_option("one JSON object for each VM, public IP and protocol")
@api_option
def ports(vm: str | None, as_json: bool, api: str) -> None:
    """SNAT port inventory per VM, public IP and protocol.

    USED counts ports that at least one flow holds; HIGH is the most that ever were in use; COOLING
    are held by flows that have ended; FAILED counts packets dropped because no port was free. A
    port is used again toward other destinations, so flows can be more than USED. The units of 8
    ports in which inbound rules listen on a public IP are no VM's; --json also shows each VM's port
    ranges.
    """
    records = Daemon(api).lines("/v1/ports", {} if vm is None else {"vm": vm})
    if as_json:
        for record in records:
            click.echo(json.dumps(record, ensure_ascii=False))
        return
    shown = list(records)
    print_table(COLUMNS, [_row(record) for record in shown])
    for address, units in {r["publicIp"]: r["reserved"] for r in shown if r["reserved"]}.items():
        click.echo(f"{address}: inbound rules keep {', '.join(units)} from being SNAT ports")


def _row(record: dict[str, Any]) -> list[str]:
    busiest = record["destinations"]
    shown = [f"{endpoint(d['remote'])} ({d['used']})" for d in busiest[:SHOWN_DESTINATIONS]]
    if len(busiest) > SHOWN_DESTINATIONS:
        shown.append("…")
    numbers = ("allocated", "used", "free", "highWater", "coolDown", "failed")
    return [
        record["vm"],
        record["publicIp"],
        record["protocol"],
        record["method"],
        *(str(record[name]) for name in numbers),
        ", ".join(shown) or "-",
    ]
