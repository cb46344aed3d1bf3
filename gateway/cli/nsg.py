"""``snatgw nsg``: effective security rules in the order in which they are asked, with hits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import click

from gateway.cli.api_client import Daemon
from gateway.cli.options import api_option, examples, json_option
from gateway.cli.tables import Column, print_table

SHOWN = 4
"""Values in a cell, and places in a heading; --json has all."""
COLUMNS = (
    Column("PRIORITY", right=True),
    Column("RULE"),
    Column("ACCESS"),
    Column("PROTO"),
    Column("SOURCE"),
    Column("PORTS"),
    Column("DESTINATION"),
    Column("PORTS"),
    Column("HITS", right=True),
)


@click.command(
    epilog=examples(
        "snatgw nsg",
        "snatgw nsg --vm vm1 --expand",
        "snatgw nsg --json | jq 'select(.hits > 0)'",
    )
)
@click.option("--vm", metavar="N", help="Only what stands in front of this VM, in the order asked.")
@click.option("--expand", is_flag=True, help="Show the prefixes behind tags and security groups.")
@json_option("one JSON object a rule, in the shape of az network nic list-effective-nsg")
@api_option
def nsg(vm: str | None, expand: bool, as_json: bool, api: str) -> None:
    """Effective security rules, the default ones among them, with hit counts.

    HITS counts the opening packets that a rule decided at its level since the daemon started: one
    for a flow that it allows, one for each attempt (a repeated SYN is one) that it denies. A reload
    keeps the counts of rules that it does not change. A group's counts are of all VMs that it
    stands in front of.
    """
    query = {} if vm is None else {"vm": vm}
    if expand:
        query["expand"] = "1"
    rules = Daemon(api).lines("/v1/nsg", query)
    if as_json:
        for rule in rules:
            click.echo(json.dumps(rule, ensure_ascii=False))
        return
    empty = True
    for _, group in groupby(rules, _section):
        if not empty:
            click.echo()
        empty = False
        listed = list(group)
        click.echo(_heading(listed[0]))
        print_table(COLUMNS, [_row(rule) for rule in listed])
    if empty:
        where = "" if vm is None else f" in front of {vm}"
        click.echo(f"no network security group{where}: all traffic is allowed")


def _section(rule: dict[str, Any]) -> tuple[str, str, str | None]:
    return rule["networkSecurityGroup"], rule["direction"], rule["level"]


def _heading(rule: dict[str, Any]) -> str:
    head = f"{rule['direction']}: {rule['networkSecurityGroup']}"
    if rule["level"] is not None:
        return f"{head} ({rule['level']})"
    places = [f"{place['level']} {place['name']}" for place in rule["associations"]]
    return f"{head} ({_shortened(places) or 'stands nowhere'})"


def _row(rule: dict[str, Any]) -> list[str]:
    return [
        str(rule["priority"]),
        rule["name"].partition("/")[2],
        rule["access"],
        rule["protocol"],
        _side(rule["sourceAddressPrefixes"], rule.get("expandedSourceAddressPrefix")),
        _values(rule["sourcePortRanges"], "0-65535"),
        _side(rule["destinationAddressPrefixes"], rule.get("expandedDestinationAddressPrefix")),
        _values(rule["destinationPortRanges"], "0-65535"),
        str(rule["hits"]),
    ]


def _side(written: Sequence[str], expanded: Sequence[str] | None) -> str:
    text = _values(written, "0.0.0.0/0")
    return text if expanded is None else f"{text} = {_shortened(expanded) or 'no address'}"


def _values(written: Sequence[str], every: str) -> str:
    return _shortened("Any" if value == every else value for value in written)


def _shortened(texts: Iterable[str]) -> str:
    whole = list(texts)
    more = len(whole) - SHOWN
    return ", ".join(whole[:SHOWN]) + (f", … {more} more" if more > 0 else "")
